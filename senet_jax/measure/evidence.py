"""Makes the measurements of `plan`, each in a process of its own, and loses none of them.

A directory has one JSON file a measurement, written when it ends: `NAME.json`, with the record of
the commands and, under `measurement`, how it went. Below `work/` lie logs, runs and caches, which
git ignores. What is done is not done again; what failed or was cut short is.
"""

import dataclasses
import datetime
import json
import pathlib
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from senet_jax import cli
from senet_jax.errors import UserError
from senet_jax.measure import plan
from senet_jax.measure.plan import DONE, Command, Context, Measurement
from senet_jax.runtime.children import GRACE_S, Children, last_lines
from senet_jax.storage import files

FAILED, UNFINISHED = 'failed', 'unfinished'
SKIPPED, NOT_RUN, PENDING = 'skipped', 'not run', 'pending'
INDEX = 'evidence.json'
# A measurement is ended when it takes so many times its estimate, and a little more.
_PATIENCE, _AT_LEAST_S = 4, 180
# Of its estimate, where a rehearsal is concerned, in minutes.
_REHEARSAL = 0.25
# What a run that can be resumed needs to be worth a start, in minutes.
_WORTH = 2.0
# Kept of the budget, for the saving of what is cut short, in minutes.
_RESERVE = 0.5


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the table.

  Attributes:
    name: of the measurement.
    status: `DONE`, `FAILED`, `UNFINISHED`, `SKIPPED` (impossible here), `NOT_RUN` (no time) or,
      before it is made, `PENDING`.
    minutes: that it took, or is expected to take.
    what: its main result, or the reason for the status.
  """

  name: str
  status: str
  minutes: float
  what: str


def look_around() -> dict[str, Any]:
  """Returns what `measure.machine` tells of this machine.

  Raises:
    UserError: its devices cannot be used.
  """
  with tempfile.TemporaryDirectory() as scratch, Children() as children:
    path, log = pathlib.Path(scratch, 'machine.json'), pathlib.Path(scratch, 'log')
    if children.wait(children.start(('measure.machine', str(path)), log)) != 0:
      why = (last_lines(log, 1) or ['no message'])[0].removeprefix('senet_jax: ')
      raise UserError(f'the devices of this machine cannot be used: {why}')
    return json.loads(path.read_text())


def open_directory(output: pathlib.Path, machine: dict[str, Any], *, rehearse: bool) -> None:
  """Makes the directory of the results, or checks that it is one, of this machine.

  Raises:
    UserError: it holds something else, or results of other devices.
  """
  mine = {'device': machine['device'], 'rehearsal': rehearse}
  index = output / INDEX
  if index.is_file():
    try:
      theirs = json.loads(index.read_text())
      kept = {key: theirs[key] for key in mine}
    except (ValueError, KeyError, TypeError) as error:
      raise UserError(f'{index} is damaged ({error!r}); give another --output.') from error
    if kept != mine:
      kind = ' of a rehearsal' if kept['rehearsal'] else ''
      raise UserError(
        f'--output={output} has results{kind} of {kept["device"]}, and this is '
        f'{machine["device"]}; give another directory.'
      )
    return
  if output.exists() and (not output.is_dir() or any(output.iterdir())):
    raise UserError(f'--output={output} holds something else; give a new or an empty directory.')
  output.mkdir(parents=True, exist_ok=True)
  files.write_text(output / 'work' / '.gitignore', '*\n')
  files.write_json(index, {**mine, 'machine': machine})


class Budget:
  """The minutes that there are for measurements, and what each of them needs."""

  def __init__(self, context: Context, minutes: float | None):
    """Begins to count `minutes`; None is no limit."""
    self._context, self._minutes = context, minutes
    self._end = None if minutes is None else time.monotonic() + 60 * (minutes - _RESERVE)

  @property
  def left(self) -> float | None:
    """The minutes that are left; None is no limit."""
    return None if self._end is None else (self._end - time.monotonic()) / 60

  def estimate(self, measurement: Measurement) -> float:
    """Returns the minutes that a measurement is expected to take, from those that were made."""
    if self._context.rehearse:
      return _REHEARSAL
    return measurement.minutes * self._pace()

  def _pace(self) -> float:
    """Returns the time that this machine needs over what an H100 is expected to need."""
    found = []
    for measurement in plan.MEASUREMENTS:
      record = None if measurement.resumable else self._context.record(measurement.name)
      if record:
        found.append(record['measurement']['seconds'] / 60 / measurement.minutes)
    return statistics.median(found) if found else 1.0

  def fits(self, measurement: Measurement) -> bool:
    """Returns whether a measurement is worth a start."""
    left = self.left
    return left is None or self._needed(measurement) <= left

  def _needed(self, measurement: Measurement) -> float:
    """Returns the minutes without which a start is not worth it."""
    minutes = self.estimate(measurement)
    return min(minutes, _WORTH) if measurement.resumable else minutes

  def check(self, to_do: Sequence[Measurement]) -> None:
    """Checks that some of what is to be done fits.

    Raises:
      UserError: nothing does.
    """
    if to_do and not any(map(self.fits, to_do)):
      shortest = min(to_do, key=self._needed)
      raise UserError(
        f'--budget={self._minutes:g} fits nothing of what is left: the shortest, {shortest.name}, '
        f'needs about {self._needed(shortest) + _RESERVE:.1f} minutes; give more.'
      )


class Evidence:
  """A list of measurements that is gone through once."""

  def __init__(
    self,
    context: Context,
    measurements: Sequence[Measurement],
    budget: float | None,
    say: Callable[[str], None] = print,
  ):
    """Prepares to make `measurements`, in `budget` minutes from now on; None is no limit."""
    self.context, self.measurements, self._say = context, measurements, say
    self._budget = Budget(context, budget)

  def run(self) -> list[Row]:
    """Makes what is missing; returns a row for each of all.

    Raises:
      UserError: the budget fits nothing of what is missing.
    """
    self._budget.check(self._open())
    rows = []
    with Children() as children:
      for number, measurement in enumerate(self.measurements):
        row = self._row(measurement)
        if row.status == PENDING and children.stopping:
          row = dataclasses.replace(row, status=NOT_RUN, what='stopped before')
        if row.status == PENDING:
          self._say_left(number)
          row = self._make(measurement, children)
          self._say(f'{row.name}: {row.status}, {row.minutes:.1f} min; {row.what}')
        rows.append(row)
    return rows

  # --- what there is to do -------------------------------------------------------------------

  def _row(self, measurement: Measurement) -> Row:
    """Returns how a measurement stands before it is made."""
    context, minutes = self.context, self._budget.estimate(measurement)
    record = context.record(measurement.name)
    if record:
      return Row(measurement.name, DONE, record['measurement']['seconds'] / 60, headline(record))
    if reason := plan.why_not(measurement, context):
      return Row(measurement.name, SKIPPED, minutes, reason)
    if measurement.after and context.record(measurement.after) is None:
      return Row(measurement.name, NOT_RUN, minutes, f'{measurement.after} is not there')
    if not self._budget.fits(measurement):
      return Row(measurement.name, NOT_RUN, minutes, 'does not fit the rest of the budget')
    return Row(measurement.name, PENDING, minutes, '')

  def _open(self) -> list[Measurement]:
    done = (m for m in self.measurements if self.context.record(m.name) is None)
    return [m for m in done if plan.why_not(m, self.context) is None]

  def _say_left(self, number: int) -> None:
    open_now = {m.name for m in self._open()}
    left = [m for m in self.measurements[number:] if m.name in open_now]
    total = sum(map(self._budget.estimate, left))
    budget = self._budget.left
    rest = '' if budget is None else f', {max(budget, 0):.1f} min of the budget are left'
    measurement = self.measurements[number]
    expected = self._budget.estimate(measurement)
    self._say(
      f'--- {measurement.name}: {measurement.what}, about {expected:.1f} min; '
      f'{len(left)} to do, about {total:.0f} min{rest}'
    )

  # --- one measurement -----------------------------------------------------------------------

  def _make(self, measurement: Measurement, children: Children) -> Row:
    """Runs the commands of a measurement and writes its record."""
    start = time.monotonic()
    results: dict[str, dict[str, Any]] = {}
    # Of the pace of a machine only what is slower counts: it may not hold for this measurement.
    least = 0 if self.context.rehearse else measurement.minutes
    limit = max(_PATIENCE * 60 * max(self._budget.estimate(measurement), least), _AT_LEAST_S)
    if measurement.resumable and not self.context.rehearse:
      limit = float('inf')
    if (left := self._budget.left) is not None:
      limit = min(limit, 60 * left)
    status, commands = DONE, []
    why: list[str] = []
    for command in measurement.commands(self.context):
      line = 'python -m senet_jax.' + ' '.join(command.arguments)
      commands.append(line.replace(str(self.context.output), 'OUTPUT'))
      if command.result and command.result.is_file():
        command.result.unlink()
      status, why = self._run(command, children, start + limit, measurement.resumable)
      results |= self._read(command)
      if status != DONE:
        break
    seconds = time.monotonic() - start
    body = measurement.merge(results) if status == DONE else {'partial': results}
    record = {
      'what': measurement.what,
      **self._head(),
      **body,
      'command': '; '.join(commands),
      'measurement': {
        'name': measurement.name,
        'group': measurement.group,
        'what': measurement.what,
        'status': status,
        'seconds': round(seconds, 1),
        'last_lines': why,
      },
    }
    files.write_json(self.context.output / f'{measurement.name}.json', record)
    what = headline(record) if status == DONE else (why or [''])[-1]
    return Row(measurement.name, status, seconds / 60, what)

  def _run(
    self, command: Command, children: Children, deadline: float, resumable: bool
  ) -> tuple[str, list[str]]:
    """Runs one command; returns the status, and the last lines of one that did not succeed."""
    log = self.context.work / 'logs' / f'{command.label}.log'
    log.unlink(missing_ok=True)
    environment = {
      'JAX_COMPILATION_CACHE_DIR': str(self.context.work / 'xla'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.5',
      **command.environment,
    }
    child = children.start(command.arguments, log, environment)
    code = children.wait(child, max(deadline - time.monotonic(), 0))
    late = code is None
    if code is None:
      grace = min(GRACE_S, 60 * _RESERVE) if self._budget.left is not None else GRACE_S
      code = children.stop(child, grace)
    lines = last_lines(log)
    if code == 0:
      return DONE, []
    if children.stopping or (resumable if late else code == cli.PREEMPTED):
      return UNFINISHED, [*lines, 'stopped; the same command goes on']
    if late:
      return FAILED, [*lines, 'took longer than its limit, or than the budget']
    if code < 0:
      return FAILED, [*lines, f'killed from outside by {signal.Signals(-code).name}']
    return FAILED, lines or [f'exit status {code}']

  def _read(self, command: Command) -> dict[str, dict[str, Any]]:
    """Returns the results of a command, if it has left any."""
    if command.result is None or not command.result.is_file():
      return {}
    return {command.label: json.loads(command.result.read_text())}

  def _head(self) -> dict[str, Any]:
    machine = self.context.machine
    return {
      'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
      **{key: machine[key] for key in ('device', 'git_commit', 'versions', 'cpu_cores')},
    }


# --- what a record comes to ----------------------------------------------------------------------


def headline(record: dict[str, Any]) -> str:
  """Returns the main result of a record in a few words."""
  return '; '.join(_headlines(record)) or record.get('what', '')


def _headlines(record: dict[str, Any]) -> Iterator[str]:
  if 'bitwise_equal' in record:
    yield 'bitwise equal' if record['bitwise_equal'] else 'NOT bitwise equal'
  for tax in record.get('se_tax', ()):
    if ':' not in tax['network']:
      where = f'{tax["mode"]} {tax["batch_size"]}'
      whose = "PyTorch's " if tax.get('framework') == 'torch' else ''
      yield f'{whose}{tax["network"]} {tax["percent"]["median"]:+.1f} % ({where})'
  for change in record.get('changes', ()):
    yield f'{change["network"]} {change["percent"]["median"]:+.1f} %'
  for ratio in record.get('against_torch', ()):
    where = f'{ratio["mode"]} {ratio["batch_size"]}'
    yield f'{ratio["network"]} {ratio["ratio"]["median"]:.2f}x PyTorch ({where})'
  if not any(record.get(kind) for kind in ('se_tax', 'changes', 'against_torch')):
    rates = [row for row in record.get('rows', ()) if 'ms_per_step' in row]
    if rates and 'efficiency' not in rates[0]:
      yield f'{len(rates)} programs ran'
  if 'final' in record:
    yield f'error {record["final"]["top1_error"]:.2f} %, {record["images_per_second"]:.0f} images/s'
  if best := record.get('best'):
    rate = best.get('images_per_second')
    if isinstance(rate, dict):
      steps = best['steps_per_dispatch']
      yield f'{rate["median"]:.0f} images/s in {best["dtype"]}, {steps} steps a dispatch'
  for row in record.get('rows', ()):
    if row.get('mean') is not None:
      published = '' if row['published'] is None else f' (published {row["published"]:.2f})'
      yield f'{row["row"]} {row["mean"]:.2f} %{published}'
    elif 'relative' in row:
      yield f'{row["dtype"]}: {row["relative"]:.1e} of the spread'
    elif 'efficiency' in row:
      yield f'{row["devices"]} devices {100 * row["efficiency"]:.0f} %'
    elif row.get('se_percent'):
      added, batch = row['se_percent']['median'], row['batch_size']
      yield f'{row["network"]} {added:+.1f} % (batch {batch})'
  for profile in record.get('profiles', ()):
    step = profile.get('measured', {}).get('step_s')
    if step:
      yield f'{1000 * step:.1f} ms a step'
  if note := record.get('note'):
    yield note
