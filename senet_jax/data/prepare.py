"""Prepares datasets: the files of tfds, and for small images arrays with the same examples."""

import contextlib
import dataclasses
import errno
import io
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from senet_jax import errors, runtime
from senet_jax.data import arrays, carry, coco_files, tfds_features
from senet_jax.data.builders import cifar, digits, imagenet, packed, places365, tiny_imagenet
from senet_jax.storage import files

DATASETS = (
  'digits', *cifar.LAYOUTS, tiny_imagenet.NAME, imagenet.NAME, places365.NAME, coco_files.NAME
)  # fmt: skip
DOWNLOAD = 'download'
FILE_FORMATS = ('tfrecord', 'array_record')
# Where a data set is prepared until it is whole, and the end of the name of one that it replaces.
_STAGING, _REPLACED = '.preparing', '.replaced'
# `config.data.name` of a folder that is read as it is.
_RESERVED = ('image_folder',)


@dataclasses.dataclass(frozen=True)
class _Recipe:
  """The preparation of a dataset from local files.

  Attributes:
    builder: name, where to prepare, an empty directory, options -> the tfds builder; it checks
      what can be checked before the work.
    options: the arguments of `prepare` that are for it.
    version: of the dataset; None is that of tfds's own builder.
    arrays: whether arrays are written, too: the images are few, small and of one size.
  """

  builder: Callable[..., Any]
  options: tuple[str, ...] = ()
  version: str | None = None
  arrays: bool = True


def prepare(
  name: str,
  data_dir: str | os.PathLike,
  source: str | os.PathLike | None = None,
  overwrite: bool = False,
  *,
  file_format: str = 'tfrecord',
  partial: bool = False,
  image_folder: str | os.PathLike | None = None,
  val_fraction: float = 0.0,
  arrays_only: bool = False,
) -> pathlib.Path:
  """Prepares a dataset for tfds, and if it is small as arrays; does only what is missing.

  Example i of the arrays is example i that tfds reads without shuffling.

  Args:
    name: one of `DATASETS`; for an image folder, a name of one's own.
    data_dir: the directory of all datasets.
    source: for CIFAR and Tiny ImageNet, the directory with its files, or `download`, which leaves
      that to tfds; for ImageNet and Places365-Challenge, the directory with its archives; for COCO
      that, or `download`.
    overwrite: prepare it anew; if that fails, what was there stays.
    file_format: one of `FILE_FORMATS`.
    partial: take files of any but CIFAR with some of the images, too.
    image_folder: a folder of photos to pack, see `image_folder.scan`.
    val_fraction: share of each class that is held out, see `image_folder.scan`.
    arrays_only: write the same arrays without the files of tfds, and without TensorFlow: of CIFAR
      from its published files, of what a pack of `carry` has from there.

  Returns:
    the directory of the dataset, `<data_dir>/<name>/<version>`; `<data_dir>/coco` of COCO.

  Raises:
    UserError: the dataset is unknown, an option is not for it, it is there in the other format, or
      its files or a library are missing or damaged.
  """
  options = {
    'source': source,
    'partial': partial,
    'image_folder': image_folder,
    'val_fraction': val_fraction,
  }
  recipe = _choose(name, options)
  errors.one_of('file_format', file_format, FILE_FORMATS)
  if '://' in str(data_dir):
    raise errors.UserError(
      f'data_dir={data_dir} is not local; prepare locally, then copy it there.'
    )
  data_dir = pathlib.Path(data_dir).expanduser().absolute()
  if name == coco_files.NAME and recipe is not _PACKED:
    if overwrite or arrays_only or file_format != FILE_FORMATS[0]:
      raise errors.UserError(
        f'overwrite, arrays_only and file_format are not for coco, whose files are read as they '
        f'are; to have some anew, remove them from {data_dir / name}.'
      )
    return _prepare_coco(data_dir / name, source, partial)
  if arrays_only:
    if file_format != FILE_FORMATS[0]:
      raise errors.UserError(f'file_format={file_format} is of the files that arrays_only omits.')
    return _prepare_arrays(name, data_dir, source, overwrite)
  return _prepare_files(recipe, name, data_dir, options, overwrite, file_format)


def _prepare_files(
  recipe: _Recipe,
  name: str,
  data_dir: pathlib.Path,
  options: dict[str, Any],
  overwrite: bool,
  file_format: str,
) -> pathlib.Path:
  """Writes the files of tfds and, if the recipe says so, arrays; only what is missing."""
  tfds = _import_tfds()
  if recipe is _PACKED:
    packed.check_name(name, taken=(*DATASETS, *_RESERVED))
  version_dir = data_dir / name / str(recipe.version or tfds.builder_cls(name).VERSION)
  with _alone(version_dir.parent):
    if overwrite or not (version_dir / 'dataset_info.json').is_file():
      given = {option: options[option] for option in recipe.options}
      _build(recipe, name, version_dir, file_format, given)
    else:
      _check_format(version_dir, file_format)
      if not recipe.arrays or _has_arrays(version_dir):
        print(f'{version_dir} is already prepared; overwrite it to prepare it anew.')
        return version_dir
    if recipe.arrays:
      _write_arrays(tfds.builder_from_directory(version_dir))
  return version_dir


def official_count(name: str, split: str) -> int | None:
  """Returns how many examples a split has that may be prepared in part; None for any other."""
  if name == coco_files.NAME:
    return coco_files.official_count(split)
  counted = {builder.NAME: builder for builder in (imagenet, places365, tiny_imagenet)}
  return counted[name].COUNTS.get(split) if name in counted else None


def read_info(version_dir: pathlib.Path) -> dict[str, Any]:
  """Returns what tfds knows of a prepared dataset.

  Returns:
    `splits` (name -> number of examples), `file_format` and `num_classes`.
  """
  if version_dir.name == coco_files.NAME:
    return {'splits': coco_files.counts(version_dir), 'file_format': 'jpg', 'num_classes': 80}
  tfds = _import_tfds()
  tfds_features.check(version_dir)
  info = tfds.builder_from_directory(version_dir).info
  return {
    'splits': {split: info.splits[split].num_examples for split in info.splits},
    'file_format': info.file_format.value,
    'num_classes': info.features['label'].num_classes,
  }


def _choose(name: str, options: dict[str, Any]) -> _Recipe:
  if options['image_folder'] is not None:
    recipe = _PACKED
  else:
    hint = 'To pack a folder of photos under a name of your own, add --image_folder=ROOT.'
    errors.one_of('dataset', name, DATASETS, hint)
    recipe = _RECIPES[name]
  for option, value in options.items():
    if value and option not in recipe.options:
      takes = ' and '.join(recipe.options)
      why = f'takes {takes}' if takes else 'comes with scikit-learn'
      raise errors.UserError(f'{option}={value} is not for {name}, which {why}; leave it out.')
  return recipe


def _prepare_coco(
  folder: pathlib.Path, source: str | os.PathLike | None, partial: bool
) -> pathlib.Path:
  """Unpacks the archives of COCO, of which detectors read the files as they are."""
  if source is None:
    raise errors.UserError(coco_files.HOW_TO_GET)
  with _alone(folder):
    try:
      coco_files.prepare(folder, folder / _STAGING, source, partial)
    finally:
      shutil.rmtree(folder / _STAGING, ignore_errors=True)
  return folder


def _prepare_arrays(
  name: str, data_dir: pathlib.Path, source: str | os.PathLike | None, overwrite: bool
) -> pathlib.Path:
  """Writes the arrays alone, unless they are there."""
  version_dir = arrays.find_arrays(name, data_dir)
  if version_dir and _has_arrays(version_dir) and not overwrite:
    print(f'{version_dir} is already prepared; overwrite it to prepare it anew.')
    return version_dir
  if source not in (None, DOWNLOAD) and carry.is_pack(source):
    dataset = carry.read_pack(source, name)
  elif source not in (None, DOWNLOAD) and name in cifar.LAYOUTS:
    dataset = cifar.read_published(name, source)
  else:
    raise errors.UserError(
      f'arrays_only takes source=DIR, with the published files of {" or ".join(cifar.LAYOUTS)} or '
      f'a pack of senet_jax.data.carry, and not {name} from source={source}; tfds prepares the '
      'others.'
    )
  version_dir = data_dir / name / dataset.version
  with _alone(version_dir.parent):
    arrays.write_arrays(version_dir, **vars(dataset))
  return version_dir


def _import_tfds():
  try:
    runtime.import_tensorflow()
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise errors.UserError(
      f'preparing data needs TensorFlow and tfds ({error}): '
      "pip install 'senet_jax[tensorflow]'; CIFAR as arrays alone, with --arrays_only, does "
      'without, and digits need no preparation.'
    ) from error
  return tfds


def _check_format(version_dir: pathlib.Path, file_format: str) -> None:
  there = read_info(version_dir)['file_format']
  if there != file_format:
    raise errors.UserError(
      f'{version_dir} is already prepared as {there}, not as file_format={file_format}; keep it '
      f'with --file_format={there}, or prepare it anew with --overwrite.'
    )


def _digits(name, data_dir, scratch):
  return digits.digits_builder(data_dir)


def _cifar(name, data_dir, scratch, source):
  if source is None:
    raise errors.UserError(_how_to_get(name, data_dir.parents[1]))
  return cifar.local_builder(name, source, data_dir, scratch)


def _imagenet(name, data_dir, scratch, source, partial):
  if source in (None, DOWNLOAD):
    raise errors.UserError(imagenet.HOW_TO_GET)
  return imagenet.local_builder(source, data_dir, partial)


def _places365(name, data_dir, scratch, source, partial):
  if source in (None, DOWNLOAD):
    raise errors.UserError(places365.HOW_TO_GET)
  return places365.local_builder(source, data_dir, partial)


def _tiny_imagenet(name, data_dir, scratch, source, partial):
  if source is None:
    raise errors.UserError(tiny_imagenet.HOW_TO_GET)
  if source == DOWNLOAD:
    import tensorflow_datasets as tfds

    with _downloading(tiny_imagenet.HOW_TO_GET):
      manager = tfds.download.DownloadManager(download_dir=scratch)
      source = manager.download(tiny_imagenet.URL)
  return tiny_imagenet.local_builder(source, data_dir, partial)


def _no_builder(name, data_dir, scratch, source, partial):
  raise AssertionError('COCO is no data set of tfds here')


def _packed(name, data_dir, scratch, image_folder, val_fraction):
  return packed.packed_builder(name, image_folder, val_fraction, data_dir)


_RECIPES = {
  'digits': _Recipe(_digits, version='1.0.0'),
  **{name: _Recipe(_cifar, ('source',)) for name in cifar.LAYOUTS},
  tiny_imagenet.NAME: _Recipe(_tiny_imagenet, ('source', 'partial'), tiny_imagenet.VERSION),
  imagenet.NAME: _Recipe(_imagenet, ('source', 'partial'), arrays=False),
  places365.NAME: _Recipe(_places365, ('source', 'partial'), places365.VERSION, arrays=False),
  coco_files.NAME: _Recipe(_no_builder, ('source', 'partial'), arrays=False),
}
_PACKED = _Recipe(_packed, ('image_folder', 'val_fraction'), packed.VERSION, arrays=False)


def _build(
  recipe: _Recipe,
  name: str,
  version_dir: pathlib.Path,
  file_format: str,
  options: dict[str, Any],
) -> None:
  """Writes the files of tfds, aside until they are whole; what was there stays if that fails."""
  staging = version_dir.parent / _STAGING
  data_dir = version_dir.parents[1]
  try:
    if name in cifar.LAYOUTS and options['source'] == DOWNLOAD:
      _download(name, data_dir, staging, file_format)
    else:
      _build_locally(recipe, name, data_dir, staging, file_format, options)
    _put_in_place(staging / name / version_dir.name, version_dir)
  finally:
    shutil.rmtree(staging, ignore_errors=True)


def _build_locally(
  recipe: _Recipe,
  name: str,
  data_dir: pathlib.Path,
  staging: pathlib.Path,
  file_format: str,
  options: dict[str, Any],
) -> None:
  if not sys.stderr.isatty():
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
  # What tfds prints speaks of a download; here there is none, so its download directory is empty.
  with tempfile.TemporaryDirectory() as scratch:
    builder = recipe.builder(name, staging, pathlib.Path(scratch), **options)
    print(f'preparing {data_dir / name / str(builder.version)} ...', flush=True)
    try:
      with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_dir=scratch, file_format=file_format)
    except Exception as error:
      if os.strerror(errno.ENOSPC) not in str(error):  # each writer has another type of error
        raise
      raise errors.UserError(
        f'the disk of {data_dir} is full; free some space or choose another --data_dir.'
      ) from error


def _download(name: str, data_dir: pathlib.Path, staging: pathlib.Path, file_format: str) -> None:
  import tensorflow_datasets as tfds

  with _downloading(_how_to_get(name, data_dir)):
    tfds.builder_cls(name)(data_dir=staging).download_and_prepare(
      download_dir=data_dir / 'downloads', file_format=file_format
    )


@contextlib.contextmanager
def _downloading(otherwise: str) -> Iterator[None]:
  """Says what to do otherwise if a download of tfds fails."""
  try:
    yield
  except ImportError as error:
    raise errors.UserError(f'tfds cannot download: {error}; pip install {error.name}') from error
  except OSError as error:
    if error.errno is not None:  # the disk, not the network
      raise
    raise errors.UserError(f'tfds cannot download: {error}. {otherwise}') from error


def _how_to_get(name: str, data_dir: pathlib.Path) -> str:
  layout = cifar.LAYOUTS[name]
  command = f'python -m senet_jax.tools.prepare_data --dataset={name} --data_dir={data_dir}'
  return (
    f'{name} needs its published files: put {" or ".join(layout.archives)}, or the files '
    f'{", ".join(layout.files)} of one of them, into a directory DIR and run '
    f'`{command} --source=DIR`. With internet access, --source={DOWNLOAD} lets tfds download them.'
  )


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
  """Keeps other preparations of a data set away, and clears up what killed ones have left.

  Raises:
    UserError: there is another one.
  """
  if folder.exists() and not os.access(folder, os.W_OK):
    yield  # nothing is written there
    return
  new = [place for place in (folder, folder.parent) if not place.exists()]
  with files.locked(folder, '--data_dir'):
    shutil.rmtree(folder / _STAGING, ignore_errors=True)
    for aside in folder.glob(f'*{_REPLACED}'):
      _put_back(aside, aside.with_name(aside.name.removesuffix(_REPLACED)))
    try:
      yield
    finally:
      (folder / '.lock').unlink(missing_ok=True)
      with contextlib.suppress(OSError):  # they are not empty
        for place in new:
          place.rmdir()


def _put_in_place(new: pathlib.Path, path: pathlib.Path) -> None:
  """Moves a directory to where another may be, of which a kill leaves one or the other."""
  aside = path.with_name(path.name + _REPLACED)
  if path.exists():
    path.rename(aside)
  try:
    new.rename(path)
  finally:
    _put_back(aside, path)


def _put_back(aside: pathlib.Path, path: pathlib.Path) -> None:
  """Moves what was set aside back to `path`, unless what replaces it is whole."""
  if not aside.exists():
    return
  if any((path / whole).exists() for whole in ('dataset_info.json', arrays.FOLDER)):
    shutil.rmtree(aside, ignore_errors=True)
    return
  shutil.rmtree(path, ignore_errors=True)
  aside.rename(path)


def _has_arrays(version_dir: pathlib.Path) -> bool:
  try:
    arrays.check_arrays(version_dir)
  except errors.UserError:
    return False
  return True


def _write_arrays(builder) -> None:
  """Writes the arrays, in the order in which tfds reads the examples."""
  splits = {}
  for split, info in builder.info.splits.items():
    shape = builder.info.features['image'].shape
    images = np.empty((info.num_examples, *shape), np.uint8)
    labels = np.empty(info.num_examples, np.int32)
    if builder.info.file_format.value == 'array_record':  # which tf.data does not read
      examples = builder.as_data_source(split)
    else:
      examples = builder.as_dataset(split).as_numpy_iterator()
    for i, example in enumerate(examples):
      images[i], labels[i] = example['image'], example['label']
    splits[split] = images, labels
  names = builder.info.features['label'].names
  arrays.write_arrays(builder.data_path, builder.name, str(builder.version), splits, names)
