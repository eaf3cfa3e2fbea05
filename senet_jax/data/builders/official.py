"""Shared by the builders from official files: checksums, room on the disk, archives, counts."""

import hashlib
import io
import os
import pathlib
import posixpath
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypeVar

from senet_jax import errors

_T = TypeVar('_T')


def check_md5(path: pathlib.Path, expected: str, content: bytes | None = None) -> None:
  """Compares a file, or its `content` if that was read already, with the MD5 of the official one.

  Raises:
    UserError: it is another file.
  """
  with path.open('rb') if content is None else io.BytesIO(content) as file:
    found = hashlib.file_digest(file, 'md5').hexdigest()
  if found != expected:
    raise errors.UserError(
      f'{path} has MD5 {found}, the official file has {expected}: it is damaged or another file; '
      'get it again.'
    )


def check_room(data_dir: pathlib.Path, name: str, needed: int) -> None:
  """Compares the free bytes of a disk with those that a data set needs.

  Raises:
    UserError: they are too few.
  """
  place = next(p for p in (data_dir, *data_dir.parents) if p.exists())
  free = shutil.disk_usage(place).free
  if free < needed:
    raise errors.UserError(
      f'{place} has {free / 1e9:.1f} GB free, {name} needs {needed / 1e9:.1f} GB; free some '
      'space or choose another --data_dir.'
    )


def counted(examples: Iterable[_T], what: str, official: int, partial: bool) -> Iterator[_T]:
  """Hands examples on and counts them.

  Args:
    examples: any.
    what: has them, in messages.
    official: how many there are to be.
    partial: fewer will do, but not none.

  Raises:
    UserError: at the end, if there are not as many.
  """
  count = 0
  for example in examples:
    count += 1
    yield example
  if not count or (count != official and not partial):
    raise errors.UserError(
      f'{what} has {count:,} images, the official one {official:,}; get it again.'
    )


def members(file: BinaryIO, what: str | os.PathLike) -> Iterator[tuple[str, bytes]]:
  """Yields name and content of each file in a tar archive, which is not unpacked.

  Args:
    file: the archive; closed at the end.
    what: what it is called in messages.

  Raises:
    UserError: it is damaged, ends early, or has a file twice.
  """
  seen = set()  # hashes, as names of millions of files would fill gigabytes
  try:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    with file, tarfile.open(fileobj=file, mode='r:') as tar:
      while member := tar.next():
        # It keeps all of them, in a list that the types of the standard library leave out.
        tar.members.clear()  # type: ignore[attr-defined]
        name = posixpath.normpath(member.name)
        if not member.isfile() or posixpath.basename(name).startswith('.'):
          continue
        if hash(name) in seen:
          raise tarfile.ReadError(f'{name} is in it twice')
        seen.add(hash(name))
        # Reading asks for as much memory as the member says it has bytes.
        if member.size > size - member.offset_data:
          raise tarfile.ReadError('unexpected end of data')
        content = tar.extractfile(member)
        if content is not None:  # as of a file
          yield name, content.read()
      # tarfile takes a damaged header, or nothing, for the end; every archive has an empty block.
      file.seek(tar.offset)
      if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError('unexpected end')
  except tarfile.TarError as error:
    raise errors.UserError(f'{what} is truncated or damaged ({error}); get it again.') from error


def other(what: str | os.PathLike, found: str, expected: str) -> errors.UserError:
  """Returns the error that a file in an archive, `found`, is not one of those `expected`."""
  return errors.UserError(
    f'{what} holds {found}, but the official archive {expected}: it is another file.'
  )
