"""The functions of the package itself."""

import subprocess
import sys
import typing

import senet_jax
from senet_jax import prediction


def test_importing_the_package_imports_no_library():
  code = (
    'import sys, senet_jax\n'
    "slow = {'jax', 'flax', 'numpy', 'PIL', 'ml_collections', 'orbax'} & set(sys.modules)\n"
    'assert not slow, slow'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_load_has_the_types_and_defaults_of_the_function_behind_it():
  names = {'Predictor': prediction.Predictor, 'Detector': prediction.Detector}
  hints = typing.get_type_hints(senet_jax.load, localns=names)
  assert hints == typing.get_type_hints(prediction.load)
  for defaults in ('__defaults__', '__kwdefaults__'):
    assert getattr(senet_jax.load, defaults) == getattr(prediction.load, defaults)
