"""The curves of a run, or of several, as a picture."""

import pathlib
from typing import TYPE_CHECKING, Any

from senet_jax.reporting import look

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = (*look.COLOURS, 'black')
_TRAIN, _EVAL = _COLOURS[:2]
# More of them than this would hide their line.
_DOTS = 30


def plot(records: list[dict[str, Any]], path: pathlib.Path, title: str) -> None:
  """Draws loss and top-1 error over epochs, training and evaluation, as a PNG.

  Args:
    records: of `metrics.jsonl`.
    path: of the picture.
    title: above it.
  """
  figure = look.canvas(9, 3.6, title)
  panels = (('loss', 'loss (nats)', 'log'), ('top1_error', 'top-1 error (%)', 'linear'))
  for axes, (key, label, scale) in zip(figure.subplots(1, 2), panels, strict=True):
    for kind, colour, style, name in (
      ('train', _TRAIN, '--', 'training'),
      ('eval', _EVAL, '-', 'evaluation'),
    ):
      axes.plot(*_points(records, kind, key), style, color=colour, label=name)
    axes.set(xlabel='epoch', ylabel=label, yscale=scale)
    axes.grid(alpha=0.3, which='both')
    axes.legend(frameon=False)
  look.save(figure, path)


def comparison(runs: list[tuple[str, list[dict[str, Any]]]], title: str) -> 'Figure':
  """Top-1 error of several runs over epochs, as in Figure 4 of the paper.

  Networks without SE are dashed, those with it solid and of the same colour. Training is thin;
  evaluations have dots where they are few, as a line of a single one is nothing.

  Args:
    runs: names of the networks, and their `metrics.jsonl`.
    title: above the picture.
  """
  figure = look.canvas(7, 4.2)
  axes = figure.subplots()
  networks = list(dict.fromkeys(name.removeprefix('se_') for name, _ in runs))
  for name, records in runs:
    colour = _COLOURS[networks.index(name.removeprefix('se_')) % len(_COLOURS)]
    style = '-' if name.startswith('se_') else '--'
    training, evaluation = (_points(records, kind, 'top1_error') for kind in ('train', 'eval'))
    axes.plot(*training, style, color=colour, linewidth=0.9, label=f'{name}, training')
    dots = {
      'marker': 'o' if len(evaluation[0]) <= _DOTS else '',
      'markersize': 4.5,
      'markerfacecolor': colour if style == '-' else 'white',
    }
    axes.plot(*evaluation, style, color=colour, linewidth=2.0, label=f'{name}, evaluation', **dots)
  axes.set(xlabel='epoch', ylabel='top-1 error (%)', title=title)
  axes.grid(alpha=0.3)
  axes.legend(frameon=False)
  return figure


def _points(records: list[dict[str, Any]], kind: str, key: str) -> tuple[list, list]:
  chosen = [record for record in records if record['kind'] == kind]
  return [record['epoch'] for record in chosen], [record[key] for record in chosen]
