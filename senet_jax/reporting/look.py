"""The look that all figures share: colours, an empty figure, and how it becomes a file."""

import pathlib
import textwrap
from typing import TYPE_CHECKING, Literal

from senet_jax.storage import files

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# Safe for the colour-blind (Okabe and Ito 2008), without the yellow, which is faint on white.
BLUE, VERMILION, GREEN, PURPLE = '#0072B2', '#D55E00', '#009E73', '#CC79A7'
ORANGE, SKY = '#E69F00', '#56B4E9'
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
_DPI = 110
DPI_OF_NOTEBOOKS = 80  # their pictures are kept in the repository
_LETTERS = 11  # of a title, an inch


def canvas(
  width: float,
  height: float,
  title: str = '',
  layout: Literal['constrained'] | None = 'constrained',
) -> 'Figure':
  """Returns an empty figure of a size in inches that needs no display."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout=layout)
  FigureCanvasAgg(figure)
  if title:
    figure.suptitle(textwrap.fill(title, int(_LETTERS * width)))
  return figure


def save(figure: 'Figure', path: pathlib.Path) -> None:
  """Writes a figure as a PNG, whole or not at all."""
  with files.whole(path) as partial:
    figure.savefig(partial, dpi=_DPI, format='png')
