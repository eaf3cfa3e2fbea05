"""Mean gates over a data set, beside which those of a photo say something."""

import os
import pathlib
from collections.abc import Mapping

import numpy as np

from senet_jax.errors import UserError
from senet_jax.interop import shipped, storage

_MEAN = '/all_mean'  # of a block, in the file that tools.activations writes


def read(path: str | os.PathLike, blocks: Mapping[str, int]) -> dict[str, np.ndarray]:
  """Returns the mean gates of each SE block, `[C]` float32, in network order.

  Args:
    path: the `activations.npz` of `tools.activations`.
    blocks: channels of each SE block of the network.

  Raises:
    UserError: the network has no SE, or the file is damaged, or of another network.
  """
  if not blocks:
    raise UserError(f'the network has no SE blocks; leave --mean_gates={path} out.')
  if pathlib.Path(path).suffix != storage.NPZ:
    raise UserError(f'--mean_gates={path} must end in {storage.NPZ}.')
  arrays, _ = storage.read(path)
  found = {}
  for name, channels in blocks.items():
    mean = arrays.get(name + _MEAN)
    if mean is None or mean.shape != (channels,) or mean.dtype.kind != 'f':
      raise UserError(
        f'--mean_gates={path} has no {channels} means of {name}; give the activations.npz that '
        'tools.activations has written for this network.'
      )
    if not np.isfinite(mean).all():
      raise UserError(f'--mean_gates={path} has means of {name} that are no numbers.')
    found[name] = mean.astype(np.float32)
  return found


def of_shipped(name: str | os.PathLike) -> pathlib.Path | None:
  """Returns the file of mean gates of a network in the package; None for any other network."""
  path = shipped.folder() / f'{name}_gates.npz'
  return path if shipped.is_name(name) and path.is_file() else None
