"""The figures of section 7.2 of the paper: gates by channel, for classes and within them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from senet_jax.excitation.activations import SATURATED, Block, uniform
from senet_jax.reporting import look

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = (look.BLUE, look.VERMILION, look.GREEN, look.PURPLE, look.SKY, look.ORANGE)
# So that a seventh class, which has the colour of the first, looks different.
_STYLES = ('-', ':', '-.')
_ALL = {'color': 'black', 'linestyle': '--', 'linewidth': 1.6}
_DOTS = {'marker': 'o', 'markersize': 4}
_COLUMNS = 3
# Fewer names of blocks than this have room under an axis.
_NAMES = 60


def classes(
  blocks: Mapping[str, Block],
  labels: Mapping[str, int],
  channels: int,
  title: str,
  limits: tuple[float, float] | None = (0, 1),
) -> 'Figure':
  """Draws the mean gates of classes and of all classes, a panel for each block (figure 6).

  Args:
    blocks: by name.
    labels: of the classes to show, by name.
    channels: to show of each block, with equal distances.
    title: above it.
    limits: of the gates; None: those of the data.
  """
  figure, panels = _panels(blocks, title, limits)
  for axes, block in zip(panels, blocks.values(), strict=True):
    chosen = uniform(block.mean.shape[1], channels)
    for i, (name, label) in enumerate(labels.items()):
      axes.plot(chosen, block.mean[label, chosen], **_line(i), label=name)
    seen = int((block.count > 0).sum())
    axes.plot(chosen, block.all_mean[chosen], **_ALL, label=f'all {seen} classes')
  _legend(figure, panels[0])
  return figure


def within_class(
  blocks: Mapping[str, Block],
  labels: Mapping[str, int],
  channels: int,
  title: str,
  limits: tuple[float, float] | None = (0, 1),
) -> 'Figure':
  """Draws mean and deviation of gates over the images of classes (figure 7), as `classes` does."""
  figure, panels = _panels(blocks, title, limits)
  for axes, block in zip(panels, blocks.values(), strict=True):
    chosen = uniform(block.mean.shape[1], channels)
    std = block.std
    for i, (name, label) in enumerate(labels.items()):
      mean, around = block.mean[label, chosen], std[label, chosen]
      axes.plot(chosen, mean, **_line(i), label=name)
      axes.fill_between(
        chosen, mean - around, mean + around, color=_line(i)['color'], alpha=0.25, linewidth=0
      )
  _legend(figure, panels[0], ', mean ± standard deviation')
  return figure


def separation(
  summaries: Mapping[str, Mapping[str, Any]],
  title: str,
  saturated: tuple[float, float] = SATURATED['sigmoid'],
) -> 'Figure':
  """Draws what the paper observes in the figures above, as numbers for each block.

  Args:
    summaries: of `Block.summary`, by name of the block.
    title: above it.
    saturated: that of `measure`.
  """
  # Numbers that are not known leave a gap.
  columns = {
    key: np.array([np.nan if s[key] is None else s[key] for s in summaries.values()])
    for key in next(iter(summaries.values()))
  }
  names, at = list(summaries), np.arange(len(summaries))
  figure = look.canvas(9, 7.5, title)
  ratio, pattern, ends = figure.subplots(3, 1, sharex=True)
  _draw_ratio(ratio, at, columns)
  _draw_pattern(pattern, at, columns)
  _draw_ends(ends, at, columns, saturated)
  step = -(-len(names) // _NAMES)
  ends.set_xticks(at[::step], names[::step], rotation=90 if len(names) > 10 else 0)
  ends.set_xlim(-0.6, len(names) - 0.4)
  for axes in (ratio, pattern, ends):
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    handles, _ = axes.get_legend_handles_labels()
    axes.legend(
      loc='lower right', bbox_to_anchor=(1, 1), ncols=len(handles), frameon=False, borderaxespad=0
    )
  return figure


def _draw_ratio(axes: Any, at: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
  axes.set_title('are the gates class-specific?', loc='left')
  axes.set_ylabel('variance between /\nwithin classes')
  axes.plot(at, columns['separation'], color=_COLOURS[0], **_DOTS, label='ratio')
  still = at[columns['within_variance'] == 0]
  if still.size:
    axes.plot(still, 0 * still, 'x', color='0.4', clip_on=False, label='the gates do not change')
  axes.set_ylim(bottom=min(0, np.nanmin(columns['separation'], initial=0)))


def _draw_pattern(axes: Any, at: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
  axes.set_title('do classes share a pattern?', loc='left')
  axes.set_ylabel('correlation, gate')
  label = 'correlation of two classes'
  axes.plot(at, columns['agreement'], color=_COLOURS[1], **_DOTS, label=label)
  mean, spread = columns['mean'], columns['spread']
  axes.plot(at, mean, '--', color=_COLOURS[2], **_DOTS, label='mean gate')
  around = {'color': _COLOURS[2], 'alpha': 0.2, 'linewidth': 0}
  axes.fill_between(at, mean - spread, mean + spread, **around, label='± std over channels')
  low, high = axes.get_ylim()
  axes.set_ylim(min(low, 0), max(high, 1.05))


def _draw_ends(
  axes: Any, at: np.ndarray, columns: Mapping[str, np.ndarray], saturated: tuple[float, float]
) -> None:
  axes.set_title('are the gates saturated?', loc='left')
  axes.set(ylabel='share of gates (%)', ylim=(0, 100))
  low, high = 100 * columns['low_share'], 100 * columns['high_share']
  axes.bar(at, low, color=_COLOURS[0], label=f'below {saturated[0]}')
  if np.isfinite(saturated[1]):
    stripes = {'color': _COLOURS[5], 'hatch': '//', 'edgecolor': 'white'}
    axes.bar(at, high, bottom=low, **stripes, label=f'above {saturated[1]}')


def _panels(
  blocks: Mapping[str, Block], title: str, limits: tuple[float, float] | None
) -> tuple['Figure', list[Any]]:
  """Returns a figure with an empty panel for each block, by rows."""
  rows = -(-len(blocks) // _COLUMNS)
  figure = look.canvas(10, 0.9 + 2.4 * rows, title)
  grid = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True)
  panels = list(grid.flat)[: len(blocks)]
  for axes in list(grid.flat)[len(blocks) :]:
    axes.remove()
  for axes, (name, block) in zip(panels, blocks.items(), strict=True):
    axes.set(title=name, xlabel='channel', xlim=(0, block.mean.shape[1] - 1))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
  if limits:
    margin = 0.03 * (limits[1] - limits[0])  # a line at the end is to be seen
    panels[0].set_ylim(limits[0] - margin, limits[1] + margin)  # of all panels
  for axes in grid[:, 0]:
    axes.set_ylabel('activation')
  return figure, panels


def _line(i: int) -> dict[str, Any]:
  """Returns the look of the line of class `i` of those that are shown."""
  style = _STYLES[i // len(_COLOURS) % len(_STYLES)]
  return {'color': _COLOURS[i % len(_COLOURS)], 'linestyle': style, 'linewidth': 1.3}


def _legend(figure: 'Figure', axes: Any, suffix: str = '') -> None:
  """Puts one legend for all panels below them."""
  handles, names = axes.get_legend_handles_labels()
  names = [name + suffix for name in names]
  columns = min(len(names), 6, max(1, 130 // (max(map(len, names)) + 6)))
  figure.legend(handles, names, loc='outside lower center', ncols=columns, frameon=False)
