"""Where the numbers of a run go: console, metrics.jsonl, TensorBoard."""

import json
import os
import pathlib
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Reporter:
  """Writes the records of a run; a context manager.

  `metrics.jsonl` has one object a line, `kind` `train` or `eval`. Errors are in percent.
  """

  def __init__(self, workdir: pathlib.Path, total_steps: int, *, tensorboard: bool = True):
    """Opens the reports of a run of `total_steps` in `workdir`."""
    self.path = workdir / 'metrics.jsonl'
    self._console = Console(soft_wrap=True, highlight=False)
    self._writer = _tensorboard_writer(workdir, self.say) if tensorboard else None
    self._progress = Progress(
      TextColumn('step'),
      MofNCompleteColumn(),
      BarColumn(),
      TimeRemainingColumn(),
      console=self._console,
      disable=not sys.stdout.isatty(),
      transient=True,
    )
    self._task = self._progress.add_task('train', total=total_steps)

  def __enter__(self) -> 'Reporter':
    self._progress.start()
    return self

  def __exit__(self, *_) -> None:
    self._progress.stop()
    if self._writer is not None:
      self._writer.close()

  def say(self, text: str) -> None:
    """Prints a line above the progress bar."""
    self._console.print(text, markup=False)

  def advance(self, step: int) -> None:
    """Moves the progress bar."""
    self._progress.update(self._task, completed=step)

  def resume(self, keep) -> list[dict[str, Any]]:
    """Drops the records for which `keep(record)` is false, as of steps that will be run again.

    Returns:
      The records kept.
    """
    records = [r for r in read_records(self.path) if keep(r)]
    partial = self.path.with_suffix('.partial')
    partial.write_text(''.join(json.dumps(r) + '\n' for r in records))
    partial.replace(self.path)
    return records

  def write(self, record: dict[str, Any]) -> None:
    """Writes one record everywhere; it has `kind`, `step` and `epoch`."""
    with self.path.open('a') as file:
      file.write(json.dumps(record) + '\n')
    self.say(_line(record))
    if self._writer is not None:
      kind, step = record['kind'], record['step']
      scalars = {
        f'{kind}/{k}': v
        for k, v in record.items()
        if k not in ('kind', 'step') and isinstance(v, int | float)
      }
      self._writer.write_scalars(step, scalars)
      self._writer.flush()


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
  """The records of a `metrics.jsonl`; a last line that a kill cut short is left out."""
  records = []
  if path.exists():
    for line in path.read_text().splitlines():
      try:
        records.append(json.loads(line))
      except json.JSONDecodeError:
        break
  return records


def _line(record: dict[str, Any]) -> str:
  """A record for the console."""
  parts = [f'{record["kind"]:5}', f'epoch {record["epoch"]:7.2f}', f'step {record["step"]:6d}']
  parts += [f'loss {record["loss"]:.4f}', f'top-1 error {record["top1_error"]:6.2f} %']
  if record['kind'] == 'eval':
    parts.append(f'top-5 error {record["top5_error"]:6.2f} %')
  else:
    parts.append(f'lr {record["learning_rate"]:.4g}')
    parts.append(f'{record["images_per_second"]:.0f} images/s')
    parts.append(f'ETA {_duration(record["eta_s"])}')
  return '  '.join(parts)


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}'


def _tensorboard_writer(workdir: pathlib.Path, say):
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')  # it announces itself at every log level
  try:
    from clu.metric_writers import SummaryWriter
  except ImportError as error:
    say(f'no TensorBoard files ({error}); all metrics are in metrics.jsonl.')
    return None
  return SummaryWriter(str(workdir))


class Clock:
  """Times training alone, in pieces between `start` and `stop`."""

  def __init__(self):
    self._images, self._seconds = 0, 0.0
    self._since = 0.0

  def start(self) -> None:
    """Training goes on."""
    self._since = time.monotonic()

  def stop(self, images: int) -> float:
    """Training pauses, done with `images` since the start; returns the seconds since then."""
    seconds = time.monotonic() - self._since
    self._images += images
    self._seconds += seconds
    return seconds

  def take_rate(self) -> float:
    """Images a second since this was last asked."""
    rate = self._images / max(self._seconds, 1e-9)
    self._images, self._seconds = 0, 0.0
    return rate
