"""Reports of a run: to the console, metrics.jsonl and TensorBoard."""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import (
  BarColumn,
  MofNCompleteColumn,
  Progress,
  TaskID,
  TextColumn,
  TimeRemainingColumn,
)

from senet_jax import cli, runtime
from senet_jax.storage import files
from senet_jax.storage.buckets import Path
from senet_jax.workdir.records import damaged_lines, read_records


class _Console(Console):
  """A console that a run outlives: without a reader it is quiet."""

  def on_broken_pipe(self) -> None:
    """Prints no more, instead of ending the run."""
    self.quiet = True
    cli.silence()


class Reporter:
  """Writes the records of a run; a context manager, which opens the files.

  `metrics.jsonl` has one object a line, `kind` `train` or `eval`.

  Attributes:
    path: of `metrics.jsonl`.
  """

  def __init__(
    self,
    workdir: Path,
    describe: Callable[[dict[str, Any]], str],
    *,
    tensorboard: bool = True,
    silent: bool = False,
    watch: Callable[[dict[str, Any]], None] | None = None,
  ):
    """Opens nothing yet.

    Args:
      workdir: of the run; made if missing.
      describe: gives the results of a record for the console.
      tensorboard: write event files, too.
      silent: report nothing, as one process of several does it for all.
      watch: is given each record, as a picture that grows.
    """
    self.path = workdir / 'metrics.jsonl'
    self._workdir, self._describe = workdir, describe
    self._silent, self._wants_tensorboard = silent, tensorboard and not silent
    # Plain text in a notebook, too, where each line would be a page of its own.
    self._console = _Console(soft_wrap=True, highlight=False, quiet=silent, force_jupyter=False)
    self._watch = watch
    self._lines: files.Lines | None = None
    self._tensorboard: _TensorBoard | None = None
    self._progress = Progress(
      TextColumn('step'),
      MofNCompleteColumn(),
      BarColumn(),
      TextColumn('{task.fields[status]}'),
      TextColumn('ETA'),
      TimeRemainingColumn(),
      console=self._console,
      disable=silent or not sys.stdout.isatty(),
      transient=True,
    )
    self._task = TaskID(0)  # of `begin`

  def __enter__(self) -> 'Reporter':
    """Opens the files.

    Raises:
      OSError: the workdir cannot be made or written.
    """
    if not self._silent:
      self._lines = files.Lines(self.path)
    if self._wants_tensorboard:
      self._tensorboard = _TensorBoard(self.say)
      self._tensorboard.open(self._workdir)
    return self

  def __exit__(self, *_) -> None:
    self._progress.stop()
    if self._lines:
      self._lines.flush()
    if self._tensorboard is not None:
      self._tensorboard.close()

  def begin(self, step: int, total: int) -> None:
    """Shows the progress bar, on a terminal, from `step` on."""
    self._task = self._progress.add_task('train', total=total, completed=step, status='')
    self._progress.start()

  def say(self, text: str) -> None:
    """Prints a line above the progress bar."""
    self._console.print(text, markup=False)

  def advance(self, step: int) -> None:
    """Moves the progress bar."""
    self._progress.update(self._task, completed=step)

  def resume(self, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Drops the records for which `keep(record)` is false, as of steps that will be run again."""
    if self._lines is None:
      return
    if damaged := damaged_lines(self.path):
      aside = self.path.with_name(f'{self.path.name}.damaged')
      aside.write_bytes(self.path.read_bytes())
      self.say(f'{damaged} lines of {self.path} hold no record; it is kept as {aside.name}.')
    records = [r for r in read_records(self.path) if keep(r)]
    self._lines.replace([json.dumps(r) for r in records])

  def write(self, record: dict[str, Any]) -> None:
    """Writes one record everywhere; it has `kind`, `step` and `epoch`."""
    if self._lines is None:
      return
    self._lines.append(json.dumps(record))
    results = self._describe(record)
    self.say(_line(record, results))
    if record['kind'] == 'train':
      rate = f'{record["images_per_second"]:.0f} images/s'
      status = f'epoch {record["epoch"]:.2f}  {results}  {rate}'
      self._progress.update(self._task, status=status)
    else:
      self._lines.flush()
    if self._tensorboard is not None:
      self._tensorboard.write(record)
    if self._watch is not None:
      self._watch(record)


def _line(record: dict[str, Any], results: str) -> str:
  """Returns a record for the console."""
  parts = [f'{record["kind"]:5}', f'epoch {record["epoch"]:7.2f}', f'step {record["step"]:6d}']
  parts.append(results)
  if record['kind'] == 'train':
    parts.append(f'lr {record["learning_rate"]:.4g}')
    parts.append(f'{record["images_per_second"]:.0f} images/s')
    parts.append(f'ETA {_duration(record["eta_s"])}')
  return '  '.join(parts)


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}'


class _TensorBoard:
  """Event files through clu; without TensorFlow, or when it fails, one line says so instead."""

  def __init__(self, say):
    self._say = say
    self._writer: Any = None

  def open(self, workdir: Path) -> None:
    """Opens the file."""
    self._try(self._open, workdir)

  def _open(self, workdir: Path) -> None:
    runtime.import_tensorflow()
    from clu.metric_writers import SummaryWriter

    self._writer = SummaryWriter(str(workdir))

  def _try(self, function, *args) -> None:
    try:
      function(*args)
    except Exception as error:  # TensorFlow has error classes of its own, for a full disk too
      self._writer = None
      reason = str(error).splitlines()[0][:200]
      if isinstance(error, ImportError):
        reason = "they need pip install 'senet_jax[tensorboard]', or --config.log.tensorboard=False"
      self._say(f'no TensorBoard files ({reason}); all metrics are in metrics.jsonl.')

  def write(self, record: dict[str, Any]) -> None:
    """Writes the numbers of a record, under its kind."""
    if self._writer is None:
      return
    kind, step = record['kind'], record['step']
    numbers = {f'{kind}/{k}': v for k, v in record.items() if k not in ('kind', 'step')}
    self._try(self._write, step, numbers)

  def _write(self, step: int, numbers: dict[str, float]) -> None:
    self._writer.write_scalars(step, numbers)
    self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    if self._writer is not None:
      self._try(self._writer.close)


class Clock:
  """Times training alone, in pieces between `start` and `stop`."""

  def __init__(self):
    self._images, self._seconds = 0, 0.0
    self._since = 0.0

  def start(self) -> None:
    """Notes that training goes on."""
    self._since = time.monotonic()

  def stop(self, images: int) -> float:
    """Notes that training pauses, `images` after the start; returns the seconds since then."""
    seconds = time.monotonic() - self._since
    self._images += images
    self._seconds += seconds
    return seconds

  def take_rate(self) -> float:
    """Returns the images a second since this was last asked."""
    rate = self._images / max(self._seconds, 1e-9)
    self._images, self._seconds = 0, 0.0
    return rate
