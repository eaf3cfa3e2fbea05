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
import csv
import dataclasses
import io
import itertools
import pathlib
import typing

from senet_jax import cli, errors
from senet_jax.storage import files

if typing.TYPE_CHECKING:
  from senet_jax.complexity.counts import Complexity, Cost
  from senet_jax.complexity.paper_costs import Comparison

_COLUMNS = (
  'model, image_size, params, batch_stats, macs_g, paper_g, deviation_%, se_params_%, se_macs_%, '
  'se_weights, equation_5'
)
_STAGE_COLUMNS = 'stage, params, macs, se_params, se_params_%, se_macs, se_macs_%'
_LAYER_COLUMNS = 'path, type, output, params, macs'
_PAPER_COLUMNS = 'network, parameters, printed, deviation, MACs, printed, deviation, reason'
_EQUATION_COLUMNS = 'network, SE parameters, without biases, equation 5, deviation, reason'
_TEXTS = ('network', 'reason', 'model', 'stage', 'path', 'type', 'output')
_FORMATS = ('.json', '.csv', '.md')


@dataclasses.dataclass(frozen=True)
class _Report:
  """A network, how it was built, the paper's MACs in units of 1e9, and what it costs."""

  model: str
  image_size: int
  num_classes: int
  overrides: dict[str, typing.Any]
  paper_gflops: float | None
  complexity: 'Complexity'

  @property
  def deviation_percent(self) -> float | None:
    """The deviation of the MACs from the paper's."""
    if self.paper_gflops is None:
      return None
    return 100 * (self.complexity.macs / 1e9 / self.paper_gflops - 1)


@dataclasses.dataclass(frozen=True)
class _Table:
  """A title, the names of the columns with commas between them, and the rows."""

  title: str
  columns: str
  rows: list[tuple[str, ...]]


def main(argv: list[str]) -> None:
  """Prints what networks cost."""
  args = _parse(argv)
  if args.paper:
    tables, records = _paper()
    value = {'rows': records}
    print(_markdown(tables), end='')
  else:
    reports = [_report(name, args) for name in _names(args)]
    tables = _tables(reports, args.summary)
    models = [_json(report, args.summary) for report in reports]
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
    files.write_text(args.output, _csv(records) if suffix == '.csv' else _markdown(tables))


def _tables(reports: list[_Report], summary: bool) -> list[_Table]:
  """The networks; the stages of one alone; with `summary` the layers of each."""
  tables = [_Table('Networks', _COLUMNS, [_row(report) for report in reports])]
  for report in reports:
    cost = report.complexity
    if len(reports) == 1:
      stages = {**cost.stages, 'total': cost}
      rows = [_stage_row(name, stages[name]) for name in stages]
      tables.append(_Table(f'Stages of {report.model}', _STAGE_COLUMNS, rows))
    if summary:
      rows = [
        (e.path, e.type, 'x'.join(map(str, e.output or ())), f'{e.params:,}', f'{e.macs:,}')
        for e in cost.layers
      ]
      rows.append(('total', report.model, '', f'{cost.params:,}', f'{cost.macs:,}'))
      tables.append(_Table(f'Layers of {report.model}', _LAYER_COLUMNS, rows))
  return tables


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.complexity', __doc__)
  add, missing = parser.add_argument, argparse.SUPPRESS
  add('--model', action='append', help="names or patterns such as 'se_*', with commas")
  add(
    '--summary',
    nargs='?',
    const='',
    metavar='MODEL',
    help='also list the layers, of MODEL or of what --model names',
  )
  add('--paper', action='store_true', help='the tables of the paper')
  add('--num_classes', type=_positive, help='outputs of the head (default: as published)')
  add('--image_size', type=_positive, help='side of the images, in pixels (default: as published)')
  add('--stride_in', help='convolution of a bottleneck with the stride, 1x1 or 3x3')
  add(
    '--se.ratio',
    type=_positive,
    default=missing,
    help='reduction ratio; the plain networks ignore it',
  )
  add('--se.position', default=missing, help='standard, pre, post, identity or conv3x3')
  add('--se.squeeze', default=missing, help='avg, max or none')
  add('--se.stages', type=_stages, default=missing, help='all, or stages such as 2,3')
  add('--se.no-bias', dest='se.use_bias', action='store_false', default=missing, help='no biases')
  add('--output', type=pathlib.Path, help='also write the numbers to this .json, .csv or .md file')
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


def _positive(text: str) -> int:
  if not text.isdecimal() or int(text) < 1:
    raise argparse.ArgumentTypeError(f'{text!r} must be an integer of at least 1')
  return int(text)


def _stages(text: str) -> str | tuple[int, ...]:
  stages = text.split(',')
  if text != 'all' and not all(map(str.isdecimal, stages)):
    raise argparse.ArgumentTypeError(f"{text!r} must be 'all' or stages such as 2,3")
  return text if text == 'all' else tuple(map(int, stages))


def _names(args: argparse.Namespace) -> list[str]:
  """The networks that `--model` stands for."""
  from senet_jax.models import list_models, model_info

  names = []
  for pattern in ','.join(args.model).split(','):
    matches = list_models(pattern)
    if not matches:
      errors.one_of('--model', pattern, list_models())
    names += matches
  if _se_options(args) and not any(model_info(name).se for name in names):
    raise errors.UserError(
      f'--se.{next(iter(_se_options(args)))} is given and no network of --model has SE blocks; '
      'use the names with se_ in front.'
    )
  return list(dict.fromkeys(names))


def _se_options(args: argparse.Namespace) -> dict[str, typing.Any]:
  return {key[3:]: value for key, value in vars(args).items() if key.startswith('se.')}


def _report(name: str, args: argparse.Namespace) -> _Report:
  from senet_jax.complexity.counts import complexity
  from senet_jax.layers import SEConfig
  from senet_jax.models import create_model, model_info

  info = model_info(name)
  overrides = {'stride_in': args.stride_in} if args.stride_in else {}
  if info.se and _se_options(args):
    overrides['se'] = SEConfig(**_se_options(args))
  num_classes = args.num_classes or info.num_classes
  image_size = args.image_size or info.image_size
  published = (num_classes, image_size) == (info.num_classes, info.image_size)
  return _Report(
    model=name,
    image_size=image_size,
    num_classes=num_classes,
    overrides=overrides,
    paper_gflops=info.published.get('gflops') if published else None,
    complexity=complexity(create_model(name, num_classes, **overrides), image_size),
  )


def _row(report: _Report) -> tuple[str, ...]:
  cost, paper = report.complexity, report.paper_gflops
  return (
    report.model,
    f'{report.image_size}',
    f'{cost.params:,}',
    f'{cost.batch_stats:,}',
    f'{cost.macs / 1e9:.4f}',
    '-' if paper is None else f'{paper:.2f}',
    '-' if paper is None else f'{report.deviation_percent:+.2f}',
    _percent(cost.se_params, cost.params),
    _percent(cost.se_macs, cost.macs),
    f'{cost.se_weights:,}',
    f'{cost.equation_5:,}',
  )


def _stage_row(name: str, cost: 'Cost') -> tuple[str, ...]:
  return (
    name,
    f'{cost.params:,}',
    f'{cost.macs:,}',
    f'{cost.se_params:,}',
    _percent(cost.se_params, cost.params),
    f'{cost.se_macs:,}',
    _percent(cost.se_macs, cost.macs),
  )


def _percent(part: int, whole: int) -> str:
  return f'{100 * part / max(whole, 1):.2f}'


def _json(report: _Report, summary: bool) -> dict[str, typing.Any]:
  value = dataclasses.asdict(report)
  costs = value.pop('complexity')
  if not summary:
    del costs['layers']
  return {**value, 'deviation_percent': report.deviation_percent, **costs}


def _paper() -> tuple[list[_Table], list[dict[str, typing.Any]]]:
  """The paper's tables and equation 5, and what is in them as flat records."""
  from senet_jax.complexity import paper_costs

  comparisons = [paper_costs.compare(row) for row in paper_costs.rows()]
  tables = [
    _Table(f'Table {number}', _PAPER_COLUMNS, list(map(_paper_row, members)))
    for number, members in itertools.groupby(comparisons, lambda c: c.row.table)
  ]
  unlike = {}
  for c in comparisons:
    if c.row.se:
      unlike.setdefault((c.row.model, c.row.se), c)
  equation = _Table('Equation 5', _EQUATION_COLUMNS, list(map(_equation_row, unlike.values())))
  return [*tables, equation], list(map(_paper_json, comparisons))


def _paper_row(c: 'Comparison') -> tuple[str, ...]:
  unit, digits = (1e6, '.0f') if c.row.in_millions else (1e9, '.2f')
  name = 'M' if c.row.in_millions else 'G'
  return (
    c.row.label,
    f'{c.cost.params:,}',
    '' if c.row.params is None else f'{c.row.params / 1e6:.1f} M',
    _signed(c.params_deviation_percent),
    f'{c.cost.macs:,}',
    '' if c.row.macs is None else f'{c.row.macs / unit:{digits}} {name}',
    _signed(c.macs_deviation_percent),
    '; '.join(c.reasons),
  )


def _signed(percent: float | None) -> str:
  return '' if percent is None else f'{percent:+.2f} %'


def _equation_row(c: 'Comparison') -> tuple[str, ...]:
  return (
    f'table {c.row.table}, {c.row.label}',
    f'{c.cost.se_params:,}',
    f'{c.cost.se_weights:,}',
    f'{c.cost.equation_5:,}',
    _signed(100 * (c.cost.se_weights / c.cost.equation_5 - 1)),
    c.equation_5_reason,
  )


def _paper_json(c: 'Comparison') -> dict[str, typing.Any]:
  row, cost = c.row, c.cost
  return {
    'table': row.table,
    'row': row.label,
    'model': row.model,
    'se': ' '.join(f'{key}={value}' for key, value in row.se_options.items()),
    'image_size': c.image_size,
    'printed_params': row.params,
    'params': cost.params,
    'params_deviation_percent': c.params_deviation_percent,
    'batch_stats': cost.batch_stats,
    'printed_macs': row.macs,
    'macs': cost.macs,
    'macs_deviation_percent': c.macs_deviation_percent,
    'squeezed_elements': cost.squeezed_elements,
    'se_params': cost.se_params,
    'se_weights': cost.se_weights,
    'equation_5': cost.equation_5,
    'reasons': '; '.join(c.reasons),
  }


def _markdown(tables: list[_Table]) -> str:
  lines = []
  for table in tables:
    names = table.columns.split(', ')
    align = ['---' if name in _TEXTS else '---:' for name in names]
    rows = [f'| {" | ".join(cells)} |' for cells in (names, align, *table.rows)]
    lines += [f'## {table.title}', '', *rows, '']
  return '\n'.join([*lines, ''])


def _csv(records: list[dict[str, typing.Any]]) -> str:
  text = io.StringIO()
  writer = csv.DictWriter(text, records[0], lineterminator='\n')
  writer.writeheader()
  writer.writerows(records)
  return text.getvalue()


def _print(table: _Table) -> None:
  """Prints in columns as wide as they need: a row is one line, for people and for grep."""
  import rich.console
  import rich.table

  printed = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
  for name in table.columns.split(', '):
    justify = 'left' if name in _TEXTS else 'right'
    printed.add_column(name, justify=justify, no_wrap=True)
  for row in table.rows:
    printed.add_row(*(cell or '-' for cell in row))
  console = rich.console.Console(width=1000, markup=False, highlight=False)
  console.print(printed)
  console.print()


if __name__ == '__main__':
  cli.run(main)
