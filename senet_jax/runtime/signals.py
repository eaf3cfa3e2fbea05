"""The signals that ask a command to save and stop."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

_INTERRUPTED = 130  # what shells say of a command that Ctrl-C has ended


class StopSignals:
  """A context manager within which SIGTERM and Ctrl-C ask to save and stop, and do no more.

  A second Ctrl-C ends the process at once. A thread takes the signals: the main one may be in a
  program of XLA, or in its compiler, where it notices nothing for minutes.

  Attributes:
    interrupted: whether Ctrl-C has come.
  """

  def __init__(
    self,
    signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGINT),
    then: Callable[[], None] = lambda: None,
  ):
    """Takes no signal yet.

    Args:
      signals: the ones to take.
      then: is called when one has come, maybe more than once, by any thread.
    """
    self.interrupted = False
    self._signals, self._then = signals, then
    self._noticed = threading.Event()
    self._before: dict[signal.Signals, Any] = {}

  def __enter__(self):
    if threading.current_thread() is threading.main_thread():  # no other one may
      self._before = {number: signal.signal(number, self._take) for number in self._signals}
      reading, self._writing = os.pipe()
      os.set_blocking(self._writing, False)
      self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
      threading.Thread(target=self._listen, args=(reading,), daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    if self._before:
      for number, handler in self._before.items():
        signal.signal(number, handler)
      signal.set_wakeup_fd(self._wakeup)
      os.close(self._writing)  # the thread ends
      self._before = {}

  @property
  def noticed(self) -> bool:
    """Returns whether to save and stop."""
    return self._noticed.is_set()

  def _take(self, *_) -> None:
    self._noticed.set()
    self._then()

  def _listen(self, reading: int) -> None:
    with os.fdopen(reading, 'rb', buffering=0) as pipe:
      while number := pipe.read(1):
        if number[0] == signal.SIGINT:
          if self.interrupted:
            _end_at_once()
          self.interrupted = True
          print('senet_jax: saves and stops; Ctrl-C once more ends at once.', file=sys.stderr,
                flush=True)  # fmt: skip
        if number[0] in self._signals:
          self._take()


def _end_at_once() -> None:
  if sys.stdout.isatty():
    os.write(sys.stdout.fileno(), b'\x1b[?25h')  # the cursor, which a progress bar hides
  print('senet_jax: interrupted.', file=sys.stderr, flush=True)
  os._exit(_INTERRUPTED)
