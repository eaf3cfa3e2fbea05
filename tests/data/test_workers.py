"""Processes that decode: the same images as in threads, and what happens when one or all end."""

import errno
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.context import SpawnProcess

import numpy as np
import pytest

from senet_jax import config as config_lib, runtime
from senet_jax.data import decoding, feeds, photos, workers
from senet_jax.data.crops import Crops
from senet_jax.data.stream_feed import StreamEvalFeed
from senet_jax.errors import UserError
from tests.helpers.encoded import encoded
from tests.helpers.photos import small_photo
from tests.helpers.small_run import configured

FIELDS = {
  'model.name': 'se_resnet20_cifar', 'data.feed': 'stream', 'data.image_size': 32,
  'data.crop_area': (0.08, 1.0), 'data.pad': 0, 'data.eval_split': 'val', 'batch_size': 8,
  'data.name': 'image_folder',
}  # fmt: skip
SHAPE = (24, 24, 3)
DECODE = functools.partial(
  decoding.training_image, area=(0.08, 1.0), aspect=(3 / 4, 4 / 3), rotation=10.0
)
PHOTOS = [encoded(small_photo(i, 40 + 9 * i, 70), 'PNG') for i in range(5)]
DRAWN = np.random.default_rng(0).random((5, decoding.training_draws(None)), np.float32)
needs_linux = pytest.mark.skipif(not pathlib.Path('/dev/shm').exists(), reason='needs Linux')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Photos of two classes, of which one of each split is damaged."""
  root = tmp_path_factory.mktemp('photos')
  for split, count in (('train', 21), ('val', 9)):
    for i in range(count):
      place = root / split / 'ab'[i % 2]
      place.mkdir(parents=True, exist_ok=True)
      data = encoded(small_photo(i, 40 + 3 * i, 70), 'PNG')
      (place / f'{i:02}.png').write_bytes(data[:200] if i == 4 else data)
  return root


@pytest.mark.parametrize('fields', [
  {'data.randaugment': 'rand-m7-mstd0.5-inc1', 'data.rotation': 10.0, 'data.repeats': 2},
  {'data.train_size': (16, 24), 'data.train_size_boundaries': (1.0,)},
])  # fmt: skip
def test_the_same_batches_as_of_threads(folder, fields):
  def batches(count):
    config = configured({**FIELDS, 'data.dir': str(folder), **fields, 'data.workers': count})
    stream = feeds.training_feed(config, runtime.data_mesh(1)).stream
    return list(stream.batches(1, 7)), stream.damaged

  (expected, bad), (found, also_bad) = batches(0), batches(2)
  assert bad and also_bad == bad
  for one, other in zip(found, expected, strict=True):
    for name in other:
      np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
  'crops', [None, pytest.param(Crops(24, (28, 32), ten=True), marks=pytest.mark.thorough)]
)
def test_the_same_evaluation(folder, crops):
  def batches(count):
    config = configured({**FIELDS, 'data.dir': str(folder), 'data.workers': count})
    feed = StreamEvalFeed.create(config, 'val', runtime.data_mesh(1), crops)
    return list(feed.stream.batches(0, len(feed)))

  expected = batches(0)
  assert sum((~batch['readable']).sum() for batch in expected) == 1
  for one, other in zip(batches(2), expected, strict=True):
    for name in other:
      np.testing.assert_array_equal(one[name], other[name])


def test_nothing_to_do_where_images_are_in_device_memory():
  config = config_lib.cifar('se_resnet20_cifar')
  config.data.workers = 2
  with pytest.raises(UserError, match=r"data\.workers=2 has no effect with .*'device'"):
    config_lib.check(config)


@needs_linux
def test_a_process_has_no_threads_but_its_own():
  some = workers.Workers(1)
  with some.decoded(DECODE, PHOTOS, DRAWN, SHAPE):
    (process,) = some._pool._processes
    assert len(os.listdir(f'/proc/{process}/task')) == 2  # one waits for the end of this one


def test_errors_of_an_image_come_back():
  some = workers.start(2)
  broken = some.decoded(DECODE, [*PHOTOS[:2], b'no image'], DRAWN[:3], SHAPE)
  with pytest.raises(photos.UnreadableImage, match='no JPEG, PNG'), broken:
    pass
  with some.decoded(DECODE, PHOTOS, DRAWN, SHAPE) as images:
    expected = [DECODE(data, own, SHAPE) for data, own in zip(PHOTOS, DRAWN, strict=True)]
    np.testing.assert_array_equal(images, expected)


def test_memory_is_used_again_and_grows():
  some = workers.Workers(1)
  names = []
  for side in (8, 8, 300, 8):
    shape = (side, side, 3)
    with some.decoded(DECODE, PHOTOS, DRAWN, shape) as images:
      assert images.shape == (5, *shape)
    (memory,) = some._idle
    names.append(memory.name)
  assert names[0] == names[1] != names[2] == names[3]


@needs_linux
def test_too_little_shared_memory():
  side = 1 << (shutil.disk_usage('/dev/shm').total.bit_length() // 2)
  large = workers.Workers(1).decoded(DECODE, PHOTOS, DRAWN, (side, side, 3))
  before = set(pathlib.Path('/dev/shm').iterdir())
  with pytest.raises(UserError, match=r'workers=1 and one more take .* No space left'), large:
    pass
  assert set(pathlib.Path('/dev/shm').iterdir()) <= before


def test_a_process_that_cannot_be_started_is_no_fault_of_an_image(monkeypatch):
  def start(process):
    del process
    raise OSError(errno.EAGAIN, 'Resource temporarily unavailable')

  monkeypatch.setattr(SpawnProcess, 'start', start)
  one = workers.Workers(1).decoded(DECODE, PHOTOS, DRAWN, SHAPE)
  with pytest.raises(UserError, match=r'workers=1: .* cannot be started \(Resource temp'), one:
    pass


def test_a_worker_that_is_killed_ends_the_run_in_one_line(folder):
  config = configured({**FIELDS, 'data.dir': str(folder), 'data.workers': 2})
  stream = feeds.training_feed(config, runtime.data_mesh(1)).stream
  batches = stream.batches(0)
  next(batches)
  first, other = stream.form.workers._pool._processes
  os.kill(other, signal.SIGSTOP)  # as if it waited for a lock that the first one has
  os.kill(first, signal.SIGKILL)
  with pytest.raises(UserError, match='workers=2 that decode images has ended'):
    for _ in range(100):
      next(batches)
  ended([first, other])
  again = feeds.training_feed(config, runtime.data_mesh(1)).stream
  assert len(next(again.batches(0))['images']) == 8


@needs_linux
@pytest.mark.thorough
@pytest.mark.parametrize('end', ['', 'raise SystemExit(3)', 'os.kill(os.getpid(), 2)',
                                 'os.kill(os.getpid(), 9)'])  # fmt: skip
def test_nothing_is_left_of_a_process_that_ended(folder, tmp_path, end):
  code = f"""
if __name__ == '__main__':
  import os
  from senet_jax import runtime
  from senet_jax.data import feeds, workers
  from tests.helpers.small_run import configured
  made = workers.SharedMemory
  def noted(**options):
    memory = made(**options)
    print(memory.name, flush=True)
    return memory
  workers.SharedMemory = noted
  fields = {FIELDS!r}
  config = configured({{**fields, 'data.dir': {str(folder)!r}, 'data.workers': 2}})
  feed = feeds.training_feed(config, runtime.data_mesh(1))
  feed.inputs(0, 1)
  some = feed.stream.form.workers
  print(*(f'pid_{{pid}}' for pid in some._pool._processes), flush=True)
  feed.inputs(5, 1)  # drops what was under way
  {end}
"""
  done = run_script(tmp_path, code)
  expected = {'': (0,), 'raise SystemExit(3)': (3,), 'os.kill(os.getpid(), 9)': (-9,)}
  assert done.returncode in expected.get(end, (-2, 130)), done.stderr
  assert 'after shutdown' not in done.stderr
  assert end == 'os.kill(os.getpid(), 2)' or 'Traceback' not in done.stderr
  words = done.stdout.split()
  pids = [int(word[4:]) for word in words if word.startswith('pid_')]
  shared = [pathlib.Path('/dev/shm', word) for word in words if word.startswith('psm_')]
  assert len(pids) == 2 and shared
  ended(pids, shared)


def test_a_script_that_runs_itself_again_is_told_so(tmp_path):
  done = run_script(
    tmp_path,
    """
import numpy as np
from senet_jax.data import workers
with workers.start(1).decoded(len, [b''], np.zeros((1, 0)), (1,)):
  pass
""",
  )
  its, ours = (line for line in done.stderr.splitlines() if 'UserError: ' in line)
  assert 'each process runs your script once more' in its
  assert 'workers=1 that decode images has ended' in ours


def run_script(folder, code):
  script = folder / 'script.py'
  script.write_text(code)
  environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(['.', *sys.path])}
  return subprocess.run(
    [sys.executable, script], env=environment, timeout=120, capture_output=True, text=True
  )


def ended(pids, shared=()):
  """Waits until processes and shared memory are gone."""
  deadline = time.monotonic() + 30
  while any(map(alive, pids)) or any(path.exists() for path in shared):
    assert time.monotonic() < deadline
    time.sleep(0.1)


def alive(pid: int) -> bool:
  try:
    state = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
  except OSError:
    return False
  return state != 'Z'
