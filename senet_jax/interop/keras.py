"""Weights of `keras.applications`, from the files of Keras 2 and 3; Keras is not needed.

An `.h5` or `.weights.h5` file is HDF5, a `.keras` file a zip with one in it. Only arrays and names
are read: no layer is made, and nothing that a file refers to outside itself is opened.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from senet_jax.errors import UserError
from senet_jax.interop import mapping
from senet_jax.interop.names import KERAS, Variant
from senet_jax.interop.storage import needs, whole

SUFFIXES = ('.h5', '.hdf5', '.keras')

# What a layer's arrays are called where a file only counts them.
_COUNTED = {
  'conv': ('kernel', 'bias'),
  'dense': ('kernel', 'bias'),
  'norm': ('gamma', 'beta', 'moving_mean', 'moving_variance'),
}
# Layers whose names Keras makes up: they count on from model to model of one process.
_NUMBERED = re.compile(r'(conv2d|batch_normalization)(?:_(\d+))?')
_MOST_JSON = 64 * 2**20


def from_keras(
  name: str,
  weights: str | os.PathLike,
  variant: str | None = None,
  num_classes: int | None = None,
) -> dict[str, Any]:
  """The variables of a network from weights of `keras.applications`.

  The network computes what the one of Keras does if it is built with `model_overrides`, of images
  with red first, on the 0-255 scale, normalised by the variant's mean and standard deviation.

  >>> variables = from_keras('mobilenet_v1', 'mobilenet_7_5_192_tf.h5')
  >>> overrides = model_overrides('mobilenet_v1', 'keras:mobilenet_0.75')
  >>> model = create_model('mobilenet_v1', **overrides)

  Args:
    name: our name of the network.
    weights: path of an `.h5`, `.weights.h5` or `.keras` file.
    variant: `keras:mobilenet_0.75`, …; None: what the weights look most like.
    num_classes: of the last layer; None: as many as it has.

  Returns:
    `params` and `batch_stats`, float32 NumPy arrays. Biases in front of a normalisation are a part
    of its mean.

  Raises:
    UserError: the file is damaged or of another format, has code in it, or its weights are not
      those of the network; the message lists all that is missing, extra and misshaped.
  """
  arrays = read(weights)
  chosen = mapping.choose(arrays, KERAS, name, variant)
  return to_variables(chosen, arrays, num_classes or mapping.classes_in(chosen, arrays))


def to_variables(
  variant: Variant, arrays: Mapping[str, np.ndarray], num_classes: int | None = None
) -> dict[str, Any]:
  """The variables of a network from arrays as of `read`; as of `from_keras`."""
  return mapping.to_variables(variant, _as_ours(variant, arrays, num_classes), num_classes)


def _as_ours(
  variant: Variant, arrays: Mapping[str, np.ndarray], num_classes: int | None
) -> dict[str, np.ndarray]:
  """`arrays` with scales of 1 where Keras has none, and biases in the means behind them."""
  arrays = dict(arrays)
  known = {e.path: e.name for e in mapping.entries(variant.name, num_classes or 1000)}
  for path, name in known.items():
    if path[-1] == 'scale' and name not in arrays:
      shift = arrays.get(known[(*path[:-1], 'bias')])
      if shift is not None:
        arrays[name] = np.ones_like(shift)
    if path[-1] != 'kernel' or (*path[:-1], 'bias') in known:
      continue
    norm = ('batch_stats', *path[1:-2], path[-2].replace('conv', 'bn'), 'mean')
    bias, mean = name.replace('/kernel', '/bias'), known.get(norm)
    if bias in arrays and mean in arrays and arrays[bias].shape == arrays[mean].shape:
      arrays[mean] = arrays[mean] - arrays.pop(bias)
  return arrays


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """The arrays in a file of Keras, float32, by layer and name: `conv1_bn/gamma`.

  Layers that Keras numbers itself are numbered from 0, in the order in which they were made.

  Raises:
    UserError: the file is damaged or of another format, or has code in it; or h5py is not
      installed.
  """
  path = pathlib.Path(path)
  path.open('rb').close()  # whatever is raised from here on, the file is there
  with needs('h5py', f'to read {path}'):
    import h5py
  with whole(path), contextlib.ExitStack() as stack:
    source: Any = path
    if zipfile.is_zipfile(path):
      archive = stack.enter_context(zipfile.ZipFile(path))
      _check_layers(path, _bounded(archive, 'config.json'))
      source = io.BytesIO(_bounded(archive, 'model.weights.h5'))
    file = stack.enter_context(h5py.File(source, 'r'))
    _check_layers(path, file.attrs.get('model_config', '{}'))
    found = {name: _as_float(name, x) for name, x in _arrays(file)}
    if not found:
      raise UserError(f'{path} holds no weights of Keras: none of its arrays is of a layer.')
  return _renumbered(found)


def _bounded(archive: zipfile.ZipFile, name: str) -> bytes:
  entry = archive.getinfo(name)
  if entry.compress_type != zipfile.ZIP_STORED and entry.file_size > _MOST_JSON:
    raise ValueError(f'{name} is compressed')  # Keras stores arrays as they are; no bombs
  return archive.read(entry)


def _check_layers(path: pathlib.Path, config: str | bytes) -> None:
  """Checks that no layer is code of its maker's, which would have a part in what it computes."""
  try:
    layers = json.loads(config).get('config', {}).get('layers', ())
    kinds = {layer['class_name'] for layer in layers}
  except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
    raise UserError(f'{path} is damaged: its configuration cannot be read.') from error
  if 'Lambda' in kinds:
    raise UserError(
      f'{path} has a Lambda layer: code, which is not run, so that the network would be another. '
      'Save the weights of a model without one.'
    )


def _arrays(file: Any) -> Iterator[tuple[str, Any]]:
  """Yields the data sets of a file, by the names of their layers and arrays."""
  root = dict(_items(file)).get('model_weights', file)
  for where, group in _groups(root, ''):
    data = {name: item for name, item in _items(group) if _is_data(item)}
    if where.endswith('/vars'):  # Keras 3 counts, and keeps the name beside
      kind = where.split('/')[-2]
      layer = group.attrs.get('name', kind)
      names = _names(kind, len(data))
      found = {names[int(i)]: x for i, x in data.items() if i.isdigit() and int(i) < len(names)}
    else:
      layer = where.strip('/').rpartition('/')[2]
      found = data
    for name, x in found.items():
      name = re.sub(r':\d+$', '', name).replace('depthwise_kernel', 'kernel')
      yield f'{layer}/{name}', x


def _names(kind: str, count: int) -> tuple[str, ...]:
  short = {'conv': 'conv', 'dense': 'dense', 'normalization': 'norm'}
  names = next((_COUNTED[v] for k, v in short.items() if k in kind), ())
  return names[1:] if names[:1] == ('gamma',) and count == 3 else names


def _groups(group: Any, path: str) -> Iterator[tuple[str, Any]]:
  yield path, group
  for name, item in _items(group):
    # Its optimizer has arrays of the same names.
    if not _is_data(item) and (path or 'optimizer' not in name) and path.count('/') < 8:
      yield from _groups(item, f'{path}/{name}')


def _items(group: Any) -> Iterator[tuple[str, Any]]:
  """Yields what is in the file itself; links may lead to any other."""
  import h5py

  for name in group:
    if isinstance(group.get(name, getlink=True), h5py.HardLink):
      yield name, group[name]


def _is_data(item: Any) -> bool:
  return hasattr(item, 'shape')


def _as_float(name: str, data: Any) -> np.ndarray:
  size = data.size * data.dtype.itemsize
  if data.is_virtual or data.external or data.id.get_storage_size() < size:
    raise ValueError(f'{name} is not in the file as it is')
  if data.dtype.kind != 'f':
    raise ValueError(f'{name} is {data.dtype}, not an array of floating-point numbers')
  return np.asarray(data, np.float32)


def _renumbered(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  numbers: dict[str, set[int]] = {}
  matches = {name: _NUMBERED.fullmatch(name.partition('/')[0]) for name in arrays}
  for numbered in filter(None, matches.values()):
    numbers.setdefault(numbered[1], set()).add(int(numbered[2] or 0))
  places = {kind: {n: i for i, n in enumerate(sorted(of))} for kind, of in numbers.items()}
  renamed = {}
  for name, x in arrays.items():
    if match := matches[name]:
      name = f'{match[1]}_{places[match[1]][int(match[2] or 0)]}/{name.partition("/")[2]}'
    renamed[name] = x
  return renamed
