"""The figure of the time that networks take to answer, with SE beside without."""

import pathlib
from collections.abc import Sequence
from typing import Any

from senet_jax.reporting import look

# By framework and whether it is with SE.
_COLOURS = {
  ('senet_jax', False): look.BLUE,
  ('senet_jax', True): look.VERMILION,
  ('torch', False): look.SKY,
  ('torch', True): look.ORANGE,
}
# A bar with its label, in inches.
_BAR, _HEIGHT = 0.42, 3.2


def draw(rows: Sequence[dict[str, Any]], path: pathlib.Path, title: str) -> None:
  """Draws the milliseconds an image of each network beside its twin's, a panel for each batch.

  Args:
    rows: of `latency.measure`: the bars are medians, the lines from the 10th to the 90th
      percentile, the numbers what SE adds.
    path: of the PNG.
    title: above it.
  """
  batches = list(dict.fromkeys(row['batch_size'] for row in rows))
  names = list(dict.fromkeys(row['network'].removeprefix('se_') for row in rows))
  kinds = [k for k in _COLOURS if any((row['framework'], row['se']) == k for row in rows)]
  width = max(6.0, 1.5 + _BAR * len(names) * (len(kinds) + 1))
  figure = look.canvas(min(width, 12), _HEIGHT * len(batches), title)
  share = 0.8 / len(kinds)
  panels = figure.subplots(len(batches), 1, squeeze=False)[:, 0]
  for axes, batch in zip(panels, batches, strict=True):
    for i, kind in enumerate(kinds):
      bars = [r for r in rows if r['batch_size'] == batch and (r['framework'], r['se']) == kind]
      places = [names.index(r['network'].removeprefix('se_')) for r in bars]
      _draw_bars(axes, bars, [p + (i - (len(kinds) - 1) / 2) * share for p in places], share)
    axes.set(ylabel='ms an image', title=f'batch {batch}')
    axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 5 else 0)
    axes.margins(y=0.15)
    axes.grid(axis='y', alpha=0.3)
    axes.set_axisbelow(True)
  figure.legend(
    *panels[0].get_legend_handles_labels(),
    loc='outside lower center',
    ncols=len(kinds),
    frameon=False,
  )
  look.save(figure, path)


def _draw_bars(axes: Any, rows: list[dict[str, Any]], places: list[float], width: float) -> None:
  """Draws the rows of one framework, with or without SE."""
  batch, kind = rows[0]['batch_size'], (rows[0]['framework'], rows[0]['se'])
  quantiles = [[r['ms_per_batch'][key] / batch for key in ('p10', 'median', 'p90')] for r in rows]
  _, median, high = zip(*quantiles, strict=True)
  around = [(m - lo, hi - m) for lo, m, hi in quantiles]
  label = f'{kind[0]}, {"with" if kind[1] else "without"} SE'
  colour, lines = _COLOURS[kind], list(zip(*around, strict=True))
  axes.bar(places, median, 0.92 * width, color=colour, label=label, yerr=lines, ecolor='0.3')
  for place, row, top in zip(places, rows, high, strict=True):
    if row['se_percent']:
      text = f'{row["se_percent"]["median"]:+.1f} %'
      axes.annotate(text, (place, top), (0, 2), textcoords='offset points', ha='center', fontsize=8)
