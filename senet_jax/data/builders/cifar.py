"""CIFAR-10 and CIFAR-100 from local files: for tfds's own builders, or without tfds as arrays."""

import dataclasses
import functools
import hashlib
import io
import os
import pathlib
import pickle
import tarfile
import tempfile
import types
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from senet_jax import errors
from senet_jax.data import arrays
from senet_jax.data.builders import official

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

# Of tfds's builders.
VERSION = '3.0.2'
SPLITS = ('train', 'test')
_PIXELS = 3 * 32 * 32  # bytes of an image


@dataclasses.dataclass(frozen=True)
class Layout:
  """The published files of a dataset.

  Attributes:
    files: a file's name in the Python version -> its MD5 and the MD5 of its binary twin, whose name
      ends in `.bin`. Both hold the same records in the same order.
    folders: in which the archives put the Python and the binary files.
    archives: name -> MD5.
    label_keys: of the labels of a Python batch, in the order of a binary record.
    label_names: name of the text file where tfds looks for the label names -> their names.
  """

  files: Mapping[str, tuple[str, str]]
  folders: tuple[str, str]
  archives: Mapping[str, str]
  label_keys: tuple[bytes, ...]
  label_names: Mapping[str, str]


# The authors publish the MD5s of the archives; those of the batches follow from them. Those of the
# binary files were computed from the records of the verified Python batches.
LAYOUTS = {
  'cifar10': Layout(
    files={
      'data_batch_1': ('c99cafc152244af753f735de768cd75f', '5dd7e06a14cb22eb9f671a540d1b7c25'),
      'data_batch_2': ('d4bba439e000b95fd0a9bffe97cbabec', '5ea93a67294ea407fff1d09f752e9692'),
      'data_batch_3': ('54ebc095f3ab1f0389bbae665268c751', '942cd6a4bcdd0dd3c604fbe906cb4421'),
      'data_batch_4': ('634d18415352ddfa80567beed471001a', 'ae636b3ba5c66a11e91e8cb52e771fcb'),
      'data_batch_5': ('482c414d41f54cd18b22e5b47cb7c3cb', '53f37980c15c3d472c316c40844f3f0d'),
      'test_batch': ('40351d587109b95175f43aff81a1287e', '803d5f7f4d78ea53de84dbe85f74fb6d'),
    },
    folders=('cifar-10-batches-py', 'cifar-10-batches-bin'),
    archives={
      'cifar-10-python.tar.gz': 'c58f30108f718f92721af3b95e74349a',
      'cifar-10-binary.tar.gz': 'c32a1d4ab5d03f1284b67883e8d87530',
    },
    label_keys=(b'labels',),
    label_names={'batches.meta.txt': 'airplane automobile bird cat deer dog frog horse ship truck'},
  ),
  'cifar100': Layout(
    files={
      'train': ('16019d7e3df5f24257cddd939b257f8d', '6172c7755cfe09b2fe270c85cebc1b15'),
      'test': ('f0ef6b0ae62326f3e7ffdfab6717acfc', '4499cfba6c016c1be1438163640a0898'),
    },
    folders=('cifar-100-python', 'cifar-100-binary'),
    archives={
      'cifar-100-python.tar.gz': 'eb9058c3a382ffc7106e4002c42a8d85',
      'cifar-100-binary.tar.gz': '03b5dce01913d631647c71ecec9e9cb8',
    },
    label_keys=(b'coarse_labels', b'fine_labels'),
    label_names={
      'coarse_label_names.txt': """
        aquatic_mammals fish flowers food_containers fruit_and_vegetables
        household_electrical_devices household_furniture insects large_carnivores
        large_man-made_outdoor_things large_natural_outdoor_scenes large_omnivores_and_herbivores
        medium_mammals non-insect_invertebrates people reptiles small_mammals trees vehicles_1
        vehicles_2""",
      'fine_label_names.txt': """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman
        worm""",
    },
  ),
}


def local_builder(
  name: str, source: str | os.PathLike, data_dir: str | os.PathLike, scratch: pathlib.Path
) -> 'tfds.core.DatasetBuilder':
  """A tfds builder that prepares `name` from local files; afterwards plain `tfds.load` reads it.

  Args:
    name: `cifar10` or `cifar100`.
    source: an official archive, or a directory with one, or with the Python or binary files.
    data_dir: the directory of all datasets.
    scratch: an empty directory, which must last until the dataset is prepared.

  Raises:
    UserError: a file is missing or is not the official one.
  """
  unpack(name, source, scratch)
  builder = _builder_class(name)(data_dir=data_dir)
  builder.unpacked = scratch
  return builder


def unpack(name: str, source: str | os.PathLike, out: pathlib.Path) -> None:
  """Writes what tfds finds after its own download, the binary version, after verification.

  Args:
    name: `cifar10` or `cifar100`.
    source: as in `local_builder`.
    out: an existing directory.

  Raises:
    UserError: a file is missing or is not the official one.
  """
  layout = LAYOUTS[name]
  folder, suffix = _locate(name, pathlib.Path(source).expanduser(), out / 'archive')
  binary = out / layout.folders[1]
  binary.mkdir()
  for stem in layout.files:
    (binary / f'{stem}.bin').write_bytes(_records(layout, folder, stem, suffix))
  for file, names in layout.label_names.items():
    (binary / file).write_text('\n'.join(names.split()) + '\n')


def read_published(name: str, source: str | os.PathLike) -> arrays.Dataset:
  """Reads the published files into memory, without tfds but in the order of its files.

  Args:
    name: `cifar10` or `cifar100`.
    source: as in `local_builder`.

  Returns:
    `train` and `test` with images uint8 `[N, 32, 32, 3]`; labels are the fine ones.

  Raises:
    UserError: a file is missing or is not the official one.
  """
  layout = LAYOUTS[name]
  splits = {}
  with tempfile.TemporaryDirectory() as scratch:
    folder, suffix = _locate(name, pathlib.Path(source).expanduser(), pathlib.Path(scratch))
    for split in SPLITS:
      stems = [stem for stem in layout.files if ('test' in stem) == (split == 'test')]
      records = np.frombuffer(
        b''.join(_records(layout, folder, stem, suffix) for stem in stems), np.uint8
      ).reshape(-1, len(layout.label_keys) + _PIXELS)
      records = records[tfds_order(split, len(records))]
      images = records[:, -_PIXELS:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
      labels = records[:, -_PIXELS - 1].astype(np.int32)
      splits[split] = np.ascontiguousarray(images), labels
  *_, names = layout.label_names.values()
  return arrays.Dataset(name, VERSION, splits, names.split())


def tfds_order(split: str, count: int) -> list[int]:
  """The order in which tfds keeps the examples that its builder of CIFAR numbers from 0.

  That of the MD5 digests of split and number, see `hashing.Hasher`, `shuffle.Shuffler` and
  `split_builder` in `tensorflow_datasets.core`; files of tfds keep to it within a version.

  Args:
    split: `train` or `test`.
    count: of its examples.

  Returns:
    the number of the example that comes first, second, ...
  """
  return sorted(range(count), key=lambda i: hashlib.md5(f'{split}{i}'.encode()).digest())


def has_files(name: str, source: str | os.PathLike) -> bool:
  """Returns whether a directory has published files of `name`, or an archive of them."""
  layout, source = LAYOUTS[name], pathlib.Path(source).expanduser()
  folders = (source, *(source / folder for folder in layout.folders))
  names = [*layout.archives, *layout.files, *(f'{stem}.bin' for stem in layout.files)]
  return any((folder / file).is_file() for folder in folders for file in names)


def _locate(name: str, source: pathlib.Path, scratch: pathlib.Path) -> tuple[pathlib.Path, str]:
  """Finds the directory with the most files and their suffix; an archive goes to `scratch`."""
  layout = LAYOUTS[name]

  def count(place: tuple[pathlib.Path, str]) -> int:
    folder, suffix = place
    return sum((folder / f'{stem}{suffix}').is_file() for stem in layout.files)

  folders = (source, *(source / folder for folder in layout.folders))
  best = max(((folder, suffix) for folder in folders for suffix in ('', '.bin')), key=count)
  if count(best) == len(layout.files):
    return best
  for archive in (source, *(source / file for file in layout.archives)):
    if archive.name in layout.archives and archive.is_file():
      official.check_md5(archive, layout.archives[archive.name])
      with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter='data')
      return _locate(name, scratch, scratch)
  if count(best) == 0:
    raise errors.UserError(
      f'{source} has no files of {name}; it should have {" or ".join(layout.archives)}, or the '
      f'files {", ".join(layout.files)}, or these with .bin.'
    )
  return best


def _records(layout: Layout, folder: pathlib.Path, stem: str, suffix: str) -> bytes:
  """One file as binary records: label bytes, then the red, green and blue plane."""
  path = folder / f'{stem}{suffix}'
  expected = layout.files[stem][1 if suffix else 0]
  if not path.is_file():
    raise errors.UserError(f'{path} is missing (its MD5 is {expected}); add it and run again.')
  data = path.read_bytes()
  official.check_md5(path, expected, data)
  if suffix:
    return data
  batch = _Unpickler(io.BytesIO(data), encoding='bytes').load()
  labels = [np.asarray(batch[key], np.uint8) for key in layout.label_keys]
  return np.column_stack([*labels, batch[b'data']]).tobytes()


class _Unpickler(pickle.Unpickler):
  """Unpickles numbers, strings, containers and NumPy arrays, and nothing that could run code."""

  # The batches were pickled under Python 2; `_reconstruct` has moved since.
  _ALLOWED = types.MappingProxyType(
    {
      ('numpy.core.multiarray', '_reconstruct'): np.empty(0).__reduce__()[0],
      ('numpy', 'ndarray'): np.ndarray,
      ('numpy', 'dtype'): np.dtype,
    }
  )

  def find_class(self, module: str, name: str):
    """Returns one of the three functions that make an array.

    Raises:
      UserError: another one is asked for.
    """
    if (module, name) not in self._ALLOWED:
      raise errors.UserError(f'refused to unpickle a batch that asks for {module}.{name}.')
    return self._ALLOWED[module, name]


@functools.cache
def _builder_class(dataset: str) -> type:
  """The builder of tfds, except that its download manager returns the attribute `unpacked`."""
  import tensorflow_datasets as tfds

  base = tfds.builder_cls(dataset)

  class LocalCifar(base, skip_registration=True):
    name = base.name
    url_infos = None  # nothing to download

    def _split_generators(self, dl_manager):
      del dl_manager
      local = types.SimpleNamespace(download_and_extract=lambda url: self.unpacked)
      return super()._split_generators(local)

  return LocalCifar
