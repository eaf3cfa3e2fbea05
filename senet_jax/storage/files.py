"""Files that are written whole or not at all."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import pathlib
import platform
import re
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from senet_jax.errors import OS_ERRORS, UserError
from senet_jax.storage import buckets, leases, processes


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a path for a new file or directory, which takes the place of `path` after the block.

  If the block fails nothing is left of it. Makes the directory that `path` is in if it is missing.
  In a bucket, where only a file can be new at once, `path` is that of a file.
  """
  if buckets.in_bucket(path):
    with tempfile.TemporaryDirectory() as scratch:
      local = pathlib.Path(scratch, os.path.basename(path))
      yield local
      buckets.to_path(path).write_bytes(local.read_bytes())
    return
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = _partial(path)
  try:
    yield partial
    partial.replace(path)
  finally:
    _remove(partial)


def unwritable(path: pathlib.Path) -> str | None:
  """Returns why nothing can be written at `path`, None if it can; leaves nothing there."""
  folder = path if path.is_dir() else path.parent
  there = next(p for p in (folder, *folder.parents) if os.path.exists(p))
  try:
    tempfile.TemporaryFile(dir=there).close()
  except OSError as error:
    what = OS_ERRORS.get(error.errno or 0, 'choose another path')
    return f'{path} cannot be written: {error.strerror}: {there}; {what}'
  return None


def _partial(path: pathlib.Path) -> pathlib.Path:
  """Returns where to write what becomes `path`; removes what killed processes left of it.

  The name says which process it is of: a name that a user might give could be a user's.
  """
  name = f'.{path.name[:100]}.{zlib.crc32(os.fsencode(path.name)):08x}-'
  here = zlib.crc32(platform.node().encode())
  for other in path.parent.glob(f'{glob.escape(name)}*.partial'):
    match = re.fullmatch(r'(\d+)-(\d+)', other.name.removeprefix(name).removesuffix('.partial'))
    number = int(match[2]) if match and int(match[1]) == here else None
    if number is not None and (number == os.getpid() or not processes.is_running(number)):
      _remove(other)
  return path.with_name(f'{name}{here}-{os.getpid()}.partial')


@contextlib.contextmanager
def locked(directory: str | os.PathLike, option: str = '--workdir') -> Iterator[None]:
  """Keeps other processes out of a directory, which is made if missing; ends with the process, too.

  Where nothing was made in it until the end, the lock goes, and so does a directory that was made.

  Args:
    directory: on a disk or in a bucket.
    option: that gives another one, for the message.

  Raises:
    UserError: another process has it.
  """
  if buckets.in_bucket(directory):
    with leases.leased(buckets.to_path(directory)):
      yield
    return
  directory = pathlib.Path(directory)
  made = [path for path in (directory, *directory.parents) if not path.exists()]
  directory.mkdir(parents=True, exist_ok=True)
  before = set(os.listdir(directory))
  with (directory / '.lock').open('a+', encoding='utf-8') as file, _opened(directory) as itself:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      _lock_itself(itself)
      # Its last holder may have removed all of it just now.
      if not os.path.samestat(os.fstat(file.fileno()), os.stat(directory / '.lock')):
        raise BlockingIOError
    except FileNotFoundError as error:
      raise UserError(f'{directory} was removed just now; try again.') from error
    except BlockingIOError as error:
      file.seek(0)
      raise UserError(
        f'{directory} is in use by {file.read() or "another process"}; wait for its end, stop it, '
        f'or give another {option}.'
      ) from error
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}')
    file.flush()
    try:
      yield
    finally:
      _undo(directory, made, before)


def _undo(directory: pathlib.Path, made: list[pathlib.Path], before: set[str]) -> None:
  """Removes a lock that is all that is new in its directory, and those `made` that are empty."""
  with contextlib.suppress(OSError):  # it may have been removed, and others may be in use
    if set(os.listdir(directory)) - before == {'.lock'}:
      (directory / '.lock').unlink()
      for path in made:
        path.rmdir()


@contextlib.contextmanager
def provisional(directory: str | os.PathLike) -> Iterator[Callable[[], object]]:
  """Removes what a block has made in a directory on a disk, unless it says that it may stay.

  Args:
    directory: one that is there, and locked, so that nobody else makes something in it.

  Yields:
    What the block calls when it has come so far that all is to stay.
  """
  if buckets.in_bucket(directory):
    yield lambda: None
    return
  before = set(os.listdir(directory))
  with contextlib.ExitStack() as undo:
    undo.callback(_remove_new, pathlib.Path(directory), before)
    yield undo.pop_all


def _remove_new(directory: pathlib.Path, before: set[str]) -> None:
  for name in set(os.listdir(directory)) - before:
    _remove(directory / name)


@contextlib.contextmanager
def _opened(directory: pathlib.Path) -> Iterator[int]:
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    yield descriptor
  finally:
    os.close(descriptor)


def _lock_itself(directory: int) -> None:
  """Locks an open directory, too: the file in it may have been deleted under its holder."""
  try:
    fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno == errno.EWOULDBLOCK:
      raise
    # NFS locks files alone.


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Replaces the file `path` by one with `text`; makes its directory if it is missing.

  A name of a file that is not UTF-8 is written with escapes, which JSON reads as the same name.
  """
  with whole(path) as partial:
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Replaces the file `path` by one with `value` as JSON.

  Raises:
    ValueError: a number is not finite, which JSON cannot say.
  """
  write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + '\n')


class Lines:
  """A text file that grows line by line.

  In a bucket, where files do not grow, it is written anew by `flush`, and by `append` if it was not
  for a minute.
  """

  _EVERY_S = 60

  def __init__(self, path: buckets.Path):
    """Opens the file, which is made if missing.

    Raises:
      OSError: it cannot be written.
    """
    self.path = path
    self._kept: list[str] | None = None
    if buckets.in_bucket(path):
      self._kept = path.read_text().splitlines() if path.exists() else []
      self._written, self._time = len(self._kept), time.monotonic()
    else:
      path.parent.mkdir(parents=True, exist_ok=True)
      if path.is_symlink() and not path.exists():
        path.unlink()  # or the file would be made where the link leads
      path.touch()

  def append(self, line: str) -> None:
    """Adds a line."""
    if self._kept is None:
      with self.path.open('a') as file:
        file.write(line + '\n')
      return
    self._kept.append(line)
    if time.monotonic() > self._time + self._EVERY_S:
      self.flush()

  def replace(self, lines: list[str]) -> None:
    """Replaces all of them."""
    write_text(self.path, ''.join(line + '\n' for line in lines))
    if self._kept is not None:
      self._kept, self._written = list(lines), len(lines)

  def flush(self) -> None:
    """Brings to the bucket what is not there yet."""
    if self._kept is not None and self._written != len(self._kept):
      self.replace(self._kept)
      self._time = time.monotonic()
