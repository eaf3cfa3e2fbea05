"""The curves of a run as a picture."""

import pathlib
from typing import Any

# Colour-blind safe (Okabe and Ito).
_TRAIN, _EVAL = '#0072B2', '#D55E00'


def plot(records: list[dict[str, Any]], path: pathlib.Path, title: str) -> None:
  """Draws loss and top-1 error over epochs, training and evaluation, as a PNG.

  Args:
    records: of `metrics.jsonl`.
    path: of the picture.
    title: above it.
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.6), layout='constrained')
  FigureCanvasAgg(figure)
  figure.suptitle(title)
  panels = (('loss', 'loss (nats)', 'log'), ('top1_error', 'top-1 error (%)', 'linear'))
  for axes, (key, label, scale) in zip(figure.subplots(1, 2), panels, strict=True):
    for kind, colour, style, name in (
      ('train', _TRAIN, '--', 'training'),
      ('eval', _EVAL, '-', 'evaluation'),
    ):
      points = [(r['epoch'], r[key]) for r in records if r['kind'] == kind]
      axes.plot(*zip(*points, strict=True) if points else ([], []), style, color=colour, label=name)
    axes.set(xlabel='epoch', ylabel=label, yscale=scale)
    axes.grid(alpha=0.3, which='both')
    axes.legend(frameon=False)
  figure.savefig(path, dpi=110)
