"""Parameters and multiply-adds (MACs) of networks, beside the paper's.

  python -m senet_jax.tools.complexity --model=se_resnet50
  python -m senet_jax.tools.complexity --model='*resnet50,*resnext50*' --output=costs.json
  python -m senet_jax.tools.complexity --summary se_resnet50 --se.ratio=8 --se.no-bias
  python -m senet_jax.tools.complexity --paper --output=costs.md

A MAC is one multiply-add of a convolution or a fully connected layer, counted for one image in an
evaluation: an auxiliary head, which only training runs, has parameters and no MACs.
Columns in _g are in units of 1e9, columns in _% are percentages: deviation_% from the paper's MACs
(shown at the published image size and number of classes) and the shares of the SE blocks.
equation_5 is the paper's estimate of se_weights, the weights of the SE blocks without biases.
One network alone is shown by stage too, and with --summary each network by layer.

--paper prints tables 2, 3, 10, 13, 15 and 16 of the paper again, as Markdown, with what we count,
its deviation from what is printed, and the reason where it rounds to something else, as far as one
is known: no choice of elementwise operations (additions of branches, squeeze, scale) fits all rows.
"""

import argparse
import typing

from senet_jax import cli
from senet_jax.storage import files

if typing.TYPE_CHECKING:
  from senet_jax.complexity.report import Table

_FORMATS = ('.json', '.csv', '.md')


def main(argv: list[str]) -> None:
  """Prints what networks cost."""
  args = _parse(argv)
  from senet_jax.complexity import report as report_lib

  if args.paper:
    tables, records = report_lib.paper(_progress)
    value = {'rows': records}
    print(report_lib.markdown(tables), end='')
  else:
    names = report_lib.networks(','.join(args.model).split(','), _se_options(args))
    options = (args.num_classes, args.image_size, args.stride_in, _se_options(args))
    reports = [report_lib.report(name, *options) for name in names]
    tables = report_lib.tables(reports, args.summary)
    models = [report_lib.as_json(report, args.summary) for report in reports]
    value = {'models': models}
    records = [
      {k: v for k, v in m.items() if not isinstance(v, dict | list | tuple)} for m in models
    ]
    for table in tables:
      _print(table)
  suffix = args.output and args.output.suffix
  if suffix == '.json':
    files.write_json(args.output, value)
  elif suffix:
    text = report_lib.csv_text(records) if suffix == '.csv' else report_lib.markdown(tables)
    files.write_text(args.output, text)


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.complexity', __doc__)
  add, missing = parser.add_argument, argparse.SUPPRESS
  parser.add_bare(
    '--model', required=False, action='append', help="names or patterns such as 'se_*', with commas"
  )
  add(
    '--summary',
    nargs='?',
    const='',
    metavar='MODEL',
    help='also list the layers, of MODEL or of what --model names',
  )
  add('--paper', action='store_true', help='the tables of the paper')
  add('--num_classes', type=cli.number, help='outputs of the head (default: as published)')
  add('--image_size', type=cli.number, help='side of the images, in pixels (default: as published)')
  add('--stride_in', help='convolution of a bottleneck with the stride, 1x1 or 3x3')
  add(
    '--se.ratio',
    type=cli.number,
    default=missing,
    help='reduction ratio; the plain networks ignore it',
  )
  add('--se.position', default=missing, help='standard, pre, post, identity or conv3x3')
  add('--se.squeeze', default=missing, help='avg, max or none')
  add('--se.stages', type=_stages, default=missing, help='all, or stages such as 2,3')
  add('--se.no-bias', dest='se.use_bias', action='store_false', default=missing, help='no biases')
  add('--output', type=cli.new_file, help='also write the numbers to this .json, .csv or .md file')
  args = parser.parse_args(argv)
  given = {k for k, v in vars(args).items() if v not in (None, False)} | _se_options(args).keys()
  if args.paper and given - {'paper', 'output'}:
    parser.error('--paper is about the published networks: leave out all options but --output')
  if args.summary:
    args.model = [*(args.model or ()), args.summary]
  args.summary = args.summary is not None
  if not args.paper and not args.model:
    parser.error('one of --model, --summary MODEL and --paper is required')
  if args.output and args.output.suffix not in _FORMATS:
    parser.error(f'--output={args.output} must end in {", ".join(_FORMATS)}')
  return args


def _stages(text: str) -> str | tuple[int, ...]:
  stages = text.split(',')
  if text != 'all' and not all(map(str.isdecimal, stages)):
    raise argparse.ArgumentTypeError(f"{text!r} must be 'all' or stages such as 2,3")
  return text if text == 'all' else tuple(map(int, stages))


def _se_options(args: argparse.Namespace) -> dict[str, typing.Any]:
  return {key[3:]: value for key, value in vars(args).items() if key.startswith('se.')}


def _progress(rows: list) -> typing.Iterable:
  """Goes through rows, and shows on a terminal how far it is."""
  import rich.console
  import rich.progress

  console = rich.console.Console(stderr=True, force_jupyter=False)
  shown = console.is_terminal
  yield from rich.progress.track(
    rows, 'counting', console=console, transient=True, disable=not shown
  )


def _print(table: 'Table') -> None:
  """Prints in columns as wide as they need: a row is one line, for people and for grep."""
  import rich.console
  import rich.table

  from senet_jax.complexity.report import TEXTS

  printed = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
  for name in table.columns.split(', '):
    printed.add_column(name, justify='left' if name in TEXTS else 'right', no_wrap=True)
  for row in table.rows:
    printed.add_row(*(cell or '-' for cell in row))
  console = rich.console.Console(width=1000, markup=False, highlight=False, force_jupyter=False)
  console.print(printed)
  console.print()


if __name__ == '__main__':
  cli.run(main)
