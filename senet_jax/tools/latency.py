r"""Measures how long networks and their SE twins take to answer: milliseconds a batch and an image.

  python -m senet_jax.tools.latency --models=resnet50,resnext50_32x4d,vgg16_bn --batches=1,16 \
      --output=results/benchmarks/NAME.json --plot=results/benchmarks/NAME.png
  python -m senet_jax.tools.latency --models=resnet50 --against=torch
  python -m senet_jax.tools.latency --models=resnet50,mobilenet_v1 --against=exported
  JAX_PLATFORMS=cpu python -m senet_jax.tools.latency --models=resnet50

Section 4 of the paper (ResNet-50 and SE-ResNet-50 on a CPU: 164 and 167 ms an image) and figure 36
of the student report. The twin of a network is measured even where it is not named. Each answer is
waited for before the next one begins; images and results stay on the device. Networks are measured
in turn. Columns: median, 90th percentile, mean and standard deviation over all runs; se_% is the
time that SE adds, the median over the turns and the 95 % interval of their mean.
"""

import argparse
from typing import Any

from senet_jax import cli, errors
from senet_jax.measure.networks import add_arguments, bench_arguments, networks
from senet_jax.reporting import tables
from senet_jax.reporting.statistics import interval
from senet_jax.storage import files

_COLUMNS = 'network framework batch ms/batch p90 mean ± runs ms/image se_%'
_DTYPES = ('float32', 'bfloat16')


def main(argv: list[str]) -> None:
  """Prints the times, and writes them with --output and draws them with --plot."""
  args = parse(argv)
  from senet_jax.measure import latency, latency_figure
  from senet_jax.measure.cases import Bench

  bench = Bench.create(**bench_arguments(args))
  head = bench.record('time of an inference on a batch on the device', 'latency', argv)
  found = latency.measure(
    bench,
    args.models,
    batches=args.batches,
    dtype=args.dtype,
    repeats=args.repeats,
    seconds=args.seconds,
  )
  tables.print_table(_COLUMNS, [_cells(row) for row in found['rows']])
  for pair in found['over_torch']:
    print(f'{pair["network"]}, batch {pair["batch_size"]}, {pair["runtime"]}: '
          f'{pair["ratio"]["median"]:.2f}x the speed of what PyTorch exports')  # fmt: skip
  if args.output:
    files.write_json(args.output, {**head, **found})
  if args.plot:
    title = f'Inference, {args.dtype}, {head["device"]}'
    latency_figure.draw(found['rows'], args.plot, title)


def parse(argv: list[str]) -> argparse.Namespace:
  """Returns the options of the command."""
  parser = cli.Parser('tools.latency', __doc__)
  add = parser.add_argument
  parser.add_bare('--models', type=networks, help='names of networks, with commas')
  add('--batches', type=cli.numbers, default=(1,), help='images a batch, with commas')
  add('--dtype', default='float32', help='float32 or bfloat16')
  add('--repeats', type=cli.number, default=5, help='turns')
  add('--seconds', type=cli.positive, default=1.0, help='of a network in a turn, about')
  add('--plot', type=cli.new_file, help='also draw the times to this PNG file')
  add_arguments(parser)
  args = parser.parse_args(argv)
  errors.one_of('--dtype', args.dtype, _DTYPES)
  if args.against == 'exported':
    errors.one_of('--dtype', args.dtype, _DTYPES[:1], 'OpenVINO is measured in bfloat16, too.')
  if args.plot and args.plot.suffix != '.png':
    parser.error(f'--plot={args.plot} must end in .png')
  return args


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


if __name__ == '__main__':
  cli.run(main)
