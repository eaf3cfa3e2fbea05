"""Waits for what another process or thread does."""

import time


def until(condition, seconds=120):
  """Returns what `condition` does as soon as it is true; fails if it never is."""
  deadline = time.monotonic() + seconds
  while not (found := condition()):
    assert time.monotonic() < deadline, 'it did not happen'
    time.sleep(0.02)
  return found
