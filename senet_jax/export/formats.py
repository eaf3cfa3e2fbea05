"""The formats, one module each, and what a module of a format has."""

import contextlib
import importlib
import importlib.util
import pathlib
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from senet_jax.errors import UserError, one_of
from senet_jax.export.card import Card
from senet_jax.export.graph import Graph

NAMES = ('stablehlo', 'onnx', 'savedmodel', 'tflite')
# An open file: from images, in its layout, to its outputs by name.
Call = Callable[[np.ndarray], dict[str, np.ndarray]]


class Format(Protocol):
  """A module of this package that has the name of its format.

  Attributes:
    LAYOUT: of the images in its files, `NCHW` or `NHWC`.
    ANY_BATCH: whether a file can take any number of images.
    CARD_INSIDE: whether `write` puts the card into the file; otherwise it goes beside.
    LIBRARIES: modules that writing and running take.
  """

  LAYOUT: str
  ANY_BATCH: bool
  CARD_INSIDE: bool
  LIBRARIES: tuple[str, ...]

  def write(self, graph: Graph, path: pathlib.Path, card: Card) -> None:
    """Writes a file, or a directory."""

  def is_one(self, path: pathlib.Path) -> bool:
    """Returns whether a file looks like one of the format."""

  def read_card(self, path: pathlib.Path) -> Card:
    """Returns the card of a file; raises UserError if it has none."""

  def opened(self, path: pathlib.Path) -> Call:
    """Opens a file in its own runtime, in this process."""

  def run(self, path: pathlib.Path, batches: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
    """Returns the outputs of a file for batches of images `[N, S, S, 3]`, in its own runtime."""


def in_layout(images: np.ndarray, layout: str) -> np.ndarray:
  """Returns a view of images `[N, H, W, C]` that has the axes in the order of a layout."""
  return images.transpose(0, 3, 1, 2) if layout == 'NCHW' else images


def load(name: str) -> Format:
  """Returns the format `name`, with its libraries there.

  Raises:
    UserError: there is none, or a library is not installed.
  """
  one_of('format', name, NAMES)
  module = importlib.import_module(f'senet_jax.export.{name}')
  for library in module.LIBRARIES:
    require(library, f'format={name}')
  return module


# The extras that bring libraries; the others have the name of their package.
_EXTRAS = {'flatbuffers': 'export', 'onnx': 'export', 'onnxruntime': 'export',
           'tensorflow': 'tensorflow'}  # fmt: skip


def require(library: str, what: str) -> None:
  """Checks that a library is installed.

  Raises:
    UserError: it is not; the message names what brings it.
  """
  if importlib.util.find_spec(library) is None:
    package = f"'senet_jax[{_EXTRAS[library]}]'" if library in _EXTRAS else library
    raise UserError(f'{what} needs {library}, which is not installed: pip install {package}.')


@contextlib.contextmanager
def runnable(path: pathlib.Path, errors: tuple[type[Exception], ...]) -> Iterator[None]:
  """Says in one line which file it is that a runtime cannot open or run.

  Args:
    path: of the file.
    errors: that the runtime raises.

  Raises:
    UserError: the runtime raised one.
  """
  try:
    yield
  except errors as error:
    raise UserError(f'{path} cannot be run: {" ".join(str(error).split())[:200]}') from error


def versions(module: Format) -> dict[str, str]:
  """Returns the versions of the libraries of a format that `load` returned."""
  return {library: str(importlib.import_module(library).__version__)
          for library in module.LIBRARIES}  # fmt: skip


def of(path: pathlib.Path) -> str:
  """Returns the name of the format that a file has.

  Raises:
    UserError: there is no such file, or it is of no format.
  """
  if not path.exists():
    raise UserError(f'{path} does not exist; give a file that senet export wrote.')
  for name in NAMES:
    if importlib.import_module(f'senet_jax.export.{name}').is_one(path):
      return name
  raise UserError(f'{path} is none of {", ".join(NAMES)}; give a file that senet export wrote.')
