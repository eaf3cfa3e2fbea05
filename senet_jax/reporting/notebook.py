"""A notebook's first lines and figures, and the curves of a run while it trains."""

import io
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax
from PIL import Image

import senet_jax
from senet_jax import runtime
from senet_jax.reporting import curves, look

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = 128


def begin() -> bool:
  """Prints versions and devices; returns whether all is to be small, as on a CPU.

  `SENET_JAX_SMALL=1` or `0` in the environment decides otherwise.
  """
  print(f'senet_jax {senet_jax.__version__}, jax {jax.__version__}, {runtime.describe_devices()}')
  return bool(int(os.environ.get('SENET_JAX_SMALL', jax.default_backend() == 'cpu')))


def show(figure: 'Figure | pathlib.Path', kind: str = 'png') -> None:
  """Shows a figure, or the picture of a path, below the cell.

  Args:
    figure: what to show.
    kind: `png`, or `jpeg`, which is smaller for photos.
  """
  from IPython import display

  display.display(_image(figure, kind))


class LiveCurves:
  """The curves of a run below a notebook's cell, drawn anew with each record that it is given."""

  def __init__(self, title: str, before: Iterable[dict[str, Any]] = ()):
    """Shows the axes.

    Args:
      title: above the curves.
      before: records of the run before it was interrupted.
    """
    from IPython import display

    self._title = title
    self._records = {_key(record): record for record in before}
    self._handle = display.display(self._image(), display_id=True)

  def __call__(self, record: dict[str, Any]) -> None:
    """Draws the curves with one more record; one of the same step is replaced."""
    self._records[_key(record)] = record
    self._handle.update(self._image())

  def _image(self) -> Any:
    records = sorted(self._records.values(), key=lambda record: record['step'])
    return _image(curves.of_run(records, self._title), 'png')


def _key(record: dict[str, Any]) -> tuple[str, int]:
  return record['kind'], record['step']


def _image(figure: 'Figure | pathlib.Path', kind: str) -> Any:
  """Returns a picture for IPython, with few colours if it is a PNG, which makes it a third."""
  from IPython import display

  buffer = io.BytesIO()
  if isinstance(figure, pathlib.Path):
    buffer.write(figure.read_bytes())
  else:
    figure.savefig(buffer, dpi=look.DPI_OF_NOTEBOOKS, format=kind)
  if kind == 'png':
    image = Image.open(buffer).convert('RGB').quantize(_COLOURS, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    image.save(buffer, 'png', optimize=True)
  return display.Image(data=buffer.getvalue(), format=kind)
