"""What all tests share: CPU only, eight devices, one compilation cache for a session."""

import os
import pathlib
import shutil
import tempfile

# JAX reads these when it is first imported. Subprocesses of the tests inherit them.
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
_OWN_CACHE = None
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _OWN_CACHE = tempfile.mkdtemp(prefix='senet_jax_tests_')
  os.environ['JAX_COMPILATION_CACHE_DIR'] = _OWN_CACHE
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.5'

import pytest  # noqa: E402


def pytest_unconfigure():
  if _OWN_CACHE:
    shutil.rmtree(_OWN_CACHE, ignore_errors=True)


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
  """Folder of sample data beside the checkout; tests that need it are skipped elsewhere."""
  path = pathlib.Path(__file__).resolve().parents[2] / 'shared' / 'data'
  if not path.is_dir():
    pytest.skip(f'needs the sample data in {path}')
  return path
