"""The figure of the errors of pruned networks against their parameters."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from senet_jax.reporting import look

# By shape too, not by colour alone.
_STYLES = {
  'gates': {'color': look.BLUE, 'marker': 'o', 'linestyle': '-', 'zorder': 4},
  'magnitude': {'color': look.VERMILION, 'marker': 's', 'linestyle': '--', 'zorder': 3},
  'random': {'color': look.GREEN, 'marker': '^', 'linestyle': ':', 'zorder': 2},
}
_TITLES = {'blocks': 'SE blocks dropped', 'channels': 'share of channels dropped'}


def draw(
  path: pathlib.Path, title: str, whole: Mapping[str, Any], table: Sequence[Mapping[str, Any]]
) -> None:
  """Draws top-1 error against parameters, a panel for SE blocks and one for channels, as a PNG.

  Args:
    path: of the file; it is written whole or not at all.
    title: above it.
    whole: `params` and `top1_error` of the network that nothing is taken from.
    table: rows of tools.prune's JSON: `what` (blocks, channels), `amount`, `by`, and `params` and
      `top1_error` as `mean`, `std` and `n`. Points have the amounts below them.
  """
  kinds = [kind for kind in _TITLES if any(row['what'] == kind for row in table)]
  figure = look.canvas(1 + 4.7 * len(kinds), 4.4, title)
  handles: dict[str, Any] = {}
  for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
    rows = [row for row in table if row['what'] == kind]
    handles |= _panel(axes, whole, rows)
    axes.set(title=_TITLES[kind], xlabel='parameters (% of the whole network)')
    axes.set_ylabel('top-1 error (%)')
    axes.grid(alpha=0.3)
  figure.legend(handles.values(), handles, loc='outside lower center', ncols=4, frameon=False)
  look.save(figure, path)


def _panel(axes: Any, whole: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict:
  """Draws a line for each choice; returns what the legend shows."""
  line = axes.axhline(whole['top1_error'], color='0.35', linewidth=1, zorder=1)
  handles = {'nothing dropped': line}
  for by, style in _STYLES.items():
    mine = [row for row in rows if row['by'] == by]
    if not mine:
      continue
    x = [100 * row['params']['mean'] / whole['params'] for row in mine]
    y = [row['top1_error']['mean'] for row in mine]
    std = [row['top1_error']['std'] for row in mine]
    n = mine[0]['top1_error']['n']
    options = {**style, 'markersize': 5, 'linewidth': 1.4, 'capsize': 3}
    label = by if n == 1 else f'{by}, mean ± std of {n}'
    # Every choice starts at the whole network.
    axes.plot([100, x[0]], [whole['top1_error'], y[0]], **{**style, 'marker': ''}, linewidth=1.4)
    handles[label] = axes.errorbar(x, y, None if n == 1 else std, **options)
    if by == 'gates' or len({row['by'] for row in rows}) == 1:
      # Below all points, where nothing hides them; those that are close in two lines.
      line, before, least = 0, math.inf, 0.04 * (max(x) - min(x))
      for at, row in zip(x, mine, strict=True):
        line, before = (1 - line if before - at < least else 0), at
        axes.annotate(f'{row["amount"]:g}', (at, 0.02 + 0.045 * line),
                      xycoords=axes.get_xaxis_transform(), ha='center', fontsize=8,
                      color=style['color'])  # fmt: skip
  low, high = axes.get_ylim()
  axes.set_ylim(low - 0.12 * (high - low), high)
  axes.invert_xaxis()
  return handles
