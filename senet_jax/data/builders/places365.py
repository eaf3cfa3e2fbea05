"""Places365-Challenge for tfds, from the official archives of images of 256x256 pixels."""

import functools
import io
import os
import pathlib
import posixpath
from typing import TYPE_CHECKING

from senet_jax import errors
from senet_jax.data.builders import official

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

NAME = 'places365_challenge'
VERSION = '1.0.0'
# As of the development kit; 3,068 to 40,000 training and 100 validation images a class.
COUNTS = {'train': 8_026_628, 'validation': 36_500}
# MD5s of the official files, as of torchvision.datasets.Places365.
MD5S = {
  'train_256_places365challenge.tar': '741915038a5e3471ec7332404dfb64ef',
  'val_256.tar': 'e27b17d8d44f4af9a78502beb927f808',
  'filelist_places365-challenge.tar': '70a8307e459c3de41690a7c76c931734',
  'categories_places365.txt': '06c963b85866bd0649f97cb43dd16673',
  'places365_val.txt': 'e9f2fd57bfd9d07630173f4e8708e4b1',
}
_TRAIN, _VALIDATION, _LISTS, _CATEGORIES, _LABELS = MD5S
HOW_TO_GET = (
  f'{NAME} needs {_TRAIN}, {_VALIDATION} and {_LISTS} (or {_CATEGORIES} and {_LABELS} of it) in '
  'the directory --source=DIR: http://places2.csail.mit.edu/download.html has them.'
)


def local_builder(
  source: str | os.PathLike, data_dir: pathlib.Path, partial: bool = False
) -> 'tfds.core.DatasetBuilder':
  """A tfds builder that prepares Places365-Challenge; nothing is unpacked.

  The class of a training image is the folder that it is in, that of a validation image is in a
  list. Classes are called as in `places365_small` of tfds: `apartment_building/outdoor`.

  Args:
    source: the directory of the official files, which are all compared with their MD5.
    data_dir: the directory of all datasets.
    partial: take archives with some of the images, too, and compare nothing.

  Raises:
    UserError: a file is missing or not the official one, or the disk is too small; while it
      prepares, an archive turns out to be damaged.
  """
  source = pathlib.Path(source).expanduser()
  for file in (_TRAIN, _VALIDATION):
    if not (source / file).is_file():
      raise errors.UserError(f'{source / file} is missing: {HOW_TO_GET}')
  official.check_room(
    data_dir, NAME, sum((source / file).stat().st_size for file in (_TRAIN, _VALIDATION))
  )
  categories, labels = (_read_list(source, file, partial) for file in (_CATEGORIES, _LABELS))
  if not partial:
    for file in (_VALIDATION, _TRAIN):
      print(f'comparing {source / file} with its MD5 ...', flush=True)
      official.check_md5(source / file, MD5S[file])
  # `/a/airfield`; the folder of its first letter is no part of the name.
  folders = dict(sorted(categories.items(), key=lambda item: item[1]))
  if list(folders.values()) != list(range(len(folders))):
    raise errors.UserError(f'{_CATEGORIES} in {source} has not the labels from 0 on; get it again.')
  builder = _builder_class(tuple(name[3:] for name in folders))(data_dir=data_dir)
  builder.source, builder.partial = source, partial
  builder.folders, builder.labels = folders, labels
  return builder


def _read_list(source: pathlib.Path, file: str, partial: bool) -> dict[str, int]:
  """A text file with a name and a label a line, unpacked or in the archive of the lists."""
  path, archive = source / file, source / _LISTS
  found: bytes | None = None
  if path.is_file():
    found = path.read_bytes()
  elif archive.is_file():
    path = archive
    lists = official.members(archive.open('rb'), archive)
    found = next((data for name, data in lists if posixpath.basename(name) == file), None)
  if found is None:
    raise errors.UserError(f'{source} has no {file}: {HOW_TO_GET}')
  if not partial:
    official.check_md5(path, MD5S[path.name])
  try:
    lines = (line.split() for line in found.decode().splitlines())
    labels = {name: int(label) for name, label in lines}
  except ValueError as error:
    raise errors.UserError(f'{file} of {path} has not a name and a label a line.') from error
  return labels


@functools.cache
def _builder_class(names: tuple[str, ...]) -> type:
  import tensorflow_datasets as tfds

  class Places365Challenge(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Places365-Challenge."""

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing to download

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=(256, 256, 3)),
        'label': tfds.features.ClassLabel(names=names),
        'file_name': tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        description='Photos of 365 kinds of scenes at 256x256 pixels: the training images of the '
        'challenge of 2016, and the validation images.',
        features=tfds.features.FeaturesDict(features),
        supervised_keys=('image', 'label'),
        homepage='http://places2.csail.mit.edu',
      )

    def _split_generators(self, dl_manager):
      examples = {
        'train': self._generate_examples(
          _TRAIN, self._train_label, 'data_256/a/airfield/00000001.jpg'
        ),
        'validation': self._generate_examples(
          _VALIDATION, self._validation_label, 'val_256/Places365_val_00000001.jpg'
        ),
      }
      return {
        split: official.counted(of, f'the {split} archive in {self.source}', COUNTS[split], True)
        for split, of in examples.items()
      }

    def _generate_examples(self, file, label_of, such_as):
      path = self.source / file
      for name, image in official.members(path.open('rb'), path):
        label = label_of(name)
        if label is None:
          raise official.other(path, name, f'images such as {such_as}')
        yield name, {'image': io.BytesIO(image), 'label': label, 'file_name': name}

    def _train_label(self, name):
      folder = posixpath.dirname(name)
      return self.folders.get(folder[folder.find('/') :]) if '/' in folder else None

    def _validation_label(self, name):
      return self.labels.get(posixpath.basename(name))

  Places365Challenge.name = NAME
  return Places365Challenge
