"""Figures of evaluations: precision over recall, and which classes are mixed up."""

import pathlib
from collections.abc import Sequence

import numpy as np

from senet_jax.detection import average_precision, confusion
from senet_jax.reporting import look, pictures

# More classes than this are not to be read.
_MOST_CLASSES = 19


def plot_precision_recall(precision: np.ndarray, path: pathlib.Path, title: str = '') -> None:
  """Draws precision over recall as a PNG, the mean of the classes, at several overlaps.

  Args:
    precision: `average_precision.Precision.precision`, `[10, 101, K]`.
    path: of the picture.
    title: above it.
  """
  figure = look.canvas(6.4, 4.8, title)
  axes = figure.subplots()
  there = precision[..., (precision >= 0).all((0, 1))].mean(-1)
  curves = {
    'IoU 0.5': there[average_precision.IOU_50],
    'IoU 0.75': there[average_precision.IOU_75],
    'IoU 0.9': there[average_precision.IOU_90],
    'IoU 0.5 to 0.95': there.mean(0),
  }
  recall = np.linspace(0, 1, precision.shape[1])
  for (name, curve), colour in zip(curves.items(), look.COLOURS, strict=False):
    label = f'{name}: AP {100 * curve.mean():.1f}'
    axes.plot(recall, curve, color=colour, label=label, linewidth=1.8)
  axes.set(xlabel='recall', ylabel='precision', xlim=(0, 1), ylim=(0, 1.02))
  axes.grid(alpha=0.3)
  figure.legend(loc='outside lower center', ncols=2, frameon=False)
  look.save(figure, path)


def plot_confusion(
  counts: np.ndarray, names: Sequence[str], path: pathlib.Path, title: str = ''
) -> None:
  """Draws the counts of `confusion.confusion` as a PNG, those of the most frequent classes."""
  shown, labels = confusion.most_frequent(counts, names, _MOST_CLASSES)
  look.save(pictures.confusion(shown, labels, title), path)
