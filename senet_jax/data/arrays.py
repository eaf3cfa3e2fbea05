"""Datasets as `.npy` files, for the feed that keeps all images in memory.

Reading them needs neither TensorFlow nor tfds. They lie beside the tfds files, in tfds's order:

    <data_dir>/<name>/<version>/arrays/
      train_images.npy  uint8 [N, H, W, C]
      train_labels.npy  int32 [N]
      arrays.json       names, shapes and SHA-256 digests
"""

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from senet_jax import errors
from senet_jax.storage import buckets, files
from senet_jax.storage.buckets import Path

FOLDER = 'arrays'
_INDEX = 'arrays.json'
_DTYPES: dict[str, np.dtype] = {'images': np.dtype(np.uint8), 'labels': np.dtype(np.int32)}


@dataclasses.dataclass(frozen=True)
class Dataset:
  """A data set in memory.

  Attributes:
    name: as in tfds.
    version: such as `3.0.2`.
    splits: split -> images, uint8 `[N, H, W, C]`, and labels, int32 `[N]`.
    label_names: of label 0, 1, ...
  """

  name: str
  version: str
  splits: Mapping[str, tuple[np.ndarray, np.ndarray]]
  label_names: Sequence[str]


def default_data_dir() -> Path:
  """The directory of all datasets that tfds uses too: `$TFDS_DATA_DIR` or ~/tensorflow_datasets."""
  return buckets.to_path(os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets')


def write_arrays(
  version_dir: str | os.PathLike,
  name: str,
  version: str,
  splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
  label_names: Sequence[str],
) -> None:
  """Writes the arrays of a dataset, whole or not at all; replaces those that are there.

  Args:
    version_dir: `<data_dir>/<name>/<version>`.
    name: of the dataset.
    version: of the dataset.
    splits: split -> images, uint8 `[N, H, W, C]`, and labels, integers `[N]`.
    label_names: of label 0, 1, ...
  """
  folder = pathlib.Path(version_dir) / FOLDER
  partial = folder.with_name(f'{FOLDER}.partial')
  shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
  partial.mkdir(parents=True)
  try:
    index: dict[str, Any] = {'name': name, 'version': version}
    index |= {'label_names': list(label_names), 'splits': {}}
    for split, (images, labels) in splits.items():
      labels = np.asarray(labels, _DTYPES['labels'])
      if images.dtype != _DTYPES['images'] or images.ndim != 4 or labels.shape != images.shape[:1]:
        raise ValueError(f'{split}: {images.dtype} {images.shape} with labels {labels.shape}')
      np.save(partial / f'{split}_images.npy', images)
      np.save(partial / f'{split}_labels.npy', labels)
      index['splits'][split] = {
        'num_examples': len(images),
        'image_shape': images.shape[1:],
        'images_sha256': sha256(images),
        'labels_sha256': sha256(labels),
      }
    files.write_json(partial / _INDEX, index)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def find_arrays(name: str, data_dir: str | os.PathLike) -> Path | None:
  """Finds the newest version of a dataset that has arrays.

  Args:
    name: of the dataset.
    data_dir: the directory of all datasets.

  Returns:
    its directory, `<data_dir>/<name>/<version>`; None if there is none.
  """
  indices = (buckets.to_path(data_dir) / name).glob(f'*/{FOLDER}/{_INDEX}')
  versions = [i.parents[1] for i in indices if re.fullmatch(r'\d+\.\d+\.\d+', i.parents[1].name)]
  return max(versions, key=lambda v: [int(n) for n in v.name.split('.')], default=None)


def read_arrays(
  name: str, data_dir: str | os.PathLike, split: str
) -> tuple[np.ndarray, np.ndarray]:
  """Reads one split of the newest version, mapped into memory, not loaded.

  Args:
    name: of the dataset.
    data_dir: the directory of all datasets.
    split: such as `train`.

  Returns:
    images, uint8 `[N, H, W, C]`, and labels, int32 `[N]`; from a bucket they are loaded.

  Raises:
    UserError: there are no arrays or no such split, or a file is damaged.
  """
  version_dir = find_arrays(name, data_dir)
  if version_dir is None:
    raise errors.UserError(
      f'{name} is not prepared in {data_dir}; run: python -m senet_jax.tools.prepare_data '
      f'--dataset={name} --data_dir={data_dir} --source=DIR, with DIR where its published files '
      'are (or --source=download), or try --config.data.fake=True.'
    )
  return read_version(version_dir, split)


def read_version(version_dir: str | os.PathLike, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Reads one split of the version whose directory is given; see `read_arrays`."""
  version_dir = buckets.to_path(version_dir)
  splits = read_index(version_dir)['splits']
  errors.one_of('split', split, splits)
  count, image_shape = splits[split]['num_examples'], splits[split]['image_shape']
  images = _load(version_dir, split, 'images', (count, *image_shape))
  labels = _load(version_dir, split, 'labels', (count,))
  return images, labels


def read_index(version_dir: str | os.PathLike) -> dict[str, Any]:
  """Reads `arrays.json`: `name`, `version`, `label_names` and, by split, sizes and digests.

  Raises:
    UserError: it is missing or damaged.
  """
  path = buckets.to_path(version_dir) / FOLDER / _INDEX
  try:
    index = json.loads(path.read_bytes())
  except (OSError, ValueError, RecursionError) as error:
    raise _damaged(path, str(error)) from error
  match index:
    case {'label_names': [*names], 'splits': {**splits}} if all(map(_is_split, splits.values())):
      if all(isinstance(name, str) for name in names):
        return index
  raise _damaged(path, 'it has not the names, sizes and digests that it should have')


def _is_split(entry: Any) -> bool:
  match entry:
    case {
      'num_examples': int(),
      'image_shape': [int(), int(), int()],
      'images_sha256': str(),
      'labels_sha256': str(),
    }:
      return True
  return False


def check_arrays(version_dir: str | os.PathLike) -> None:
  """Reads all files in full and compares them with `arrays.json`.

  Raises:
    UserError: a file is missing or damaged.
  """
  for split, entry in read_index(version_dir)['splits'].items():
    for kind, array in zip(_DTYPES, read_version(version_dir, split), strict=True):
      if sha256(array) != entry[f'{kind}_sha256']:
        path = pathlib.Path(version_dir) / FOLDER / f'{split}_{kind}.npy'
        raise _damaged(path, f'its SHA-256 is not that of {_INDEX}')


def _load(version_dir: Path, split: str, kind: str, shape: tuple[int, ...]) -> np.ndarray:
  path = version_dir / FOLDER / f'{split}_{kind}.npy'
  try:
    if buckets.in_bucket(path):
      array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
    else:
      array = np.load(path, mmap_mode='r', allow_pickle=False)
  except Exception as error:  # NumPy raises many kinds on a damaged header
    raise _damaged(path, str(error)) from error
  if array.shape != shape or array.dtype != _DTYPES[kind]:
    expected = f'{_DTYPES[kind]} {shape} of {_INDEX}'
    raise _damaged(path, f'it holds {array.dtype} {array.shape}, not the {expected}')
  return array


def _damaged(path: Path, why: str) -> errors.UserError:
  return errors.UserError(
    f'{path} is missing or damaged ({why}); run senet_jax.tools.prepare_data again.'
  )


def sha256(array: np.ndarray) -> str:
  """The SHA-256 of the bytes of an array, as `arrays.json` has it."""
  return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns mean and standard deviation of every channel, of values 0..1, two `[C]`.

  Args:
    images: uint8 `[N, H, W, C]`.
  """
  total, squares = np.zeros((2, images.shape[-1]), np.int64)
  for start in range(0, len(images), 4096):  # a bounded amount of memory; the sums are exact
    pixels = images[start : start + 4096].reshape(-1, images.shape[-1]).astype(np.int64)
    total += pixels.sum(axis=0)
    squares += np.square(pixels).sum(axis=0)
  count = images[..., 0].size
  mean = total / count
  return mean / 255, np.sqrt(squares / count - np.square(mean)) / 255
