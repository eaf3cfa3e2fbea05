r"""Runs the experiments of a table, those that are missing, and prints it.

  python -m senet_jax.tools.study --study=configs/studies/ratio.py:small --workdir=runs/ratio \
      --output=results/studies/ratio_small.json

A study is a list of configurations, with seeds and what was published. Each run is one of
`senet_jax.main` with its workdir in WORKDIR/ROW/seedK, so the same command goes on wherever it was
stopped. --shard=1/4 makes the first quarter of the runs, for four machines with one WORKDIR;
--table makes none. A row that fails is shown as such, and the others go on. --output writes the
table as JSON, and as .csv and .md beside it. --rows and --seeds take a part of a study,
--config.FIELD=VALUE changes a field of all its configurations, and --together=N makes N runs at a
time, each a process of its own, which small networks on a large GPU gain from. Exit status: 0 when
all runs are there, 1 if one failed or is missing, 75 after SIGTERM, with a table of what is there.
"""

import dataclasses
import datetime
import functools
import json
import math
import pathlib
import time
import traceback
from typing import TYPE_CHECKING, Any

from senet_jax import cli
from senet_jax.errors import UserError, one_of
from senet_jax.reporting import published, statistics, tables
from senet_jax.storage import files

if TYPE_CHECKING:
  from senet_jax.config.study import Row, Study

_COLUMNS = ('row', 'test error, %', 'published, %', 'difference', 'to the baseline', 'parameters',
            'MACs', 'time a run')  # fmt: skip


def main(argv: list[str]) -> int:
  """Runs the command with the arguments `argv`; returns the exit status."""
  parser = cli.Parser('tools.study', __doc__)
  parser.add_argument('--study', required=True, help='FILE.py or FILE.py:small')
  parser.add_argument('--workdir', required=True, type=pathlib.Path)
  parser.add_argument('--shard', default='1/1', help='I/N: the I-th of N parts of the runs')
  parser.add_argument('--rows', type=cli.words, help='only these, with commas')
  parser.add_argument('--seeds', type=cli.words, help='instead of those of the study, with commas')
  parser.add_argument('--together', type=cli.number, default=1, help='runs at a time')
  parser.add_argument('--table', action='store_true', help='only print the table')
  parser.add_argument('--note', default='', help='below the table: what a reader should know')
  parser.add_output()
  args, overrides = parser.parse_with_overrides(argv)

  # Late, so that a missing package is one line.
  from senet_jax.config import reading

  study = _part(reading.load_study(args.study), args.rows, args.seeds, tuple(overrides))
  study = dataclasses.replace(study, note=f'{study.note} {args.note}'.strip())
  _check(study, args.study)
  finished = True
  if not args.table:
    mine = [(row, seed) for row in study.rows for seed in study.seeds][_shard(args.shard)]
    run_all = _run_all if args.together == 1 else functools.partial(_run_together, args.together)
    finished = run_all(mine, args.workdir)
  rows = [_results(row, study.seeds, args.workdir) for row in study.rows]
  compare(rows, {row.name: row.baseline for row in study.rows})
  text = markdown(study, rows)
  print(text, end='')
  if args.output:
    _write(args.output, study, rows, text, argv)
  if not finished:
    return cli.PREEMPTED
  missing = [row for row in rows if len(row['errors']) < len(study.seeds)]
  failed = any(row['failures'] for row in rows)
  return int(failed or bool(missing and args.shard == '1/1'))


def _part(
  study: 'Study',
  rows: tuple[str, ...] | None,
  seeds: tuple[str, ...] | None,
  overrides: tuple[str, ...],
) -> 'Study':
  """Returns the rows and seeds that are wanted, with fields of all configurations changed."""
  known = [row.name for row in study.rows]
  for name in rows or ():
    one_of('--rows', name, known)
  for seed in seeds or ():
    if not seed.isdecimal():
      raise UserError(f'--seeds={seed} must be whole numbers, with commas, such as 0,1,2.')
  wanted = [row for row in study.rows if row.name in (rows or known)]
  left = {row.name for row in wanted}
  return dataclasses.replace(
    study,
    rows=tuple(
      dataclasses.replace(
        row,
        overrides=(*row.overrides, *overrides),
        baseline=row.baseline if row.baseline in left else None,
      )
      for row in wanted
    ),
    seeds=tuple(map(int, seeds)) if seeds else study.seeds,
  )


def _check(study: 'Study', path: str) -> None:
  """Builds every configuration, so that a mistake in the last one is found first."""
  from senet_jax import config
  from senet_jax.config import reading

  names = [row.name for row in study.rows]
  if len(set(names)) < len(names):
    raise UserError(f'--study={path}: two rows have one name: {", ".join(names)}.')
  for row in study.rows:
    if row.baseline not in (None, *names):
      raise UserError(f'--study={path}: baseline={row.baseline!r} is no row: {", ".join(names)}.')
    config.check(reading.load(row.config, list(row.overrides)))


def _shard(text: str) -> slice:
  number, _, count = text.partition('/')
  if not (number.isdecimal() and count.isdecimal() and 0 < int(number) <= int(count)):
    raise UserError(f'--shard={text} must be I/N with I from 1 to N, such as 1/4.')
  return slice(int(number) - 1, None, int(count))


# --- runs ----------------------------------------------------------------------------------------


def _workdir(root: pathlib.Path, row: 'Row', seed: int) -> pathlib.Path:
  return root / row.name / f'seed{seed}'


def _failure(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the file that says why a run failed."""
  return workdir.with_suffix('.error')


def _summary(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns the summary of a run that came to its end; None of others.

  One that is damaged is set aside: the run writes it anew from its last checkpoint.
  """
  path = workdir / 'summary.json'
  try:
    summary = json.loads(path.read_bytes())
  except FileNotFoundError:
    return None
  except (ValueError, RecursionError):
    summary = None
  if isinstance(summary, dict) and summary.keys() >= {'final', 'best', 'steps'}:
    return summary
  aside = path.with_name(f'{path.name}.damaged')
  path.replace(aside)
  print(f'{path} is damaged; it is kept as {aside.name}, and written anew.', flush=True)
  return None


def _last(workdir: pathlib.Path) -> dict[str, Any] | None:
  """The last evaluation of a run that goes on later."""
  from senet_jax.training.progress import read_records

  records = [r for r in read_records(workdir / 'metrics.jsonl') if r['kind'] == 'eval']
  return records[-1] if records else None


def _run_all(runs: list[tuple['Row', int]], root: pathlib.Path) -> bool:
  """Makes the runs that are missing; returns False after SIGTERM."""
  import jax

  from senet_jax import runtime
  from senet_jax.config import reading
  from senet_jax.training.loop import train

  runtime.use_compilation_cache()
  for number, (row, seed) in enumerate(runs, 1):
    workdir = _workdir(root, row, seed)
    if _summary(workdir):
      continue
    left = _time_left(runs[number - 1 :], runs, root)
    print(f'--- run {number} of {len(runs)}: {row.name}, seed {seed}{left}', flush=True)
    _failure(workdir).unlink(missing_ok=True)
    try:
      config = reading.load(row.config, [*row.overrides, f'--config.seed={seed}'])
      if not train(config, workdir):
        return False
    except Exception as error:  # the other rows go on, whatever it is
      if not isinstance(error, UserError):
        traceback.print_exc()
      print(f'{row.name}, seed {seed} failed: {error}', flush=True)
      workdir.parent.mkdir(parents=True, exist_ok=True)
      files.write_text(_failure(workdir), str(error) or type(error).__name__)
    if row is not runs[min(number, len(runs) - 1)][0]:
      jax.clear_caches()  # or the programs of all rows stay in memory
  return True


def _run_together(count: int, runs: list[tuple['Row', int]], root: pathlib.Path) -> bool:
  """Makes the runs that are missing, `count` at a time; returns False after SIGTERM."""
  from senet_jax.runtime.children import Children, last_lines

  waiting = [(row, seed) for row, seed in runs if not _summary(_workdir(root, row, seed))]
  running: dict[tuple[str, int], Any] = {}
  share = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'}  # or the first takes most of a GPU's memory
  with Children() as children:
    while (waiting and not children.stopping) or running:
      while waiting and len(running) < count and not children.stopping:
        row, seed = waiting.pop(0)
        workdir = _workdir(root, row, seed)
        _failure(workdir).unlink(missing_ok=True)
        print(f'--- {row.name}, seed {seed}: {workdir}.log', flush=True)
        command = ('main', f'--config={row.config}', *row.overrides, f'--config.seed={seed}',
                   f'--workdir={workdir}')  # fmt: skip
        running[row.name, seed] = (workdir, children.start(command, _log(workdir), share))
      for (name, seed), (workdir, child) in list(running.items()):
        status = children.wait(child, 0)
        if status is None:
          continue
        del running[name, seed]
        if status not in (0, cli.PREEMPTED):
          why = (last_lines(_log(workdir), 1) or [f'status {status}'])[0].removeprefix(
            'senet_jax: '
          )
          print(f'{name}, seed {seed} failed: {why}', flush=True)
          files.write_text(_failure(workdir), why)
      time.sleep(0.5)
  return not children.stopping


def _log(workdir: pathlib.Path) -> pathlib.Path:
  """Returns the file to which a run that is a process of its own prints."""
  return workdir.with_suffix('.log')


def _time_left(to_do: list[tuple['Row', int]], runs: list, root: pathlib.Path) -> str:
  done = [s['wall_time_s'] for row, seed in runs if (s := _summary(_workdir(root, row, seed)))]
  if not done:
    return ''
  missing = sum(_summary(_workdir(root, row, seed)) is None for row, seed in to_do)
  left = datetime.timedelta(seconds=round(missing * statistics.mean_std(done)['mean']))
  return f'; all {missing} that are missing: about {left}'


# --- table ---------------------------------------------------------------------------------------


def _results(row: 'Row', seeds: tuple[int, ...], root: pathlib.Path) -> dict[str, Any]:
  """Returns what is known of a row: `errors` in percent by seed, cost, what was published."""
  from senet_jax.complexity.counts import complexity
  from senet_jax.config import reading
  from senet_jax.workdir import network

  workdirs = {seed: _workdir(root, row, seed) for seed in seeds}
  summaries = {seed: s for seed, workdir in workdirs.items() if (s := _summary(workdir))}
  failures = {seed: _failure(workdir) for seed, workdir in workdirs.items()}
  config = reading.load(row.config, list(row.overrides))
  # Where a run ends when it gets no better, its best checkpoint is what was published, too.
  chosen = 'best' if config.early_stopping.patience else 'final'
  cost = complexity(network.build_model(config), network.input_size(config))
  return {
    'row': row.name,
    'command': ' '.join([f'python -m senet_jax.main --config={row.config}', *row.overrides]),
    'errors': {seed: s[chosen]['top1_error'] for seed, s in summaries.items()},
    'unfinished': {
      s: last for s, w in workdirs.items() if s not in summaries and (last := _last(w))
    },
    'failures': {s: path.read_text() for s, path in failures.items() if path.exists()},
    'published': published.error(pathlib.Path(), f'--config={row.published or row.config}'),
    'comparable': row.published is None,
    'params': cost.params,
    'macs': cost.macs,
    'wall_time_s': [s['wall_time_s'] for s in summaries.values()],
    'images_per_second': {seed: s.get('images_per_second') for seed, s in summaries.items()},
    'best': {seed: s['best']['top1_error'] for seed, s in summaries.items() if s.get('best')},
    'devices': sorted({s['device'] for s in summaries.values() if 'device' in s}),
    'params_sha256': {seed: s['params_sha256'] for seed, s in summaries.items()},
  }


def compare(rows: list[dict[str, Any]], baselines: dict[str, str | None]) -> None:
  """Adds `mean`, `std`, `difference` to what was published, and how a row is to its baseline.

  `to_baseline` is the mean difference over the seeds that both have, in points, and `p` that of a
  paired t-test, two-sided, None below two seeds or if all differences are equal.
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


def markdown(study: 'Study', rows: list[dict[str, Any]]) -> str:
  """The table, with title and note."""
  table = tables.markdown(_COLUMNS, [_cells(row) for row in rows])
  seeds = ', '.join(map(str, study.seeds))
  baselines = dict.fromkeys(f'`{row.baseline}`' for row in study.rows if row.baseline)
  compared = (
    f' "To the baseline": points to {", ".join(baselines)}, mean over the seeds, p of a paired '
    't-test.'
    if baselines
    else ''
  )
  return f'**{study.title}**\n\n{table}\n\nSeeds {seeds}.{compared} {study.note}'.rstrip() + '\n'


def _cells(row: dict[str, Any]) -> list[str]:
  def number(value: float | None, form: str) -> str:
    return '' if value is None else format(value, form)

  error = 'not run' if row['mean'] is None else f'{row["mean"]:.2f}'
  if row['std'] is not None:
    error += f' ± {row["std"]:.2f} (n = {len(row["errors"])})'
  if row['failures']:
    error += f'; failed: {next(iter(row["failures"].values()))}'
  against = number(row['to_baseline'], '+.2f')
  if row['p'] is not None:
    against += f' (p = {row["p"]:.2f})'
  seconds = row['wall_time_s'] and str(
    datetime.timedelta(seconds=round(statistics.mean_std(row['wall_time_s'])['mean']))
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


def _write(
  path: pathlib.Path, study: 'Study', rows: list[dict[str, Any]], text: str, argv: list[str]
) -> None:
  from senet_jax.workdir import summary

  path.parent.mkdir(parents=True, exist_ok=True)
  head = summary.record_head(study.title, 'study', argv)
  files.write_json(path, {**head, 'note': study.note, 'rows': rows})
  files.write_text(path.with_suffix('.md'), text)
  text = tables.csv_text(_COLUMNS, [_cells(row) for row in rows])
  files.write_text(path.with_suffix('.csv'), text)


if __name__ == '__main__':
  cli.run(main)
