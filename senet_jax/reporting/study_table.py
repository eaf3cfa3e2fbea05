"""The table of a study: errors over the seeds, and how each row is to its baseline."""

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from senet_jax.config.study import Study
from senet_jax.reporting import statistics, tables

COLUMNS = ('row', 'test error, %', 'published, %', 'difference', 'to the baseline', 'parameters',
           'MACs', 'time a run')  # fmt: skip
# What the rows are judged by where that is no error.
_JUDGED_BY = {'ap': 'AP, %'}


def columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
  """Returns the heads of the columns of these rows."""
  metric = rows[0].get('metric') if rows else None
  return (COLUMNS[0], _JUDGED_BY.get(metric or '', COLUMNS[1]), *COLUMNS[2:])


def compare(rows: Sequence[dict[str, Any]], baselines: Mapping[str, str | None]) -> None:
  """Adds `mean`, `std`, `difference` to what was published, and how a row is to its baseline.

  `to_baseline` is the mean difference over the seeds that both have, in points, and `p` that of a
  paired t-test, two-sided, None below two seeds or if all differences are equal.

  Args:
    rows: what `training.studies.results` returns; they are changed.
    baselines: the row that each is compared with, by name.
  """
  by_name = {row['row']: row['errors'] for row in rows}
  for row in rows:
    errors = list(row['errors'].values())
    row |= {'mean': None, 'std': None}
    if errors:
      found = statistics.mean_std(errors)
      row |= {key: found[key] for key in ('mean', 'std')}
    both = errors and row['comparable'] and row['published'] is not None
    row['difference'] = row['mean'] - row['published'] if both else None
    base = by_name.get(baselines[row['row']], {})
    row['baseline'] = baselines[row['row']]
    row['to_baseline'], p = statistics.paired(row['errors'], base) or (None, math.nan)
    row['p'] = None if math.isnan(p) else p


def markdown(study: Study, rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the table with its title, its note and, below it, the runs that failed."""
  table = tables.markdown(columns(rows), cells(rows))
  seeds = ', '.join(map(str, study.seeds))
  baselines = dict.fromkeys(f'`{row.baseline}`' for row in study.rows if row.baseline)
  compared = (
    f' "To the baseline": points to {", ".join(baselines)}, mean over the seeds, p of a paired '
    't-test.'
    if baselines
    else ''
  )
  note = f'Seeds {seeds}.{compared} {study.note}'.rstrip()
  failed = [
    f'- `{row["row"]}`, seed {seed} failed: {" ".join(why.split())}'
    for row in rows
    for seed, why in row['failures'].items()
  ]
  parts = [f'**{study.title}**', table, note, *(['\n'.join(failed)] if failed else ())]
  return '\n\n'.join(parts) + '\n'


def csv(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns the cells of the table as CSV."""
  return tables.csv_text(columns(rows), cells(rows))


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
  """Returns the cells of the table, row by row."""
  return [_cells(row) for row in rows]


def _cells(row: Mapping[str, Any]) -> list[str]:
  def number(value: float | None, form: str) -> str:
    return '' if value is None else format(value, form)

  error = 'not run' if row['mean'] is None else f'{row["mean"]:.2f}'
  if row['std'] is not None:
    error += f' ± {row["std"]:.2f} (n = {len(row["errors"])})'
  if row['failures']:
    error = 'failed' if row['mean'] is None else f'{error}, {len(row["failures"])} failed'
  against = number(row['to_baseline'], '+.2f')
  if row['p'] is not None:
    against += f' (p = {row["p"]:.2f})'
  # The median, as one run may have been on a slow machine, or beside others.
  seconds = row['wall_time_s'] and str(
    datetime.timedelta(seconds=round(statistics.spread(row['wall_time_s'])['median']))
  )
  return [
    f'`{row["row"]}`',
    error,
    number(row['published'], '.2f'),
    number(row['difference'], '+.2f'),
    against,
    f'{row["params"]:,}',
    f'{row["macs"]:,}',
    seconds or '',
  ]
