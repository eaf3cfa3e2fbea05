"""CIFAR from its authors' site to arrays that training reads, without TensorFlow."""

import os
import pathlib
import shutil
import tempfile
import urllib.request

from senet_jax.data import arrays, prepare
from senet_jax.errors import UserError

SITE = 'https://www.cs.toronto.edu/~kriz/'
_ARCHIVES = {'cifar10': 'cifar-10-python.tar.gz', 'cifar100': 'cifar-100-python.tar.gz'}
_TIMEOUT_S = 20  # without a byte


def cifar(name: str, data_dir: str | os.PathLike | None = None) -> pathlib.Path:
  """Downloads CIFAR, 170 MB, and writes its arrays; what is there already stays.

  Args:
    name: `cifar10` or `cifar100`.
    data_dir: of all data sets; None: `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

  Returns:
    The directory of the data set.

  Raises:
    UserError: it cannot be downloaded, or what came is not the published archive.
  """
  data_dir = data_dir or arrays.default_data_dir()
  if found := arrays.find_arrays(name, data_dir):
    return found
  address = SITE + _ARCHIVES[name]
  print(f'downloads {address}')
  with tempfile.TemporaryDirectory() as scratch:
    try:
      with (
        urllib.request.urlopen(address, timeout=_TIMEOUT_S) as reply,
        pathlib.Path(scratch, _ARCHIVES[name]).open('wb') as file,
      ):
        shutil.copyfileobj(reply, file)
    except OSError as error:  # urllib's are, too
      reason = getattr(error, 'reason', None) or error
      raise UserError(f'{name} cannot be downloaded from {address}: {reason}.') from error
    return prepare.prepare(name, data_dir, scratch, arrays_only=True)


def cifar10_or_digits(*, try_it: bool = True) -> str:
  """Returns the data set to learn on: `cifar10`, or `digits` where it cannot be had.

  Digits come with scikit-learn. A line says why it is them.

  Args:
    try_it: download CIFAR-10 if it is not there.
  """
  if arrays.find_arrays('cifar10', arrays.default_data_dir()):
    return 'cifar10'
  if try_it:
    try:
      cifar('cifar10')
      return 'cifar10'
    except UserError as error:
      print(f'{error} The handwritten digits of scikit-learn will do.')
  return 'digits'
