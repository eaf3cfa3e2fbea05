r"""Measures how long networks and their SE twins take to answer: milliseconds a batch and an image.

  python -m senet_jax.tools.latency --models=resnet50,resnext50_32x4d,vgg16_bn --batches=1,16 \
      --output=results/benchmarks/NAME.json --plot=results/benchmarks/NAME.png
  python -m senet_jax.tools.latency --models=resnet50 --against=torch
  JAX_PLATFORMS=cpu python -m senet_jax.tools.latency --models=resnet50

Section 4 of the paper (ResNet-50 and SE-ResNet-50 on a CPU: 164 and 167 ms an image) and figure 36
of the student report. The twin of a network is measured even where it is not named. Each answer is
waited for before the next one begins; images and results stay on the device. Networks are measured
in turn. Columns: median, 90th percentile, mean and standard deviation over all runs; se_% is the
time that SE adds, the median over the turns and the 95 % interval of their mean.
"""

import argparse
import pathlib
import statistics
import typing
from collections.abc import Sequence
from typing import Any

from senet_jax import cli, errors
from senet_jax.measure.networks import Network, add_arguments, networks
from senet_jax.reporting import look, tables
from senet_jax.reporting.statistics import interval, mean_std
from senet_jax.storage import files

if typing.TYPE_CHECKING:
  from senet_jax.measure.timing import Timing

_COLUMNS = 'network framework batch ms/batch p90 mean ± runs ms/image se_%'
_DTYPES = ('float32', 'bfloat16')
# By framework and whether it is with SE.
_COLOURS = {
  ('senet_jax', False): look.BLUE,
  ('senet_jax', True): look.VERMILION,
  ('torch', False): look.SKY,
  ('torch', True): look.ORANGE,
}
# A bar with its label, in inches.
_BAR, _HEIGHT = 0.42, 3.2


def main(argv: list[str]) -> None:
  """Prints the times, and writes them with --output and draws them with --plot."""
  args = _parse(argv)
  from senet_jax.measure import cases, timing as timing_lib
  from senet_jax.workdir.network import check_model

  wanted = _with_twins(args.models)
  bench = cases.Bench.create(args.devices, args.image_size, args.against, args.torch_compile)
  groups = [
    bench.cases(wanted, mode='inference', dtype=args.dtype, batch_size=size)
    for size in args.batches
  ]
  for case in groups[0]:
    check_model(case.config)
  found = {
    **bench.record('time of an inference on a batch on the device', 'latency', argv),
    'not_in_torch': bench.not_in_torch(wanted),
    'rows': [],
    'out_of_memory': [],
  }
  for group in groups:
    measured, too_large = bench.measure(group, args.repeats, args.seconds, each=True)
    taxes = {a: b for kind, a, b in cases.pairs(measured) if kind == 'se_tax'}
    for case, (workload, timing) in measured.items():
      row = {**bench.describe(case), **_times(timing, case.config.batch_size)}
      row['compile_s'] = workload.compile_s
      plain = measured[taxes[case]][1] if case in taxes else None
      row['se_percent'] = timing_lib.added_percent(timing, plain) if plain else None
      found['rows'].append(row)
    found['out_of_memory'] += [bench.describe(case) for case in too_large]
    del measured  # the memory of its steps
  if not found['rows']:
    raise errors.UserError('out of memory with every network; use smaller --batches.')
  tables.print_table(_COLUMNS, [_cells(row) for row in found['rows']])
  if args.output:
    files.write_json(args.output, found)
  if args.plot:
    plot(found['rows'], args.plot, f'Inference, {args.dtype}, {found["device"]}')


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.latency', __doc__)
  add = parser.add_argument
  parser.add_bare('--models', type=networks, help='names of networks, with commas')
  add('--batches', type=cli.numbers, default=(1,), help='images a batch, with commas')
  add('--dtype', default='float32', help='float32 or bfloat16')
  add('--repeats', type=cli.number, default=5, help='turns')
  add('--seconds', type=cli.positive, default=1.0, help='of a network in a turn, about')
  add('--plot', type=pathlib.Path, help='also draw the times to this PNG file')
  add_arguments(parser)
  args = parser.parse_args(argv)
  errors.one_of('--dtype', args.dtype, _DTYPES)
  if args.plot and args.plot.suffix != '.png':
    parser.error(f'--plot={args.plot} must end in .png')
  return args


def _with_twins(given: Sequence[Network]) -> list[Network]:
  """Each network with its twin, the one without SE first."""
  from senet_jax.measure import throughput

  found = []
  for network in given:
    twin = throughput.twin(network.name)
    names = sorted({network.name, twin or network.name}, key=len)
    for name in names:
      kept = network if name == network.name else Network(name, network.without_se.changes)
      found.append(kept)
  return list(dict.fromkeys(found))


def _times(timing: 'Timing', batch_size: int) -> dict[str, Any]:
  times = [1000 * seconds for turn in timing.turns for seconds in turn]
  deciles = statistics.quantiles(times, n=10, method='inclusive') if len(times) > 1 else times * 9
  return {
    'ms_per_batch': {
      'median': statistics.median(times),
      'p10': deciles[0],
      'p90': deciles[-1],
      **mean_std(times),
      'turns': [1000 * seconds for seconds in timing.per_turn],
    },
    'ms_per_image': statistics.median(times) / batch_size,
  }


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
  ms = row['ms_per_batch']
  return (
    row['network'],
    row['framework'],
    f'{row["batch_size"]}',
    f'{ms["median"]:.2f}',
    f'{ms["p90"]:.2f}',
    f'{ms["mean"]:.2f}',
    '-' if ms['std'] is None else f'{ms["std"]:.2f}',
    f'{ms["n"]}',
    f'{row["ms_per_image"]:.2f}',
    _tax(row['se_percent']),
  )


def _tax(percent: dict[str, Any] | None) -> str:
  """Returns what SE adds, with the 95 % interval of its mean over the turns."""
  if percent is None:
    return '-'
  if percent['n'] == 1:
    return f'{percent["median"]:+.1f} (one turn)'
  low, high = interval(percent['values'])
  return f'{percent["median"]:+.1f} ({low:+.1f} to {high:+.1f})'


def plot(rows: Sequence[dict[str, Any]], path: pathlib.Path, title: str) -> None:
  """Draws the milliseconds an image of each network beside its twin's, a panel for each batch.

  Args:
    rows: of this command's JSON: the bars are medians, the lines from the 10th to the 90th
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


if __name__ == '__main__':
  cli.run(main)
