"""What all tests share: CPU only, eight devices, one compilation cache for a session."""

import gc
import importlib.metadata
import logging
import os
import pathlib
import shutil
import signal
import sys
import tarfile
import tempfile
import threading

# JAX reads these when it is first imported. Subprocesses of the tests inherit them.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
# Google's libraries ask whether this is one of their machines, and wait a quarter of a minute.
os.environ['NO_GCE_CHECK'] = 'true'
# Compilation is most of the work here: XLA optimises as always, but LLVM does not, and the loops of
# fusions are written by an emitter that needs half the time of the default one, where it is known.
_QUICK = [
  '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true',
  '--xla_cpu_parallel_codegen_split_count=1',
]
if importlib.metadata.version('jaxlib').startswith('0.10.'):
  _QUICK.append('--xla_cpu_use_fusion_emitters=false')
os.environ['XLA_FLAGS'] = ' '.join([*_QUICK, os.environ.get('XLA_FLAGS', '')])
# What libraries leave behind, such as an empty directory for each data set, is removed at the end.
# Workers inherit the name of the first process, and pytest keeps what a test wrote where it did.
_SCRATCH = None
if 'SENET_JAX_TESTS' not in os.environ:
  os.environ.setdefault('PYTEST_DEBUG_TEMPROOT', tempfile.gettempdir())
  _SCRATCH = os.environ['SENET_JAX_TESTS'] = tempfile.mkdtemp(prefix='senet_jax_tests_')
  for variable in ('TMPDIR', 'MPLCONFIGDIR', 'KERAS_HOME'):
    os.environ[variable] = _SCRATCH
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    os.environ['JAX_COMPILATION_CACHE_DIR'] = f'{_SCRATCH}/cache'
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'
tempfile.tempdir = os.environ['SENET_JAX_TESTS']

import jax  # noqa: E402
import pytest  # noqa: E402

from tests.helpers import paths  # noqa: E402
from tests.helpers.golden import Golden, Verified  # noqa: E402

# Tracing makes millions of objects, and Python looks through all of them again and again.
gc.set_threshold(100_000, 20, 100)

# A job in the background of a script ignores the one, a job under nohup the other, and so would all
# that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


# Their modules import torch, timm or Keras.
LIVE = '*_live.py'


def pytest_addoption(parser):
  parser.addoption(
    '--live', action='store_true', help='compare golden numbers with torch, timm and Keras'
  )
  parser.addoption('--write-golden', action='store_true', help='commit what --live makes')


def pytest_ignore_collect(collection_path, config):
  if collection_path.match(LIVE) and not config.getoption('--live'):
    return True
  return None


def _second_tier(item) -> bool:
  return item.path.match(LIVE) or any(m.name in ('thorough', 'slow') for m in item.iter_markers())


def pytest_collection_modifyitems(config, items):
  """With `--live` runs golden numbers, and what needs a live library or long, alone."""
  live, write = config.getoption('--live'), config.getoption('--write-golden')
  if live:
    chosen = [i for i in items if 'golden' in i.fixturenames or (_second_tier(i) and not write)]
    config.hook.pytest_deselected(items=[i for i in items if i not in set(chosen)])
    items[:] = chosen


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call():
  """Ends a test where the live library has given its golden numbers: `make test` does the rest."""
  try:
    return (yield)
  except Verified:
    return True


@pytest.fixture
def golden(request) -> Golden:
  """Numbers of independent code for this test."""
  option = request.config.getoption
  return Golden(request.path.stem, request.node.name, option('--live'), option('--write-golden'))


def pytest_unconfigure():
  if _SCRATCH:
    shutil.rmtree(_SCRATCH, ignore_errors=True)


@pytest.fixture(scope='module', autouse=True)
def small_memory():
  """Forgets the programs of a module; those of a whole session would take gigabytes."""
  yield
  jax.clear_caches()


@pytest.fixture(autouse=True)
def process_of_its_own():
  """Takes back what a command sets for its process, which it expects to end."""
  log = logging.getLogger('senet_jax')
  before = log.handlers[:], log.propagate, threading.excepthook, sys.unraisablehook
  yield
  log.handlers[:], log.propagate, threading.excepthook, sys.unraisablehook = before


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
  """Folder of sample data beside the checkout; tests that need it are skipped elsewhere."""
  path = paths.SHARED_DATA
  if not path.is_dir():
    pytest.skip(f'needs the sample data in {path}')
  return path


def _unpacked(shared_data: pathlib.Path, out: pathlib.Path, name: str) -> pathlib.Path:
  with tarfile.open(shared_data / f'{name}.tar.xz') as archive:
    archive.extractall(out, filter='data')
  return out / name


@pytest.fixture(scope='session')
def imagenette(shared_data, tmp_path_factory) -> pathlib.Path:
  """`train/<wnid>/*.JPEG` and `val/<wnid>/*.JPEG`, 600 and 200 photos of 224x224."""
  return _unpacked(shared_data, tmp_path_factory.mktemp('photos'), 'imagenette_224_60_20')


@pytest.fixture(scope='session')
def imagenet_sample(shared_data, tmp_path_factory) -> pathlib.Path:
  """`<wnid>_<class name>.JPEG`, 100 photos of ImageNet at their original resolution."""
  return _unpacked(shared_data, tmp_path_factory.mktemp('photos'), 'imagenet_sample_100')


@pytest.fixture(scope='session')
def coco64(shared_data, tmp_path_factory) -> pathlib.Path:
  """`train2017/*.jpg` and `annotations/`, 64 photos of COCO with 549 boxes."""
  return _unpacked(shared_data, tmp_path_factory.mktemp('photos'), 'coco64_32')
