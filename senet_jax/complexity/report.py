"""Tables and records of what networks cost, beside the paper's figures."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from senet_jax import errors
from senet_jax.complexity import paper_costs
from senet_jax.complexity.counts import Complexity, Cost, complexity
from senet_jax.complexity.paper_costs import Comparison
from senet_jax.layers import SEConfig
from senet_jax.models import all_models, create_model, list_models, model_info
from senet_jax.reporting.tables import csv_text as csv_table, markdown as markdown_table

_COLUMNS = (
  'model, image_size, params, batch_stats, macs_g, paper_g, deviation_%, se_params_%, se_macs_%, '
  'se_weights, equation_5'
)
_STAGE_COLUMNS = 'stage, params, macs, se_params, se_params_%, se_macs, se_macs_%'
_LAYER_COLUMNS = 'path, type, output, params, macs'
_PAPER_COLUMNS = 'network, parameters, printed, deviation, MACs, printed, deviation, reason'
_EQUATION_COLUMNS = 'network, SE parameters, without biases, equation 5, deviation, reason'
TEXTS = ('network', 'reason', 'model', 'stage', 'path', 'type', 'output')


@dataclasses.dataclass(frozen=True)
class Report:
  """A network, how it was built, the paper's MACs in units of 1e9, and what it costs."""

  model: str
  image_size: int
  num_classes: int
  overrides: dict[str, Any]
  paper_gflops: float | None
  complexity: Complexity

  @property
  def deviation_percent(self) -> float | None:
    """The deviation of the MACs from the paper's."""
    if self.paper_gflops is None:
      return None
    return 100 * (self.complexity.macs / 1e9 / self.paper_gflops - 1)


@dataclasses.dataclass(frozen=True)
class Table:
  """A title, the names of the columns with commas between them, and the rows."""

  title: str
  columns: str
  rows: list[tuple[str, ...]]


def tables(reports: list[Report], summary: bool) -> list[Table]:
  """Returns tables of the networks, of the stages of one alone, and with `summary` of layers."""
  tables = [Table('Networks', _COLUMNS, [_row(report) for report in reports])]
  for report in reports:
    cost = report.complexity
    if len(reports) == 1:
      stages = {**cost.stages, 'total': cost}
      rows = [_stage_row(name, stages[name]) for name in stages]
      tables.append(Table(f'Stages of {report.model}', _STAGE_COLUMNS, rows))
    if summary:
      rows = [
        (e.path, e.type, 'x'.join(map(str, e.output or ())), f'{e.params:,}', f'{e.macs:,}')
        for e in cost.layers
      ]
      rows.append(('total', report.model, '', f'{cost.params:,}', f'{cost.macs:,}'))
      tables.append(Table(f'Layers of {report.model}', _LAYER_COLUMNS, rows))
  return tables


def networks(patterns: Sequence[str], se: Mapping[str, Any]) -> list[str]:
  """Returns the names of the networks that patterns such as `se_*` stand for, each once.

  Args:
    patterns: names or patterns, as the argument `--model` has them.
    se: options of `SEConfig`.

  Raises:
    UserError: there is no such network, or there are options and no network has SE blocks.
  """
  names = []
  for pattern in patterns:
    matches = list_models(pattern) or all_models(pattern)
    if not matches:
      errors.one_of('--model', pattern, all_models())
    names += matches
  if se and not any(model_info(name).se for name in names):
    raise errors.UserError(
      f'--se.{next(iter(se))} is given and no network of --model has SE blocks; use the names with '
      'se_ in front.'
    )
  return list(dict.fromkeys(names))


def report(
  name: str,
  num_classes: int | None = None,
  image_size: int | None = None,
  stride_in: str | None = None,
  se: dict[str, Any] | None = None,
) -> Report:
  """Counts what a network costs.

  Args:
    name: of the network.
    num_classes: outputs of the head; None is as published.
    image_size: side of the images, in pixels; None is as published.
    stride_in: convolution of a bottleneck with the stride, `1x1` or `3x3`; None is the network's.
    se: options of `SEConfig`; networks without SE ignore them.

  Raises:
    UserError: the network or an option does not exist.
  """
  info = model_info(name)
  overrides: dict[str, Any] = {'stride_in': stride_in} if stride_in else {}
  if info.se and se:
    overrides['se'] = SEConfig(**se)
  num_classes = num_classes or info.num_classes
  image_size = image_size or info.image_size
  published = (num_classes, image_size) == (info.num_classes, info.image_size)
  published &= overrides.get('se', SEConfig()) == SEConfig()
  return Report(
    model=name,
    image_size=image_size,
    num_classes=num_classes,
    overrides=overrides,
    paper_gflops=info.published.get('gflops') if published else None,
    complexity=complexity(create_model(name, num_classes, **overrides), image_size),
  )


def _row(report: Report) -> tuple[str, ...]:
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


def _stage_row(name: str, cost: Cost) -> tuple[str, ...]:
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


def as_json(report: Report, summary: bool) -> dict[str, Any]:
  """Returns a report as a record, with `summary` with its layers."""
  value = dataclasses.asdict(report)
  costs = value.pop('complexity')
  if not summary:
    del costs['layers']
  return {**value, 'deviation_percent': report.deviation_percent, **costs}


def paper(
  progress: Callable[[list[paper_costs.Row]], Iterable[paper_costs.Row]] = iter,
) -> tuple[list[Table], list[dict[str, Any]]]:
  """Returns the paper's tables and equation 5, and what is in them as flat records.

  Args:
    progress: goes through the rows, each of which takes about a second, and shows how far it is.
  """
  comparisons = [paper_costs.compare(row) for row in progress(paper_costs.rows())]
  tables = [
    Table(f'Table {number}', _PAPER_COLUMNS, list(map(_paper_row, members)))
    for number, members in itertools.groupby(comparisons, lambda c: c.row.table)
  ]
  unlike: dict[Any, Comparison] = {}
  for c in comparisons:
    if c.row.se:
      unlike.setdefault((c.row.model, c.row.se), c)
  equation = Table('Equation 5', _EQUATION_COLUMNS, list(map(_equation_row, unlike.values())))
  return [*tables, equation], list(map(_paper_json, comparisons))


def _paper_row(c: Comparison) -> tuple[str, ...]:
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


def _equation_row(c: Comparison) -> tuple[str, ...]:
  return (
    f'table {c.row.table}, {c.row.label}',
    f'{c.cost.se_params:,}',
    f'{c.cost.se_weights:,}',
    f'{c.cost.equation_5:,}',
    _signed(100 * (c.cost.se_weights / c.cost.equation_5 - 1)),
    c.equation_5_reason,
  )


def _paper_json(c: Comparison) -> dict[str, Any]:
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


def markdown(tables: Sequence[Table]) -> str:
  """Returns tables as Markdown, numbers to the right."""
  parts = []
  for table in tables:
    names = table.columns.split(', ')
    numbers = [name for name in names if name not in TEXTS]
    parts.append(f'## {table.title}\n\n{markdown_table(names, table.rows, right=numbers)}\n\n')
  return ''.join(parts)


def csv_text(records: Sequence[dict[str, Any]]) -> str:
  """Returns flat records as CSV."""
  return csv_table(records[0], (record.values() for record in records))
