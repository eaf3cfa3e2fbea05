"""Files that are written whole or not at all."""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator
from typing import Any

from senet_jax.errors import UserError


@contextlib.contextmanager
def whole(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives a path for a new file or directory, which takes the place of `path` after the block.

  If the block fails nothing is left of it. Makes the directory that `path` is in if it is missing.
  """
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  _remove(partial)  # of an attempt that was killed
  try:
    yield partial
    partial.replace(path)
  finally:
    _remove(partial)


@contextlib.contextmanager
def locked(directory: str | os.PathLike) -> Iterator[None]:
  """Keeps other processes out of a directory, which is made if missing; ends with the process, too.

  Raises:
    UserError: another process has it.
  """
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  path = directory / '.lock'
  with path.open('a+', encoding='utf-8') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise UserError(
        f'{directory} is in use by {file.read() or "another process"}; wait for its end, stop it, '
        'or give another --workdir.'
      ) from error
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}')
    file.flush()
    yield


def _remove(path: pathlib.Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
  """Replaces the file `path` by one with `text`; makes its directory if it is missing."""
  with whole(path) as partial:
    partial.write_text(text, encoding='utf-8')


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Replaces the file `path` by one with `value` as JSON.

  Raises:
    ValueError: a number is not finite, which JSON cannot say.
  """
  write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + '\n')
