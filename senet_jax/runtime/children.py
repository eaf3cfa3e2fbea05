"""Commands of this project as processes of their own, which end with the one that started them."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from senet_jax import cli
from senet_jax.runtime.commit import ROOT
from senet_jax.runtime.signals import StopSignals

# How long a command that was asked to stop may take to save what it has, in seconds.
GRACE_S = 120.0
_LOOK_S = 0.1


class Children(StopSignals):
  """Commands that run at the same time; a context manager.

  SIGTERM and Ctrl-C to this process are passed on to them as SIGTERM and noted in `stopping`.
  Whatever is still running at the end of the block is stopped, and on Linux also when this process
  is killed.
  """

  def __init__(self):
    """Starts nothing yet."""
    super().__init__(then=self._pass_on)
    self._running: list[subprocess.Popen] = []

  def __exit__(self, *given) -> None:
    for child in self._running:
      self.stop(child)
    super().__exit__(*given)

  @property
  def stopping(self) -> bool:
    """Returns whether SIGTERM or Ctrl-C has come."""
    return self.noticed

  def _pass_on(self) -> None:
    for child in self._running:
      child.terminate()

  def start(
    self, command: Sequence[str], log: pathlib.Path, environment: Mapping[str, str] | None = None
  ) -> subprocess.Popen:
    """Starts `python -m senet_jax.COMMAND`, with all that it prints in the file `log`.

    Args:
      command: the module below `senet_jax`, such as `tools.benchmark`, and its arguments.
      log: to which its output is appended.
      environment: variables that it has besides those of this process.
    """
    module, *arguments = command
    log.parent.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, **(environment or {}), cli.PARENT: str(os.getpid())}
    with log.open('ab') as output:
      child = subprocess.Popen(
        [sys.executable, '-m', f'senet_jax.{module}', *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=variables,
        cwd=ROOT,  # where `configs/` is
        start_new_session=True,  # Ctrl-C is for this process alone, which passes it on
      )
    self._running.append(child)
    if self.stopping:
      child.terminate()
    return child

  def wait(self, child: subprocess.Popen, seconds: float | None = None) -> int | None:
    """Waits for the end of a command; returns its exit status, or None if that took too long.

    A status below zero is the number of the signal that killed it.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    while child.poll() is None:
      if deadline is not None and time.monotonic() > deadline:
        return None
      time.sleep(_LOOK_S)
    self._running = [other for other in self._running if other is not child]
    return child.returncode

  def stop(self, child: subprocess.Popen, grace_s: float = GRACE_S) -> int:
    """Asks a command to save and stop, and kills it after `grace_s`; returns its exit status."""
    child.terminate()
    if self.wait(child, grace_s) is None:
      os.killpg(child.pid, signal.SIGKILL)
    self.wait(child)
    return child.returncode


def last_lines(log: pathlib.Path, count: int = 12) -> list[str]:
  """Returns the last lines of what a command printed that are not empty."""
  try:
    text = log.read_bytes()[-20_000:].decode(errors='replace')
  except FileNotFoundError:
    return []
  return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]
