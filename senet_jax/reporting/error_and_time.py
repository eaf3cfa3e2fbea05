"""A picture of what a study's errors cost: error against the seconds of training."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from senet_jax.reporting import look

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def figure(title: str, rows: Sequence[Mapping[str, Any]]) -> 'Figure':
  """Returns a picture of the errors of a study over its training time.

  Rows whose names differ in what is behind the last underscore, such as the epochs, make a line.
  Networks with SE, `se_…`, have the colour of those without, which are dashed. Bars are the
  standard deviation over the seeds, where there are several.

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
      lines.setdefault(row['row'].rpartition('_')[0] or row['row'], []).append(row)
  groups = list(dict.fromkeys(name.removeprefix('se_') for name in lines))
  for name, points in lines.items():
    group = name.removeprefix('se_')
    axes.errorbar(
      # Of the fastest seed: the others had less of the machine.
      [min(row['train_time_s']) for row in points],
      [row['mean'] for row in points],
      [row['std'] or 0.0 for row in points],
      linestyle='--' if group == name else '-',
      marker='o',
      markersize=4.5,
      markerfacecolor='white' if group == name else None,
      capsize=3,
      color=look.COLOURS[groups.index(group) % len(look.COLOURS)],
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
