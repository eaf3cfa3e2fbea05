"""The measurements of `tools.evidence`, tiny; that beside PyTorch needs torch."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from senet_jax.measure import evidence
from tests.helpers.paths import ROOT
from tests.helpers.until import until

# One for each command and kind of record. `test_evidence.py` sees that the command lines of all are
# accepted, and what the records of several commands come to.
QUICK = ('digits', 'logits', 'where_time_goes', 'latency_section_4')
REST = ('se_tax_r50_inference', 'torch_inference', 'cifar_rate', 'student_integration', 'photos')


@pytest.mark.parametrize(
  'kinds', [QUICK, pytest.param(REST, marks=pytest.mark.slow)], ids=['quick', 'rest']
)
def test_a_rehearsal_goes_through_its_kinds(kinds, tmp_path):
  """Killed once on the way: what was there stays as it is, and the rest is made."""
  line = [sys.executable, '-m', 'senet_jax.tools.evidence', f'--output={tmp_path}/out',
          '--rehearse', '--commit=abcdef0', f'--only={",".join(kinds)}']  # fmt: skip
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '1'}
  first = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
  output = tmp_path / 'out'
  done = lambda: [p for p in output.glob('*.json') if p.name != evidence.INDEX]  # noqa: E731
  until(done, 300)
  first.send_signal(signal.SIGKILL)
  first.wait()
  before = {path: path.read_bytes() for path in done()}
  second = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert second.returncode == 0, second.stdout + second.stderr
  assert {path: path.read_bytes() for path in before} == before
  table = second.stdout[second.stdout.index('\nmeasurement ') :]
  for name in kinds:
    assert re.search(rf'^{name} +(done|skipped) ', table, re.MULTILINE), table
    path = output / f'{name}.json'
    if not path.exists():
      assert re.search(rf'^{name} +skipped .*installed$', table, re.MULTILINE), table
      continue
    found = json.loads(path.read_text())
    assert found['git_commit'].rstrip('+') == 'abcdef0' and found['device'] == '1 x cpu'
    assert found['versions']['jax'] and found['command'].startswith('python -m senet_jax.')
    assert found['measurement']['status'] == 'done' and found['date'] and found['what']
  read = lambda name: json.loads((output / f'{name}.json').read_text())  # noqa: E731
  if kinds == QUICK:
    (step,) = read('where_time_goes')['profiles']
    assert step['trace']['kinds']
  else:
    assert {row['kind'] for row in read('photos')['rows']} == {'fed', 'in place'}
