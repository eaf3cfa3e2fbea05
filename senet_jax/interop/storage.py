"""Files with weights: what is in them, read without executing anything, and new ones."""

import contextlib
import os
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from senet_jax.errors import UserError
from senet_jax.storage import files

SAFETENSORS, NPZ, PICKLES = '.safetensors', '.npz', ('.pth', '.pt', '.bin')


@contextlib.contextmanager
def needs(package: str, purpose: str) -> Iterator[None]:
  """Makes a `UserError` of a failed import from an optional package.

  Raises:
    UserError: it is not installed; the message says how to install it.
  """
  try:
    yield
  except ImportError as error:
    raise UserError(
      f"{package} is not installed, which is needed {purpose}: pip install 'senet_jax[interop]'."
    ) from error


def read(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, str]]:
  """Reads a file of arrays or tensors by name.

  Args:
    path: of a `.safetensors` file, a `.npz` file, or one that torch saved (`.pth`, `.pt`, `.bin`).

  Returns:
    What is in it, and its metadata, which only a `.safetensors` file can have.

  Raises:
    UserError: it is of another kind, damaged, or holds other things than weights; or the package
      that reads it is not installed.
  """
  path = pathlib.Path(path)
  path.open('rb').close()  # whatever is raised from here on, the file is there
  if path.suffix == SAFETENSORS:
    with needs('safetensors', f'to read {path}'):
      import safetensors
    with _whole(path), safetensors.safe_open(path, framework='np') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
  if path.suffix == NPZ:
    if not zipfile.is_zipfile(path):
      raise UserError(f'{path} is damaged or no {NPZ} file.')
    with _whole(path), np.load(path, allow_pickle=False) as file:
      return dict(file), {}
  if path.suffix in PICKLES:
    with needs('torch', f'to read {path}'):
      import torch
    # Of a plain pickle torch warns before it refuses it, which is not the user's line to read.
    with _whole(path), warnings.catch_warnings(action='ignore'):
      return torch.load(path, map_location='cpu', weights_only=True), {}
  raise UserError(f'{path} must end in {", ".join((SAFETENSORS, NPZ, *PICKLES))}.')


def write_safetensors(
  path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
  """Writes a `.safetensors` file, whole or not at all.

  Raises:
    UserError: safetensors is not installed.
  """
  with needs('safetensors', f'to write {path}'):
    import safetensors.numpy
  with files.whole(path) as partial:
    # Not its save_file, whose files nobody else may read.
    partial.write_bytes(safetensors.numpy.save(dict(arrays), dict(metadata)))


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[None]:
  """Turns what the libraries raise on a damaged file into a `UserError`."""
  try:
    yield
  except MemoryError as error:
    raise UserError(f'{path} is damaged, or does not fit into memory: {error}') from error
  except pickle.UnpicklingError as error:
    raise UserError(
      f'{path} holds Python objects besides weights, or is damaged; it was not loaded, as such '
      'objects can run any code. Save module.state_dict() alone.'
    ) from error
  except Exception as error:  # of the many kinds that the three libraries raise
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(
      f'{path} is damaged or of another format than its name says: {reason}'
    ) from error
