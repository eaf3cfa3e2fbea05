"""Files with weights: what is in them, read without executing anything, and new ones."""

import contextlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from senet_jax.errors import UserError
from senet_jax.interop import torch_files
from senet_jax.storage import files

SAFETENSORS, NPZ = '.safetensors', '.npz'
PICKLES = ('.pth', '.pt', '.bin', '.th', '.tar', '.ckpt')  # of torch
SUFFIXES = (SAFETENSORS, NPZ, *PICKLES)


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
    path: of a `.safetensors` file, a `.npz` file, or one that torch saved (`.pth`, `.pt`, `.bin`,
      `.th`, `.pth.tar`, `.ckpt`).

  Returns:
    What is in it, with `torch_files.Tensor` for the tensors of torch, and its metadata, which only
    a `.safetensors` file can have.

  Raises:
    UserError: it is of another kind or damaged; or the package that reads it is not installed.
  """
  path = pathlib.Path(path)
  path.open('rb').close()  # whatever is raised from here on, the file is there
  if path.suffix == SAFETENSORS:
    import safetensors

    with whole(path), safetensors.safe_open(path, framework='np') as file:
      return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
  if path.suffix == NPZ:
    if not zipfile.is_zipfile(path):
      raise UserError(f'{path} is damaged or no {NPZ} file.')
    with whole(path), np.load(path, allow_pickle=False) as file:
      return dict(file), {}
  if path.suffix in PICKLES:
    with whole(path):
      return torch_files.read(path), {}
  raise UserError(f'{path} must end in {", ".join(SUFFIXES)}.')


def write_safetensors(
  path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
  """Writes a `.safetensors` file, whole or not at all."""
  import safetensors.numpy

  # Not its save_file, whose files nobody else may read.
  content = memoryview(safetensors.numpy.save(dict(arrays), dict(metadata)))
  end = 8 + int.from_bytes(content[:8], 'little')
  header = json.loads(bytes(content[8:end]))
  if '__metadata__' in header:  # in another order each time; equal weights are to be equal files
    header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  with files.whole(path) as partial, partial.open('wb') as file:
    file.writelines((len(text).to_bytes(8, 'little'), text, content[end:]))


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[None]:
  """Turns what the libraries raise on a damaged file into a `UserError`."""
  try:
    yield
  except MemoryError as error:
    raise UserError(f'{path} is damaged, or does not fit into memory: {error}') from error
  except UserError:
    raise
  except Exception as error:  # of the many kinds that the libraries raise
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(
      f'{path} is damaged or of another format than its name says: {reason}'
    ) from error
