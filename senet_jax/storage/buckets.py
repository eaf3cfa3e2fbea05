"""Object storage: paths such as gs://bucket/run, through fsspec (gcsfs, s3fs) and epath."""

import contextlib
import json
import os
import pathlib
import platform
import threading
import time
import uuid
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
# A holder of a lease says so often that it is alive; after so long without, it is taken for dead.
_ALIVE_S, _DEAD_S = 20, 90
# Of two that come at the same time, both have written after so long, and the later one has it.
_SETTLE_S = 2


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
  one_of(f'the scheme of {path}', scheme, _EXTRAS)
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


@contextlib.contextmanager
def leased(directory: 'epath.Path') -> Iterator[None]:
  """Keeps other processes out of a directory of a bucket, which has no locks.

  An object says who has it, and says so again all the time; it counts until it has not for a while.
  So after a kill the directory is free again after `_DEAD_S` seconds, for the same host at once.

  Raises:
    UserError: another process has it.
  """
  path = directory / '.lock'
  mine = {'pid': os.getpid(), 'host': platform.node(), 'id': uuid.uuid4().hex}

  def say() -> None:
    path.write_text(json.dumps({**mine, 'time': time.time()}))

  with access(directory):
    holder = _holder(path)
    if holder:
      raise UserError(
        f'{directory} is in use by process {holder.get("pid")} on {holder.get("host")}; wait for '
        f'its end, stop it, or give another --workdir. {_DEAD_S} s after it was killed the '
        'directory is free again.'
      )
    say()
    time.sleep(_SETTLE_S)
    holder = _holder(path)
  if holder is None or holder['id'] != mine['id']:
    raise UserError(f'{directory} was taken by another run just now; give another --workdir.')
  ended = threading.Event()

  def keep_saying() -> None:
    while not ended.wait(_ALIVE_S):
      with contextlib.suppress(Exception):  # the network may be away for a moment
        say()

  thread = threading.Thread(target=keep_saying, name='lease', daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    path.unlink()


def _holder(path: 'epath.Path') -> dict | None:
  """Returns who has the lease of `path`; None if nobody alive has."""
  try:
    held = json.loads(path.read_text())
    age = time.time() - held['time']
  except (FileNotFoundError, ValueError, KeyError, TypeError):
    return None
  dead_here = held.get('host') == platform.node() and not _is_process(held.get('pid'))
  return None if dead_here or age > _DEAD_S else held


def _is_process(number: int) -> bool:
  try:
    os.kill(number, 0)
  except (OSError, TypeError):
    return False
  return True
