"""An XLA trace of chosen steps of a run."""

from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from senet_jax.errors import UserError
from senet_jax.storage import buckets
from senet_jax.storage.buckets import Path


def check(config: ConfigDict, workdir: Path) -> None:
  """Checks that a trace can be written where it is wanted.

  Raises:
    UserError: it cannot.
  """
  if config.profile.start is not None and buckets.in_bucket(workdir):
    raise UserError(
      f'config.profile.start={config.profile.start}: a trace is written to a disk, and '
      f'--workdir={workdir} is in a bucket; make it in a short run elsewhere.'
    )


class Trace:
  """A trace; a context manager, so that it ends with the run at the latest."""

  def __init__(self, steps: tuple[int, ...], workdir: Path, say: Callable[[str], None]):
    """Starts nothing yet.

    Args:
      steps: before which it starts and after which it stops; empty for no trace.
      workdir: of the run.
      say: is told where the trace is.
    """
    self._steps, self._directory, self._say = steps, workdir / 'profile', say
    self._since: int | None = None
    self._last = 0

  def __enter__(self) -> 'Trace':
    return self

  def __exit__(self, *_) -> None:
    self._end()

  def at(self, step: int) -> None:
    """Starts or ends the trace if `step` is where that is wanted."""
    self._last = step
    if not self._steps:
      return
    start, stop = self._steps
    if self._since is None and start <= step < stop:
      jax.profiler.start_trace(self._directory)
      self._since = step
    elif step >= stop:
      self._end()

  def _end(self) -> None:
    if self._since is not None:
      jax.profiler.stop_trace()
      self._say(f'trace of steps {self._since} to {self._last}: {self._directory}')
      self._since = None
