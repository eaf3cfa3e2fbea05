"""A picture of what a study's errors cost: error against the seconds of training."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from senet_jax.reporting import look

if TYPE_CHECKING:
  from matplotlib.figure import Figure


_MARKERS = 'os^Dv'


def _line(row: str) -> str:
  """Returns the name of the line that a row is a point of."""
  return row.rpartition('_')[0] or row


def figure(title: str, rows: Sequence[Mapping[str, Any]]) -> 'Figure':
  """Returns a picture of the errors of a study over its training time.

  Rows whose names differ in what is behind the last underscore, such as the epochs, make a line.
  Those without a baseline are dashed; what is compared with them has their colour, and markers of
  its own. Bars are the standard deviation over the seeds, where there are several.

  Args:
    title: above it.
    rows: what `training.studies.results` returns, after `study_table.compare`; those without a
      finished run are left out.
  """
  drawn = look.canvas(7, 4.4, title)
  axes = drawn.subplots()
  lines: dict[str, list[Mapping[str, Any]]] = {}
  for row in rows:
    if row['mean'] is not None and row['train_time_s']:
      lines.setdefault(_line(row['row']), []).append(row)
  bases = {name: _line(points[0]['baseline'] or points[0]['row']) for name, points in lines.items()}
  compared: dict[str, list[str]] = {base: [] for base in bases.values()}
  for name, base in bases.items():
    if name != base:
      compared[base].append(name)
  for name, points in lines.items():
    base, plain = bases[name], name == bases[name]
    number = 0 if plain else compared[base].index(name)
    axes.errorbar(
      # Of the fastest seed: the others had less of the machine.
      [min(row['train_time_s']) for row in points],
      [row['mean'] for row in points],
      [row['std'] or 0.0 for row in points],
      linestyle='--' if plain else '-',
      marker=_MARKERS[number % len(_MARKERS)],
      markersize=4.5,
      markerfacecolor='white' if plain else None,
      capsize=3,
      color=look.COLOURS[list(compared).index(base) % len(look.COLOURS)],
      label=name,
    )
  axes.set(xlabel='training, seconds', ylabel='test error (%)')
  axes.grid(alpha=0.3)
  if lines:
    axes.legend(frameon=False)
  return drawn


def draw(path: pathlib.Path, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes that picture as a PNG."""
  look.save(figure(title, rows), path)
