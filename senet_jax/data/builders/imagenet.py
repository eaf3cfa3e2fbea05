"""ImageNet 2012 for tfds's own builder, from the official archives, checked on the way."""

import functools
import io
import os
import pathlib
import posixpath
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from senet_jax import errors
from senet_jax.data.builders import official

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

NAME = 'imagenet2012'
# Images of the official splits; the third, test, has no labels and may be missing.
COUNTS = {'train': 1_281_167, 'validation': 50_000}
# Bytes of the official archives.
SIZES = {
  'ILSVRC2012_img_train.tar': 147_897_477_120,
  'ILSVRC2012_img_val.tar': 6_744_924_160,
}
_TRAIN, _VALIDATION, _TEST = *SIZES, 'ILSVRC2012_img_test.tar'
HOW_TO_GET = (
  f'{NAME} needs {_TRAIN} and {_VALIDATION} in the directory --source=DIR; they cannot be '
  'downloaded without registration: https://image-net.org/download-images has them.'
)


def local_builder(
  source: str | os.PathLike, data_dir: pathlib.Path, partial: bool = False
) -> 'tfds.core.DatasetBuilder':
  """A tfds builder that prepares ImageNet; of the official archives just what tfds's own makes.

  Args:
    source: the directory of the archives.
    data_dir: the directory of all datasets.
    partial: take archives with some of the images, too.

  Raises:
    UserError: an archive is missing or not the official one, or the disk is too small; while it
      prepares, an archive turns out to be damaged.
  """
  source = pathlib.Path(source).expanduser()
  _check(source, data_dir, partial)
  builder = _builder_class()(data_dir=data_dir)
  builder.source, builder.partial = source, partial
  return builder


def _check(source: pathlib.Path, data_dir: pathlib.Path, partial: bool) -> None:
  needed = 0
  for file, expected in SIZES.items():
    path = source / file
    if not path.is_file():
      raise errors.UserError(f'{path} is missing: {HOW_TO_GET}')
    size = path.stat().st_size
    if size != expected and not partial:
      raise errors.UserError(
        f'{path} has {size:,} bytes, the official file {expected:,}: it is truncated or another '
        'file; get it again, or use --partial for a trial with some of the images.'
      )
    needed += size
  official.check_room(data_dir, NAME, needed)


@functools.cache
def _builder_class() -> type:
  """The builder of tfds with its own reading: labels by number, and errors that name the archive.

  tfds gives the labels of the validation images to the names in sorted order, which is wrong for
  some of the images, and does not see that an archive ends early.
  """
  import tensorflow_datasets as tfds

  base = tfds.builder_cls(NAME)

  class LocalImagenet(base, skip_registration=True):
    name = base.name
    pkg_dir_path = base.pkg_dir_path  # where its labels and citation are
    url_infos = None  # nothing to download

    def _split_generators(self, dl_manager):
      splits = {
        'train': self._counted('train', self._train(self.source / _TRAIN)),
        'validation': self._counted('validation', self._validation(self.source / _VALIDATION)),
      }
      if (self.source / _TEST).is_file():
        splits['test'] = self._test(self.source / _TEST)
      return splits

    def _train(self, path):
      classes = set(self.info.features['label'].names)
      for file, content in official.members(path.open('rb'), path):
        wnid, suffix = posixpath.splitext(posixpath.basename(file))
        if wnid not in classes or suffix != '.tar':
          raise official.other(path, file, 'one archive a class, such as n01440764.tar')
        inner = f'{file} in {path}'
        for file_name, image in official.members(io.BytesIO(content), inner):
          name = posixpath.basename(file_name)
          if not re.fullmatch(r'n\d{8}_\d+\.JPEG', name):
            raise official.other(inner, file_name, f'images such as {wnid}_10026.JPEG')
          # The few that are not RGB JPEGs become such.
          yield _example(name, self._fix_image(name, io.BytesIO(image)), wnid)

    def _validation(self, path):
      labels = (self.pkg_dir_path / 'validation_labels.txt').read_text().split()
      for file, image in official.members(path.open('rb'), path):
        name = posixpath.basename(file)
        match = re.fullmatch(r'ILSVRC2012_val_(\d{8})\.JPEG', name)
        if not match or not 0 < int(match[1]) <= len(labels):
          raise official.other(path, file, 'images such as ILSVRC2012_val_00000001.JPEG')
        yield _example(name, io.BytesIO(image), labels[int(match[1]) - 1])

    def _test(self, path):
      for file, image in official.members(path.open('rb'), path):
        yield _example(file, io.BytesIO(image), -1)

    def _counted(self, split, examples):
      what = f'the archive of {NAME} {split} in {self.source}'
      return official.counted(examples, what, COUNTS[split], self.partial)

  return LocalImagenet


def _example(name: str, image: BinaryIO, label: str | int) -> tuple[str, dict[str, Any]]:
  return name, {'file_name': name, 'image': image, 'label': label}
