"""A folder of photos as a data set of tfds, whose files keep the bytes of the photos."""

import os
import pathlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from senet_jax import errors
from senet_jax.data import image_folder, photos

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

VERSION = '1.0.0'


def check_name(name: str, taken: Iterable[str]) -> None:
  """Checks that tfds can find a data set by this name, and finds no other.

  Args:
    name: of the new data set.
    taken: names of other data sets; those of tfds's own are added.

  Raises:
    UserError: it is not such a name.
  """
  import tensorflow_datasets as tfds

  if not re.fullmatch('[a-z][a-z0-9_]*', name):
    raise errors.UserError(
      f'dataset={name!r} cannot name a packed image folder; use lower-case letters, digits and _, '
      'with a letter first.'
    )
  if name in {*taken, *tfds.list_builders(with_community_datasets=False)}:
    raise errors.UserError(
      f'dataset={name!r} is the name of another data set; choose one of your own for the image '
      'folder.'
    )


def packed_builder(
  name: str, root: str | os.PathLike, val_fraction: float, data_dir: str | os.PathLike
) -> 'tfds.core.DatasetBuilder':
  """A tfds builder that packs a folder of photos; afterwards plain `tfds.builder` reads it.

  Args:
    name: of the new data set; see `check_name`.
    root: of the folder, as of `image_folder.scan`.
    val_fraction: as of `image_folder.scan`.
    data_dir: the directory of all datasets.

  Raises:
    UserError: `root` is not such a folder; while it packs, a photo cannot be read.
  """
  import tensorflow_datasets as tfds

  folder = image_folder.scan(root, val_fraction)
  print(os.fsencode(folder.describe()).decode(errors='replace'), flush=True)

  class Packed(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A folder of photos."""

    VERSION = tfds.core.Version(VERSION)
    url_infos = None  # nothing to download

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=(None, None, 3)),
        'label': tfds.features.ClassLabel(names=folder.classes),
        'filename': tfds.features.Text(),
      }
      return tfds.core.DatasetInfo(
        builder=self,
        description='A folder of photos, packed by senet_jax.tools.prepare_data.',
        features=tfds.features.FeaturesDict(features),
        supervised_keys=('image', 'label'),
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(of) for split, of in folder.splits.items()}

    def _generate_examples(self, examples):
      for path, label in zip(examples.paths, examples.labels, strict=True):
        name = os.fsencode(path)  # which need not be UTF-8
        image = _read(folder.root / path)
        yield name, {'image': image, 'label': int(label), 'filename': name}

  Packed.name = name
  return Packed(data_dir=data_dir)


def _read(path: pathlib.Path) -> bytes:
  try:
    return photos.plain_bytes(path.read_bytes())
  except photos.UnreadableImage as error:
    raise errors.UserError(
      f'{path} cannot be read ({error}); replace or remove it and run again.'
    ) from error
