"""The private part of JAX: one module uses it, and the installed version has it."""

import pathlib
import re
import subprocess
import sys
import types

import pytest

from senet_jax.errors import UserError
from senet_jax.runtime import coordination
from tests.helpers.paths import ROOT
from tests.helpers.ports import free_port

MODULE = pathlib.Path(coordination.__file__).relative_to(ROOT)
PRIVATE = re.compile(r'\b(jax|jaxlib|flax|optax|orbax)(\.\w+)*(\.| import )_[a-z]')

# One value is of the other process, one is found at once, one is not there, one has been set.
PROCESS = """
import sys
from senet_jax import runtime
from senet_jax.runtime import coordination as c

number = int(sys.argv[2])
assert not c.connected() and (c.process_id(), c.process_count()) == (0, 1)
runtime.connect(sys.argv[1], 2, number)
assert c.connected() and (c.process_id(), c.process_count()) == (number, 2)
c.check()
c.set_value(f'test/{number}', f'of {number}')
assert c.wait_for_value(f'test/{1 - number}', 60) == f'of {1 - number}'
assert c.values_under('test') == ['of 0', 'of 1']
assert c.try_value(f'test/{number}') == f'of {number}' and c.try_value('none') is None
for refused in (lambda: c.set_value('test/0', 'x'), lambda: c.wait_for_value('none', 1)):
  try:
    refused()
  except RuntimeError:
    continue
  raise AssertionError('no error')
c.wait_at_barrier('all', 60)
print('passed')
"""


def test_nothing_else_is_private():
  folders = ('senet_jax', 'configs', 'launch')
  paths = [path for folder in folders for path in sorted((ROOT / folder).rglob('*.py'))]
  found = {path.relative_to(ROOT) for path in paths if PRIVATE.search(path.read_text())}
  assert found == {MODULE}


@pytest.mark.parametrize('name', ['constraints.txt', 'constraints-latest.txt'])
def test_pinned_versions_were_seen(name):
  (version,) = re.findall(r'^jax==(.+)$', (ROOT / name).read_text(), re.MULTILINE)
  assert version in coordination.SEEN_WITH


def test_two_processes():
  command = [sys.executable, '-c', PROCESS, f'127.0.0.1:{free_port()}']
  processes = [
    subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True)
    for number in range(2)
  ]
  assert [process.communicate(timeout=120)[0] for process in processes] == 2 * ['passed\n']


def test_what_has_moved(monkeypatch):
  coordination.check()  # alone: nothing is needed
  monkeypatch.setattr(coordination, 'connected', lambda: True)
  state = types.SimpleNamespace(process_id=0, num_processes=2, client=object())
  monkeypatch.setattr('jax._src.distributed.global_state', state)
  with pytest.raises(UserError, match=r"key_value_set'\); install one that does, such as jax==0"):
    coordination.check()
  monkeypatch.delattr('jax._src.distributed.global_state')
  with pytest.raises(UserError, match=r"jax [\d.]+ does not have what .*global_state'"):
    coordination.check()
  monkeypatch.setitem(sys.modules, 'jax._src.distributed', None)
  monkeypatch.delattr('jax._src.distributed')
  with pytest.raises(UserError, match='does not have what'):
    coordination.check()
