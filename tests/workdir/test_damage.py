"""What counts as damage in a checkpoint is moved away, and nothing else is."""

import json
import random
import shutil

import jax
import numpy as np
import pytest

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.workdir import damage
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.damage import Damaged
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState, abstract_state

PROGRESS = RunProgress({'seed': 1}, final={'step': 2, 'epoch': 1.0, 'top1_error': 40.0})


def state(step: int) -> TrainState:
  kernel = np.random.default_rng(step).normal(size=(3, 3, 8, 8)).astype(np.float32)
  return TrainState(
    np.int32(step), {'conv': {'kernel': kernel}}, {'mean': np.zeros(4, np.float32)}, ()
  )


ABSTRACT = abstract_state(state(0), jax.sharding.SingleDeviceSharding(jax.devices()[0]))


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  """A workdir with checkpoints 1 and 2."""
  workdir = tmp_path_factory.mktemp('saved')
  with Checkpoints(workdir) as checkpoints:
    for step in (1, 2):
      checkpoints.save(state(step), PROGRESS, {'top1_error': 42.0 - step})
  return workdir


@pytest.fixture
def workdir(saved, tmp_path):
  shutil.copytree(saved, tmp_path / 'run')
  return tmp_path / 'run'


def resume(workdir) -> tuple[int, list[str]]:
  """Returns the step from which a run would go on, and what it says of others."""
  said = []
  with Checkpoints(workdir) as checkpoints:
    restored = checkpoints.restore_latest(ABSTRACT, said.append)
  np.testing.assert_array_equal(
    restored.state.params['conv']['kernel'],
    state(int(restored.state.step)).params['conv']['kernel'],
  )
  return int(restored.state.step), said


def set_aside(workdir) -> list[str]:
  return [path.name for path in workdir.glob('damaged/*')]


@pytest.mark.parametrize('seed', range(16))
def test_any_damage_of_one_leaves_the_other(workdir, seed):
  choose = random.Random(seed)
  paths = sorted(p for p in (workdir / 'checkpoints/2').rglob('*') if p.is_file())
  path = choose.choice([p for p in paths if p.name != 'commit_success.txt'])
  data = bytearray(path.read_bytes())
  match choose.randrange(4):
    case 0:
      path.unlink()
    case 1:
      path.write_bytes(data[: choose.randrange(len(data))])
    case 2:
      path.write_bytes(choose.randbytes(len(data)))
    case 3:
      data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
      path.write_bytes(data)
  step, _ = resume(workdir)  # the right arrays, whichever it is
  assert set_aside(workdir) == (['2.0'] if step == 1 else [])
  assert step == 2 or not (workdir / 'checkpoints/2').exists()


@pytest.mark.parametrize(
  'error',
  [
    ValueError('UNAVAILABLE: Error opening "zarr" driver: connection reset'),
    ValueError('PERMISSION_DENIED: Error reading "params.conv" in OCDBT database'),
    MemoryError('cannot allocate'),
    RuntimeError('RESOURCE_EXHAUSTED: out of memory'),
    OSError(5, 'Input/output error'),
    TimeoutError('network'),
  ],
)
def test_what_is_no_damage_is_raised_and_moves_nothing(workdir, monkeypatch, error):
  def fail(*_, **__):
    raise error

  with Checkpoints(workdir) as checkpoints:
    monkeypatch.setattr(checkpoints._manager, 'restore', fail)
    with pytest.raises(type(error)) as raised:
      checkpoints.restore_latest(ABSTRACT, print)
  assert raised.value is error and not isinstance(error, Damaged)
  assert not set_aside(workdir)


@pytest.mark.parametrize('error', [KeyError('key_type'), FileNotFoundError('no subdirectory')])
def test_contents_unknown_to_this_orbax_are_damage_if_it_wrote_them(workdir, monkeypatch, error):
  def restore(step, args):
    if step == 2:
      raise error
    return real(step, args=args)

  with Checkpoints(workdir) as checkpoints:
    real = checkpoints._manager.restore
    monkeypatch.setattr(checkpoints._manager, 'restore', restore)
    with monkeypatch.context() as patch:
      patch.setattr(damage.ocp, '__version__', '99.0')
      with pytest.raises(type(error)):
        checkpoints.restore_latest(ABSTRACT, print)
    assert int(checkpoints.restore_latest(ABSTRACT, print).state.step) == 1
  assert set_aside(workdir) == ['2.0']


def test_processes_must_agree(workdir, monkeypatch):
  (workdir / 'checkpoints/2/host/metadata').write_text('{')
  with monkeypatch.context() as patch:
    patch.setattr(runtime, 'gather', lambda name, mine: [mine, []])
    with pytest.raises(UserError, match=r'some processes only: 1 differ.*Nothing was moved'):
      resume(workdir)
    assert (workdir / 'checkpoints/2').exists() and not set_aside(workdir)
    waits = []
    patch.setattr(runtime, 'gather', lambda name, mine: [mine, mine])
    patch.setattr(runtime, 'is_first', lambda: False)
    patch.setattr(runtime, 'barrier', waits.append)
    damage.set_aside(workdir / 'checkpoints', ['2'])
    assert len(waits) == 1 and not set_aside(workdir)  # that is for process 0
  assert resume(workdir)[0] == 1 and set_aside(workdir) == ['2.0']


CHANGES = {
  'a list': lambda host: [],
  'misspelt': lambda host: {('idxntity' if k == 'identity' else k): v for k, v in host.items()},
  'counter': lambda host: {**host, 'examples_seen': 7},
  'best': lambda host: {**host, 'best': {'step': 1}},
  'patience': lambda host: {**host, 'early_stopping': {'patience_count': 'x'}},
  'state checksum': lambda host: {**host, 'checksum': None},
  'seal': lambda host: {('host_checksun' if k == 'host_checksum' else k): v
                        for k, v in host.items()},
}  # fmt: skip


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_changed_host_is_damage(workdir, change):
  path = workdir / 'checkpoints/2/host/metadata'
  path.write_text(json.dumps(change(json.loads(path.read_text()))))
  with pytest.raises(UserError, match=r'checkpoint 2 in .* is damaged .* Resume the run'):
    Checkpoints(workdir, read_only=True).__enter__()
  assert not set_aside(workdir)
  assert resume(workdir)[0] == 1
  assert set_aside(workdir) == ['2.0']


def test_changed_metrics_are_damage(workdir):
  (workdir / 'checkpoints/2/metrics/metrics').write_text('{"top1_error": 39.0}')
  assert resume(workdir)[0] == 1


def test_host_of_an_earlier_version_has_no_seal(workdir):
  path = workdir / 'checkpoints/2/host/metadata'
  host = json.loads(path.read_text())
  old = {k: v for k, v in host.items() if k not in ('host_checksum', 'orbax', 'metrics')}
  path.write_text(json.dumps(old))
  assert resume(workdir) == (2, [])
  for wrong in ({'final': {'step': 1}}, {'final': {'step': '1', 'epoch': 1}}, {'looped': 1}):
    path.write_text(json.dumps({**old, **wrong}))
    with pytest.raises(Damaged):
      damage.read_host(workdir / 'checkpoints/2')


@pytest.mark.parametrize(
  'place', ['host', 'host/metadata', 'metrics/metrics', 'state/_METADATA', 'state/manifest.ocdbt']
)
@pytest.mark.parametrize('kind', ['file', 'directory', 'link to itself'])
def test_what_is_something_else_is_damage(workdir, place, kind):
  path = workdir / 'checkpoints' / '2' / place
  shutil.rmtree(path) if path.is_dir() else path.unlink()
  match kind:
    case 'file':
      path.write_bytes(b'x')
    case 'directory':
      path.mkdir()
    case _:
      path.symlink_to(path)
  assert resume(workdir)[0] == 1
  assert set_aside(workdir) == ['2.0']
