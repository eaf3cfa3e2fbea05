"""The runs of a study: which are there, those that are missing made, and what they came to."""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from senet_jax import cli, config as config_lib, runtime
from senet_jax.complexity.counts import complexity
from senet_jax.config import reading
from senet_jax.config.study import Row, Study
from senet_jax.errors import UserError, one_of
from senet_jax.models import CLASSIFICATION
from senet_jax.reporting import published, statistics
from senet_jax.runtime.children import Children, last_lines
from senet_jax.storage import files
from senet_jax.training import loop, tasks
from senet_jax.training.plan import Plan
from senet_jax.workdir import network, summary
from senet_jax.workdir.records import read_records

_PACKAGE = pathlib.Path(__file__).parents[1]  # which has the configurations, too


def part(
  study: Study,
  rows: Sequence[str] | None,
  seeds: Sequence[str] | None,
  overrides: Sequence[str],
) -> Study:
  """Returns the rows and seeds that are wanted, with fields of all configurations changed.

  Args:
    study: the whole of it.
    rows: names of rows; None: all.
    seeds: instead of those of the study; None: its own.
    overrides: `--config.field=value`, which come after those of each row.

  Raises:
    UserError: there is no such row, or a seed is no whole number.
  """
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


@dataclasses.dataclass(frozen=True)
class StudyRun:
  """One run of a study.

  Attributes:
    row: the row that it belongs to.
    seed: its seed.
    workdir: where it is, `ROW/seedK` below that of the study.
    record: the directory of what is kept of it elsewhere, such as in a repository; None: nothing.
  """

  row: Row
  seed: int
  workdir: pathlib.Path
  record: pathlib.Path | None = None

  def __str__(self) -> str:
    return f'{self.row.name}, seed {self.seed}'

  @property
  def overrides(self) -> tuple[str, ...]:
    """Returns the flags that make its configuration of that of its file."""
    return (*self.row.overrides, f'--config.seed={self.seed}')

  @property
  def log(self) -> pathlib.Path:
    """Returns the file to which it prints when it is a process of its own."""
    return self.workdir.with_suffix('.log')

  @property
  def failure(self) -> pathlib.Path:
    """Returns the file that says why it failed."""
    return self.workdir.with_suffix('.error')

  def config(self) -> ConfigDict:
    """Returns its configuration."""
    return reading.load(self.row.config, list(self.overrides))

  def summary(self) -> dict[str, Any] | None:
    """Returns its summary; None before its end, or if the file is damaged: it is made anew."""
    found = self._finished()
    return found and found[1]

  def last_evaluation(self) -> dict[str, Any] | None:
    """Returns the last record of an evaluation, None before the first."""
    records = [r for r in read_records(self.workdir / 'metrics.jsonl') if r['kind'] == 'eval']
    return records[-1] if records else None

  def train_time(self, measured: Callable[[ConfigDict], float] | None = None) -> float | None:
    """Returns the seconds of training alone; None before its end, or if no rate is known.

    They are taken from the median of the logged rates, which other programs that ran beside it for
    a while do not change, or where there is no log from the mean of the whole run.

    Args:
      measured: images per second of a configuration, instead.
    """
    found = self._finished()
    if not found or 'examples_seen' not in found[1]:
      return None
    directory, known = found
    if measured:
      return round(known['examples_seen'] / measured(self.config()), 2)
    records = read_records(directory / 'metrics.jsonl')
    rates = [r['images_per_second'] for r in records if r.get('images_per_second')]
    rate = statistics.spread(rates)['median'] if rates else known.get('images_per_second')
    return round(known['examples_seen'] / rate, 2) if rate else None

  def _finished(self) -> tuple[pathlib.Path, dict[str, Any]] | None:
    for directory in filter(None, (self.workdir, self.record)):
      with contextlib.suppress(UserError):
        return directory, summary.read(directory)
    return None

  def fails(self, why: str) -> None:
    """Prints why it failed, and keeps it for the table."""
    files.write_text(self.failure, why)
    cli.say(f'{self} failed: {why}')


def runs_of(
  study: Study, root: pathlib.Path, records: pathlib.Path | None = None
) -> list[StudyRun]:
  """Returns the runs of a study, row by row.

  Args:
    study: the table.
    root: the directory of their workdirs.
    records: a directory laid out like `root` with the `summary.json` of finished runs, which are
      not made again.
  """
  names = [(row, seed, f'{row.name}/seed{seed}') for row in study.rows for seed in study.seeds]
  return [StudyRun(row, seed, root / name, records and records / name) for row, seed, name in names]


def check(study: Study, path: str) -> None:
  """Builds every configuration, so that a mistake in the last one is found first.

  Raises:
    UserError: two rows have one name, a baseline is no row, or a configuration is not usable.
  """
  names = [row.name for row in study.rows]
  if len(set(names)) < len(names):
    raise UserError(f'--study={path}: two rows have one name: {", ".join(names)}.')
  for row in study.rows:
    if row.baseline not in (None, *names):
      raise UserError(f'--study={path}: baseline={row.baseline!r} is no row: {", ".join(names)}.')
    config_lib.check(reading.load(row.config, list(row.overrides)))


def check_runs(runs: Sequence[StudyRun]) -> None:
  """Checks network, batch, data and classes of the runs before the first of them.

  Runs on the same data open it once.

  Raises:
    UserError: one of them could not begin; the message names it.
  """
  opened: dict[str, int] = {}
  first: dict[str, StudyRun] = {}
  for run in runs:
    first.setdefault(run.row.name, run)
  for run in first.values():
    try:
      config = run.config()
      task = tasks.task_of(config)
      loop.check(task)
      facts = (config.data.to_dict(), config.model.num_classes, config.batch_size)
      key = json.dumps(facts, sort_keys=True)
      if key not in opened:
        opened[key] = task.open(runtime.data_mesh()).train.split.num_examples
      Plan.create(config, opened[key])
    except UserError as error:
      raise UserError(f'{run} cannot begin, and nothing was run: {error}') from error


def make(runs: Sequence[StudyRun], stop: runtime.Preemption) -> bool:
  """Makes the runs that are missing, one after the other; returns False if it was stopped.

  One that fails is noted as such, and the others go on.

  Args:
    runs: in their order.
    stop: says whether to save and stop.
  """
  runtime.use_compilation_cache()
  for number, run in enumerate(runs, 1):
    if run.summary():
      continue
    if stop.noticed:
      return False
    cli.say(f'--- run {number} of {len(runs)}: {run}{_time_left(runs, number)}')
    run.failure.unlink(missing_ok=True)
    try:
      if not loop.train(run.config(), run.workdir, stop=stop):
        return False
    except UserError as error:
      run.fails(str(error))
    except Exception as error:  # the other rows go on, whatever it is
      traceback.print_exc()
      run.fails(str(error) or type(error).__name__)
    if run.row is not runs[min(number, len(runs) - 1)].row:
      jax.clear_caches()  # or the programs of all rows stay in memory
  return True


def share_devices() -> None:
  """Lets this process and those that it starts take of a GPU's memory only what they need."""
  os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'


def make_together(count: int, runs: Sequence[StudyRun]) -> bool:
  """Makes the runs that are missing, each a process of its own; returns False if it was stopped.

  Args:
    count: of processes at a time.
    runs: in their order.
  """
  waiting = [run for run in runs if not run.summary()]
  running: dict[StudyRun, Any] = {}
  with Children() as children:
    while (waiting and not children.stopping) or running:
      while waiting and len(running) < count and not children.stopping:
        run = waiting.pop(0)
        run.failure.unlink(missing_ok=True)
        cli.say(f'--- {run}: {run.log}')
        command = ('main', f'--config={run.row.config}', *run.overrides, f'--workdir={run.workdir}')
        running[run] = children.start(command, run.log)
      for run, child in list(running.items()):
        status = children.wait(child, 0)
        if status is None:
          continue
        del running[run]
        if status not in (0, cli.PREEMPTED):
          last = last_lines(run.log, 1) or [f'status {status}']
          run.fails(last[0].removeprefix('senet_jax: '))
      time.sleep(0.5)
  return not children.stopping


def _time_left(runs: Sequence[StudyRun], number: int) -> str:
  """Returns how long the runs from `number` on take that are missing, judged by those made."""
  summaries = [run.summary() for run in runs]
  done = [summary['wall_time_s'] for summary in summaries if summary]
  if not done:
    return ''
  missing = summaries[number - 1 :].count(None)
  left = datetime.timedelta(seconds=round(missing * statistics.mean_std(done)['mean']))
  return f'; all {missing} that are missing: about {left}'


def _published(row: Row) -> float | None:
  """Returns the published error of a row, whose configuration is here or in the package."""
  named = f'--config={row.published or row.config}'
  found = (published.error(root, named) for root in (pathlib.Path(), _PACKAGE))
  return next((figure for figure in found if figure is not None), None)


def results(
  row: Row, runs: Sequence[StudyRun], rate: Callable[[ConfigDict], float] | None = None
) -> dict[str, Any]:
  """Returns what is known of a row: `errors` in percent by seed, cost, what was published.

  Of detectors `errors` and `best` are average precision, as `metric` says.

  Args:
    row: of the study.
    runs: those of the study.
    rate: images per second of a configuration, instead of those that the runs logged.
  """
  by_seed = {run.seed: run for run in runs if run.row == row}
  summaries = {seed: found for seed, run in by_seed.items() if (found := run.summary())}
  config = reading.load(row.config, list(row.overrides))
  # Where a run ends when it gets no better, its best checkpoint is what was published, too.
  chosen = 'best' if config.early_stopping.patience else 'final'
  metric = tasks.task_of(config).objective.metric
  cost = complexity(network.build_model(config), _published_size(config))
  return {
    'row': row.name,
    'command': ' '.join([f'python -m senet_jax.main --config={row.config}', *row.overrides]),
    'metric': metric,
    'errors': {seed: s.get(chosen, s['final'])[metric] for seed, s in summaries.items()},
    'unfinished': {
      seed: last
      for seed, run in by_seed.items()
      if seed not in summaries and (last := run.last_evaluation())
    },
    'failures': {s: r.failure.read_text() for s, r in by_seed.items() if r.failure.exists()},
    'published': _published(row),
    'comparable': row.published is None,
    'params': cost.params,
    'macs': cost.macs,
    'wall_time_s': [s['wall_time_s'] for s in summaries.values()],
    'train_time_s': [t for seed in summaries if (t := by_seed[seed].train_time(rate))],
    'images_per_second': {seed: s.get('images_per_second') for seed, s in summaries.items()},
    'best': {seed: s['best'][metric] for seed, s in summaries.items() if s.get('best')},
    'devices': sorted({s['device'] for s in summaries.values() if 'device' in s}),
    'params_sha256': {seed: s['params_sha256'] for seed, s in summaries.items()},
  }


def _published_size(config: ConfigDict) -> int:
  """Returns the side of the square images for which operations are counted."""
  detects = network.task_of(config) != CLASSIFICATION
  return config.data.shorter_side if detects else network.input_size(config)
