"""Pictures for people: images with what a network says of them, and which classes it mixes up."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from senet_jax.reporting import look

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# More classes than this leave no room for the counts in their cells.
_COUNTED = 20


def grid(images: Sequence[Any], titles: Sequence[str], columns: int = 6) -> 'Figure':
  """Returns a figure of images, each with its title above it.

  Args:
    images: Pillow images, or uint8 `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, of any sizes.
    titles: one for each.
    columns: images in a row, at most.
  """
  columns = min(columns, len(images))
  rows = math.ceil(len(images) / columns)
  figure = look.canvas(1.5 * columns, 1.8 * rows)
  panels = figure.subplots(rows, columns, squeeze=False).ravel()
  for axes in panels:
    axes.axis('off')
  for axes, image, title in zip(panels, images, titles, strict=False):
    axes.imshow(np.asarray(image).squeeze(), cmap='gray')
    axes.set_title(title, fontsize=8)
  return figure


def confusion(counts: np.ndarray, names: Sequence[str], title: str = '') -> 'Figure':
  """Returns a figure of how often each class was taken for each other.

  Args:
    counts: of images by label (rows) and prediction (columns), `[K, K]`.
    names: of the classes.
    title: above it.
  """
  size = 2.5 + 0.42 * min(len(names), _COUNTED)
  figure = look.canvas(size + 0.6, size, title)
  axes = figure.subplots()
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
  axes.set(xlabel='taken for', ylabel='is')
  if len(names) <= _COUNTED:
    axes.set_xticks(range(len(names)), names, rotation=45, ha='right')
    axes.set_yticks(range(len(names)), names)
    for row, column in zip(*np.nonzero(counts), strict=True):
      colour = 'white' if shares[row, column] > 0.5 else 'black'
      axes.text(column, row, f'{counts[row, column]}', ha='center', va='center', color=colour)
  return figure


def gates(blocks: Mapping[str, np.ndarray], names: Sequence[str], title: str = '') -> 'Figure':
  """Returns a figure of the gates of SE blocks, a panel for each block and a line for each image.

  Args:
    blocks: gates `[N, C]` of each block, by its name.
    names: of the images.
    title: above it.
  """
  columns = min(3, len(blocks))
  rows = math.ceil(len(blocks) / columns)
  figure = look.canvas(3.4 * columns, 0.6 + 2 * rows, title)
  panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
  for axes in panels[len(blocks) :]:
    axes.axis('off')
  for axes, (block, values) in zip(panels, blocks.items(), strict=False):
    for i, (name, row) in enumerate(zip(names, values, strict=True)):
      axes.plot(row, color=look.COLOURS[i % len(look.COLOURS)], linewidth=1.2, label=name)
    axes.set_title(block, fontsize=9)
    axes.set(ylim=(0, 1))
    axes.grid(alpha=0.3)
  handles, labels = panels[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside lower center', ncols=3, frameon=False)
  return figure


def bars(groups: Mapping[str, Mapping[str, float]], label: str) -> 'Figure':
  """Returns a figure of bars side by side, a panel for each group, as their scales may differ.

  Args:
    groups: heights by the name of the bar, by the name of the group.
    label: of the heights.
  """
  figure = look.canvas(3.6 * len(groups), 2.8)
  panels = figure.subplots(1, len(groups), squeeze=False)[0]
  for axes, (name, heights) in zip(panels, groups.items(), strict=True):
    drawn = axes.bar(list(heights), list(heights.values()), color=look.BLUE, width=0.6)
    axes.bar_label(drawn, fmt='%.2f', fontsize=8)
    axes.set(title=name, ylabel=label, ymargin=0.15)
  return figure
