"""COCO 2017 from its published archives to the folders that a detector reads; no TensorFlow."""

import contextlib
import dataclasses
import hashlib
import http.client
import os
import pathlib
import re
import shutil
import urllib.request
import zipfile

from senet_jax.data.builders import official
from senet_jax.errors import UserError

NAME = 'coco'
SITE = 'http://images.cocodataset.org/'
DOWNLOAD = 'download'
_TIMEOUT_S = 60  # without a byte
_PIECE = 2**20


@dataclasses.dataclass(frozen=True)
class Archive:
  """A published archive.

  Attributes:
    path: on the site.
    size: bytes.
    sha256: of all of it.
    folder: that becomes of it.
    wanted: what is taken from the folder of that name in it; the rest is for other tasks.
    count: of such files.
  """

  path: str
  size: int
  sha256: str
  folder: str
  wanted: str
  count: int

  @property
  def file(self) -> str:
    """The name of the file."""
    return self.path.rpartition('/')[2]


# Sizes and checksums as of tfds.
ARCHIVES = (
  Archive(
    'annotations/annotations_trainval2017.zip', 252_907_541,
    '113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268',
    'annotations', r'instances_\w+\.json', 2),
  Archive(
    'zips/val2017.zip', 815_585_330,
    '4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05',
    'val2017', r'\d+\.jpg', 5000),
  Archive(
    'zips/train2017.zip', 19_336_861_798,
    '69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929',
    'train2017', r'\d+\.jpg', 118_287),
)  # fmt: skip
HOW_TO_GET = (
  f'coco needs {", ".join(archive.file for archive in ARCHIVES)} in the directory --source=DIR: '
  f'https://cocodataset.org/#download has them. With internet access, --source={DOWNLOAD} gets '
  'them, 20 GB; if that ends early, the same command goes on.'
)


def prepare(
  folder: pathlib.Path, staging: pathlib.Path, source: str | os.PathLike, partial: bool = False
) -> None:
  """Makes `train2017/`, `val2017/` and `annotations/` of the archives; what is there stays.

  Args:
    folder: where to make them.
    staging: in it each is made, until it is whole.
    source: the directory of the archives, or `download`.
    partial: take other archives of this layout, some or all; nothing is compared.

  Raises:
    UserError: an archive is missing, damaged or another one, cannot be downloaded, or the disk is
      too small.
  """
  missing = [archive for archive in ARCHIVES if not (folder / archive.folder).is_dir()]
  if source == DOWNLOAD:
    # Each is removed once it is unpacked, so that the largest one is there twice.
    needed = sum(a.size for a in missing) + max((a.size for a in missing), default=0)
    official.check_room(folder, NAME, needed)
  else:
    _check_there(pathlib.Path(source).expanduser(), missing, partial)
  for archive in missing:
    if source == DOWNLOAD:
      path = _downloaded(archive, folder / '.downloads')
    else:
      path = pathlib.Path(source).expanduser() / archive.file
      if not path.is_file():  # of some
        continue
    if not partial:
      _check_official(path, archive, remove=source == DOWNLOAD)
    print(f'unpacking {path} ...', flush=True)
    staging.mkdir(parents=True, exist_ok=True)
    _unpack(path, archive, staging / archive.folder, partial)
    (staging / archive.folder).rename(folder / archive.folder)
    if source == DOWNLOAD:
      path.unlink()
  with contextlib.suppress(OSError):  # it was never made, or is not empty
    (folder / '.downloads').rmdir()


def _check_there(source: pathlib.Path, missing: list[Archive], partial: bool) -> None:
  there = [archive for archive in missing if (source / archive.file).is_file()]
  if missing and (not there or (len(there) < len(missing) and not partial)):
    lacking = next(archive for archive in missing if archive not in there)
    raise UserError(f'{source / lacking.file} is missing: {HOW_TO_GET}')


def counts(folder: pathlib.Path) -> dict[str, int]:
  """Returns the number of photos of each split that is there."""
  there = {'train': folder / 'train2017', 'validation': folder / 'val2017'}
  return {
    split: sum(1 for entry in os.scandir(path) if entry.name.endswith('.jpg'))
    for split, path in there.items()
    if path.is_dir()
  }


def official_count(split: str) -> int:
  """Returns how many photos a split has officially."""
  return {'train': ARCHIVES[2].count, 'validation': ARCHIVES[1].count}[split]


def _downloaded(archive: Archive, folder: pathlib.Path) -> pathlib.Path:
  """Returns the file of an archive, of which only what is missing is downloaded."""
  folder.mkdir(parents=True, exist_ok=True)
  path, address = folder / archive.file, SITE + archive.path
  have = path.stat().st_size if path.exists() else 0
  if have >= archive.size:
    return path
  print(f'downloads {address}{f" from byte {have:,} on" if have else ""}', flush=True)
  request = urllib.request.Request(address, headers={'Range': f'bytes={have}-'} if have else {})
  try:
    with (
      urllib.request.urlopen(request, timeout=_TIMEOUT_S) as reply,
      # A server that knows no parts sends all of it.
      path.open('ab' if reply.status == 206 else 'wb') as file,
    ):
      shutil.copyfileobj(reply, file, _PIECE)
  except (OSError, http.client.HTTPException) as error:  # urllib's are of the first kind
    reason = getattr(error, 'reason', None) or error
    raise UserError(f'{address} cannot be downloaded: {reason}. {HOW_TO_GET}') from error
  if (found := path.stat().st_size) < archive.size:
    raise UserError(
      f'{address} ended after {found:,} of {archive.size:,} bytes; the same command goes on there.'
    )
  return path


def _check_official(path: pathlib.Path, archive: Archive, *, remove: bool) -> None:
  with path.open('rb') as file:
    right = path.stat().st_size == archive.size
    right = right and hashlib.file_digest(file, 'sha256').hexdigest() == archive.sha256
  if not right:
    if remove:
      path.unlink()
    raise UserError(
      f'{path} is not the official file of {archive.size:,} bytes and SHA-256 '
      f'{archive.sha256[:12]}…: it is damaged or another one; get it again.'
    )


def _unpack(path: pathlib.Path, archive: Archive, out: pathlib.Path, partial: bool) -> None:
  shutil.rmtree(out, ignore_errors=True)
  out.mkdir()
  try:
    with zipfile.ZipFile(path) as zipped:
      members = _wanted(zipped, archive)
      official.check_room(out, NAME, sum(member.file_size for member in members))
      for member in members:
        name = member.filename.rpartition('/')[2]
        with zipped.open(member) as content, (out / name).open('xb') as file:
          shutil.copyfileobj(content, file, _PIECE)
  except UserError:
    raise
  except Exception as error:  # zipfile raises many kinds
    raise UserError(
      f'{path} is truncated or damaged, or the disk is full ({error}); get it again, or free some '
      'space.'
    ) from error
  if not members or (len(members) != archive.count and not partial):
    raise UserError(
      f'{path} has {len(members):,} files of {archive.folder}/, the official one '
      f'{archive.count:,}; get it again.'
    )


def _wanted(zipped: zipfile.ZipFile, archive: Archive) -> list[zipfile.ZipInfo]:
  """Returns the members that are taken; a name that leads out of the folder is none of them."""
  pattern = re.compile(f'{archive.folder}/{archive.wanted}')
  return [member for member in zipped.infolist() if pattern.fullmatch(member.filename)]
