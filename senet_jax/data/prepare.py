"""Prepares datasets: the files of tfds, and beside them arrays with the same examples."""

import contextlib
import io
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np

from senet_jax import errors, runtime
from senet_jax.data import arrays
from senet_jax.data.builders import cifar, digits

DATASETS = ('digits', *cifar.LAYOUTS)
DOWNLOAD = 'download'


def prepare(
  name: str,
  data_dir: str | os.PathLike,
  source: str | os.PathLike | None = None,
  overwrite: bool = False,
) -> pathlib.Path:
  """Prepares a dataset for tfds and as arrays; does only what is missing.

  Example i of the arrays is example i that tfds reads without shuffling.

  Args:
    name: one of `DATASETS`.
    data_dir: the directory of all datasets.
    source: for CIFAR, the directory with its files, or `download`, which leaves that to tfds.
    overwrite: prepare it anew; if that fails, what was there stays.

  Returns:
    the directory of the dataset, `<data_dir>/<name>/<version>`.

  Raises:
    UserError: the dataset is unknown, or its files or a library are missing or damaged.
  """
  errors.one_of('dataset', name, DATASETS)
  if '://' in str(data_dir):
    raise errors.UserError(
      f'data_dir={data_dir} is not local; prepare locally, then copy it there.'
    )
  data_dir = pathlib.Path(data_dir).expanduser().absolute()
  tfds = _import_tfds()
  version_dir = pathlib.Path(_builder(name, data_dir).data_dir)
  if overwrite or not (version_dir / 'dataset_info.json').is_file():
    _check_source(name, data_dir, source)
    print(f'preparing {version_dir} ...', flush=True)
    with _set_aside(version_dir):
      _build(name, data_dir, source)
  elif _has_arrays(version_dir):
    print(f'{version_dir} is already prepared; overwrite it to prepare it anew.')
    return version_dir
  _write_arrays(tfds.builder_from_directory(version_dir))
  return version_dir


def _import_tfds():
  try:
    runtime.import_tensorflow()
    import tensorflow_datasets as tfds
  except ImportError as error:
    raise errors.UserError(
      f'preparing data needs TensorFlow and tfds ({error}): '
      'pip install tensorflow-cpu tensorflow-datasets'
    ) from error
  return tfds


def _builder(name: str, data_dir: pathlib.Path):
  if name == 'digits':
    return digits.digits_builder(data_dir)
  import tensorflow_datasets as tfds

  return tfds.builder_cls(name)(data_dir=data_dir)


def _check_source(name: str, data_dir: pathlib.Path, source: str | os.PathLike | None) -> None:
  if name == 'digits' and source is not None:
    raise errors.UserError(f'source={source}: digits comes with scikit-learn; leave source out.')
  if name != 'digits' and source is None:
    raise errors.UserError(_how_to_get(name, data_dir))


def _build(name: str, data_dir: pathlib.Path, source: str | os.PathLike | None) -> None:
  """Writes the files of tfds."""
  if source == DOWNLOAD:
    _download(name, data_dir)
    return
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  # What tfds prints speaks of a download; here there is none, so its download directory is empty.
  with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as scratch:
    if name == 'digits':
      builder = _builder(name, data_dir)
    else:
      builder = cifar.local_builder(name, source, data_dir, pathlib.Path(scratch))
    builder.download_and_prepare(download_dir=scratch)


def _download(name: str, data_dir: pathlib.Path) -> None:
  try:
    _builder(name, data_dir).download_and_prepare()
  except ImportError as error:
    raise errors.UserError(f'tfds cannot download: {error}; pip install {error.name}') from error
  except OSError as error:
    if error.errno is not None:  # the disk, not the network
      raise
    raise errors.UserError(
      f'tfds cannot download: {error}. {_how_to_get(name, data_dir)}'
    ) from error


def _how_to_get(name: str, data_dir: pathlib.Path) -> str:
  layout = cifar.LAYOUTS[name]
  command = f'python -m senet_jax.tools.prepare_data --dataset={name} --data_dir={data_dir}'
  return (
    f'{name} needs its published files: put {" or ".join(layout.archives)}, or the files '
    f'{", ".join(layout.files)} of one of them, into a directory DIR and run '
    f'`{command} --source=DIR`. With internet access, --source={DOWNLOAD} lets tfds download them.'
  )


@contextlib.contextmanager
def _set_aside(path: pathlib.Path) -> Iterator[None]:
  """Moves `path` away meanwhile; brings it back if the body fails, removes it otherwise."""
  aside = path.with_name(f'{path.name}.replaced')
  if path.exists():
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
  try:
    yield
  except BaseException:
    shutil.rmtree(path, ignore_errors=True)
    if aside.exists():
      aside.rename(path)
    raise
  shutil.rmtree(aside, ignore_errors=True)


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
    at = 0
    for batch in builder.as_dataset(split, batch_size=1000).as_numpy_iterator():
      end = at + len(batch['label'])
      images[at:end], labels[at:end] = batch['image'], batch['label']
      at = end
    splits[split] = images, labels
  names = builder.info.features['label'].names
  arrays.write_arrays(builder.data_path, builder.name, str(builder.version), splits, names)
