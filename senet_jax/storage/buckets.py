"""Object storage: paths such as gs://bucket/run, through fsspec (gcsfs, s3fs) and epath."""

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Union

from senet_jax.errors import UserError, one_of

# epath would go through TensorFlow where that is installed, which knows gs:// alone. epath looks
# once, before it first opens a path.
os.environ.setdefault('EPATH_USE_TF', 'false')

if TYPE_CHECKING:
  import fsspec
  from etils import epath

# A command must be able to say that etils is missing.
Path = Union[pathlib.Path, 'epath.Path']

# Our extra that brings the library of a scheme.
_EXTRAS = {'gs': 'gcs', 's3': 's3'}


def in_bucket(path: str | os.PathLike) -> bool:
  """Returns whether a path has a scheme, as gs://bucket/run has."""
  return '://' in os.fspath(path)


def to_path(path: str | os.PathLike) -> Path:
  """Returns a path on a disk, `~` expanded, or in a bucket; both have the methods of `pathlib`.

  Raises:
    UserError: its scheme is not known, or the library for it is not installed.
  """
  if not in_bucket(path):
    return pathlib.Path(path).expanduser()
  from etils import epath

  file_system(path)
  return epath.Path(path)


def absolute(path: str | os.PathLike) -> Path:
  """Returns `to_path`, with a path on a disk from the root on."""
  path = to_path(path)
  return path if in_bucket(path) else path.absolute()


def file_system(path: str | os.PathLike) -> 'fsspec.AbstractFileSystem':
  """Returns what reads and writes the bucket of `path`; credentials are those of its library.

  Raises:
    UserError: see `to_path`.
  """
  import fsspec

  scheme = os.fspath(path).split('://')[0]
  one_of(f'{path}: the scheme', scheme, _EXTRAS)
  # What TensorStore and other processes write would not be seen in a list that is kept.
  for name in _EXTRAS.values():
    fsspec.config.conf.setdefault(name, {}).setdefault('use_listings_cache', False)
  try:
    return fsspec.core.url_to_fs(os.fspath(path))[0]
  except ImportError as error:
    raise UserError(
      f"{path} needs a library ({error}): pip install 'senet_jax[{_EXTRAS[scheme]}]'"
    ) from error


def move(path: Path, target: Path) -> None:
  """Moves a directory, in a bucket file by file, to where nothing is yet."""
  if in_bucket(path):
    file_system(path).mv(os.fspath(path), os.fspath(target), recursive=True)
  else:
    path.rename(target)


@contextlib.contextmanager
def access(path: str | os.PathLike) -> Iterator[None]:
  """Makes one line of what the libraries raise when a bucket is missing, closed or out of reach.

  Raises:
    UserError: instead of any other error, if `path` is in a bucket.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as error:  # of gcsfs, s3fs, aiohttp, google.auth, botocore ...
    if not in_bucket(path):
      raise
    reason = ' '.join(str(error).split())[:300] or type(error).__name__
    raise UserError(
      f'{path} cannot be reached: {reason}; check its name, the network and the credentials of '
      'this machine.'
    ) from error
