"""Tiny ImageNet for tfds, from the official archive or from what is in it.

Colour images come first, in a random order that is always the same, and grey ones last, so that a
part of a split is a sample of it and grey images can be left out: `train[:98179]` are the training
images of a published report that has none, and `validation[:9832]` its test images.
"""

import collections
import dataclasses
import functools
import io
import os
import pathlib
import re
import zipfile
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from senet_jax import errors
from senet_jax.data.builders import official

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

NAME = 'tiny_imagenet'
VERSION = '1.0.0'
COUNTS = {'train': 100_000, 'validation': 10_000}
CLASSES = 200
ARCHIVE = 'tiny-imagenet-200.zip'
URL = f'http://cs231n.stanford.edu/{ARCHIVE}'
# As of avalanche.benchmarks.datasets.TinyImagenet; the authors publish none.
MD5 = '90528d7ca1a48142e341f4ef8d21d0de'
HOW_TO_GET = (
  f'{NAME} needs {ARCHIVE}, or the folder {ARCHIVE.removesuffix(".zip")} that is in it, in the '
  f'directory --source=DIR; {URL} has it, and with internet access --source=download gets it.'
)
_SHAPE = (64, 64, 3)
_SEED = 0
# Of a file in the archive, of which the lists are the largest; a few bytes could become gigabytes.
_MOST_BYTES = 2**24


@dataclasses.dataclass(frozen=True)
class _Files:
  """The files of an archive or a folder.

  Attributes:
    where: it is.
    names: of the files, such as `val/val_annotations.txt`.
    read: the content of a file by its name.
  """

  where: pathlib.Path
  names: frozenset[str]
  read: Callable[[str], bytes]

  def lines(self, name: str) -> list[str]:
    """Returns the lines of a text file that must be there."""
    if name not in self.names:
      raise errors.UserError(f'{self.where} has no {name}: {HOW_TO_GET}')
    try:
      return self.read(name).decode().splitlines()
    except UnicodeDecodeError as error:
      raise errors.UserError(
        f'{name} of {self.where} is not UTF-8 ({error}); get it again.'
      ) from error


def local_builder(
  source: str | os.PathLike, data_dir: str | os.PathLike, partial: bool = False
) -> 'tfds.core.DatasetBuilder':
  """A tfds builder that prepares Tiny ImageNet; nothing is unpacked.

  Args:
    source: the archive, the folder that is in it, or a directory with one of them.
    data_dir: the directory of all datasets.
    partial: take some of the classes and images, too, and an archive with them.

  Raises:
    UserError: nothing of it is there, or it is not the official archive; while it prepares, images
      are missing or are none.
  """
  files = _open(pathlib.Path(source).expanduser(), partial)
  wnids = sorted(line.strip() for line in files.lines('wnids.txt') if line.strip())
  twice = next((wnid for wnid, n in collections.Counter(wnids).items() if n > 1), None)
  if twice:
    raise errors.UserError(f'wnids.txt of {files.where} has {twice!r} twice; get it again.')
  if not wnids or (len(wnids) != CLASSES and not partial):
    raise errors.UserError(
      f'{files.where} has {len(wnids)} classes, the official one {CLASSES}; get it again, or use '
      '--partial for a trial with some of them.'
    )
  builder = _builder_class(tuple(wnids))(data_dir=data_dir)
  builder.files, builder.partial = files, partial
  return builder


def _open(source: pathlib.Path, partial: bool) -> _Files:
  for place in (source, source / ARCHIVE):
    if place.is_file():
      if not partial:
        official.check_md5(place, MD5)
      return _open_archive(place)
  for place in (source, source / ARCHIVE.removesuffix('.zip')):
    if (place / 'wnids.txt').is_file():
      return _open_folder(place)
  raise errors.UserError(f'{source} has no files of {NAME}: {HOW_TO_GET}')


def _open_folder(path: pathlib.Path) -> _Files:
  files = (file for file in path.rglob('*') if file.is_file())
  names = frozenset(file.relative_to(path).as_posix() for file in files)
  return _Files(path, names, lambda name: (path / name).read_bytes())


def _open_archive(path: pathlib.Path) -> _Files:
  try:
    archive = zipfile.ZipFile(path)
  except (zipfile.BadZipFile, OSError) as error:
    raise _damaged(path, error) from error
  top = f'{ARCHIVE.removesuffix(".zip")}/'
  names = (name.removeprefix(top) for name in archive.namelist() if name.startswith(top))

  def read(name: str) -> bytes:
    try:
      with archive.open(top + name) as file:
        content = file.read(_MOST_BYTES + 1)
      if len(content) > _MOST_BYTES:
        raise zipfile.BadZipFile(f'{name} has more than {_MOST_BYTES:,} bytes')
      return content
    except Exception as error:  # of zipfile and zlib
      raise _damaged(path, error) from error

  return _Files(path, frozenset(names), read)


def _damaged(path: pathlib.Path, error: Exception) -> errors.UserError:
  return errors.UserError(f'{path} is damaged or no zip archive ({error}); get it again.')


def _train(files: _Files) -> list[tuple[str, str]]:
  """File and wnid of each training image, sorted."""
  found = (re.fullmatch(r'train/(n\d{8})/images/\1_\d+\.JPEG', name) for name in files.names)
  return sorted((match[0], match[1]) for match in found if match)


def _validation(files: _Files) -> list[tuple[str, str]]:
  """Yields the validation images; see `_train`."""
  lines = (line.split('\t') for line in files.lines('val/val_annotations.txt'))
  wnids = {f'val/images/{line[0]}': line[1] for line in lines if len(line) > 1}
  images = (name for name in files.names if re.fullmatch(r'val/images/\w+\.JPEG', name))
  return sorted((name, wnids.get(name, '')) for name in images)


def _in_order(files: _Files, images: list[tuple[str, str]]) -> list[tuple[str, str]]:
  """Shuffled; those in colour come first."""
  shuffled = [images[i] for i in np.random.default_rng(_SEED).permutation(len(images))]
  return sorted(shuffled, key=lambda image: _is_grey(files, image[0]))  # keeps the order otherwise


def _is_grey(files: _Files, name: str) -> bool:
  """Returns whether an image has one channel.

  Raises:
    UserError: it is no JPEG of 64x64 pixels, grey or RGB.
  """
  encoded = io.BytesIO(files.read(name))
  try:
    with Image.open(encoded, formats=('JPEG',)) as image:
      size, mode = image.size, image.mode
  except (OSError, ValueError) as error:
    raise errors.UserError(f'{name} of {files.where} is no JPEG; get it again.') from error
  if size != _SHAPE[:2] or mode not in ('L', 'RGB'):
    raise errors.UserError(
      f'{name} of {files.where} is a {mode} image of {size[0]}x{size[1]}, not a grey or RGB one of '
      '64x64; get it again.'
    )
  return mode == 'L'


@functools.cache
def _builder_class(wnids: tuple[str, ...]) -> type:
  # Inside a function: training from arrays must not import tfds.
  import tensorflow_datasets as tfds

  class TinyImagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Tiny ImageNet."""

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing to download

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=_SHAPE, dtype=np.uint8),  # grey ones become RGB
        'label': tfds.features.ClassLabel(names=wnids),
        'file_name': tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        description='Images of ImageNet at 64x64 pixels, of 200 classes: colour images first, in a '
        'random order, then grey ones.',
        features=tfds.features.FeaturesDict(features),
        supervised_keys=('image', 'label'),
        homepage='http://cs231n.stanford.edu',
        disable_shuffling=True,  # for the order above
      )

    def _split_generators(self, dl_manager):
      images = {'train': _train(self.files), 'validation': _validation(self.files)}
      return {split: self._generate_examples(split, of) for split, of in images.items()}

    def _generate_examples(self, split, images):
      images = [image for image in images if self._has_class(image)]
      what = f'the {split} part of {self.files.where}'
      counted = official.counted(images, what, COUNTS[split], self.partial)
      for i, (name, wnid) in enumerate(_in_order(self.files, list(counted))):
        image = io.BytesIO(self.files.read(name))
        yield f'{i:06d}', {'image': image, 'label': wnid, 'file_name': name}

    def _has_class(self, image):
      if image[1] in wnids:
        return True
      if self.partial:
        return False
      raise errors.UserError(
        f'{image[0]} of {self.files.where} has the class {image[1]!r}, which is not in wnids.txt; '
        'get it again.'
      )

  TinyImagenet.name = NAME
  return TinyImagenet
