"""Parameters and multiply-adds (MACs) of networks, beside the paper's.

  python -m senet_jax.tools.complexity --model=se_resnet50
  python -m senet_jax.tools.complexity --model='*resnet50,*resnext50*' --output=costs.json
  python -m senet_jax.tools.complexity --model=se_resnet50 --se.ratio=8 --se.no-bias --summary

A MAC is one multiply-add of a convolution or a fully connected layer, counted for one image.
Columns in _g are in units of 1e9, columns in _% are percentages: deviation_% from the paper's MACs
(shown at the published image size and number of classes) and the shares of the SE blocks.
equation_5 is the paper's estimate of se_weights, the weights of the SE blocks without biases.
One network alone is shown by stage too, and with --summary each network by layer.
"""

import argparse
import dataclasses
import typing

from senet_jax import cli, errors, files

if typing.TYPE_CHECKING:
  from senet_jax.analysis.complexity import Complexity, Cost

_COLUMNS = (
  'model image_size params batch_stats macs_g paper_g deviation_% se_params_% se_macs_% '
  'se_weights equation_5'
)
_STAGE_COLUMNS = 'stage params macs se_params se_params_% se_macs se_macs_%'
_LAYER_COLUMNS = 'path type output params macs'


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
    """Of the MACs from the paper's."""
    if self.paper_gflops is None:
      return None
    return 100 * (self.complexity.macs / 1e9 / self.paper_gflops - 1)


def main(argv: list[str]) -> None:
  """Prints what networks cost."""
  args = _parse(argv)
  reports = [_report(name, args) for name in _names(args)]
  _print_table(_COLUMNS, [_row(report) for report in reports])
  for report in reports:
    cost = report.complexity
    if len(reports) == 1:
      stages = {**cost.stages, 'total': cost}
      _print_table(_STAGE_COLUMNS, [_stage_row(name, stages[name]) for name in stages])
    if args.summary:
      rows = [
        (e.path, e.type, 'x'.join(map(str, e.output or ())), f'{e.params:,}', f'{e.macs:,}')
        for e in cost.layers
      ]
      total = ('total', report.model, '', f'{cost.params:,}', f'{cost.macs:,}')
      _print_table(_LAYER_COLUMNS, [*rows, total])
  if args.output:
    files.write_json(args.output, {'models': [_json(report, args.summary) for report in reports]})


def _parse(argv: list[str]) -> argparse.Namespace:
  parser = cli.Parser('tools.complexity', __doc__)
  add, missing = parser.add_argument, argparse.SUPPRESS
  add(
    '--model', required=True, action='append', help="names or patterns such as 'se_*', with commas"
  )
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
  add('--summary', action='store_true', help='also list the layers')
  parser.add_output()
  return parser.parse_args(argv)


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
  from senet_jax.analysis.complexity import complexity
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


def _print_table(columns: str, rows: list[tuple[str, ...]]) -> None:
  """Prints `rows` in columns as wide as they need: a row is one line, for people and for grep."""
  import rich.console
  import rich.table

  names = columns.split()
  table = rich.table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
  for i, name in enumerate(names):
    numeric = i > 0 and name not in ('type', 'output')
    table.add_column(name, justify='right' if numeric else 'left', no_wrap=True)
  for row in rows:
    table.add_row(*(cell or '-' for cell in row))
  console = rich.console.Console(width=1000, markup=False, highlight=False)
  console.print(table)
  console.print()


if __name__ == '__main__':
  cli.run(main)
