"""Times steps of any framework in turn, so that what makes a machine slower is the same for all.

Each of them is measured for a moment, again and again; ratios are those of one turn.
"""

import contextlib
import dataclasses
import gc
import logging
import os
import re
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

from senet_jax.reporting.statistics import spread

# Dispatches in front of the first measurement, each waited for.
WARM_UP = 2
# The load a core of which this process alone has at most 1, as while it compiles.
_BUSY = 1.5
_log = logging.getLogger(__name__)
# XLA, PyTorch on a GPU, and Python itself.
_OUT_OF_MEMORY = re.compile('RESOURCE_EXHAUSTED|out of memory', re.IGNORECASE)

K = TypeVar('K', bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Workload:
  """A compiled step with all that it needs in the memory of the devices.

  Attributes:
    images: that one dispatch works on, over all devices.
    dispatch: starts the next step, or steps, each of which waits for the one before.
    wait: until all that was dispatched is done.
    compile_s: seconds that tracing and compilation took.
    program_mib: memory that the program needs on each device, by the compiler; None: not known.
    bytes_per_step: that a step reads and writes in the memory of each device; None: not known.
    bytes_counted_by: `XLA` or `HLO text`, see `hlo.bytes_moved`.
    waited: seconds for which it has waited for data so far.
  """

  images: int
  dispatch: Callable[..., Any]
  wait: Callable[[], None]
  compile_s: float
  program_mib: float | None = None
  bytes_per_step: int | None = None
  bytes_counted_by: str | None = None
  waited: Callable[[], float] = float


@dataclasses.dataclass(frozen=True)
class Timing:
  """The times of one workload.

  Attributes:
    warm_up_s: seconds of the dispatches in front of all measurements.
    turns: for each turn, the seconds a dispatch took: of each, or their mean alone.
    cores: for each turn, the CPU cores that this process kept busy on average.
    waiting: for each turn, the share of the time that was spent waiting for data.
  """

  warm_up_s: float
  turns: list[list[float]]
  cores: list[float] = dataclasses.field(default_factory=list)
  waiting: list[float] = dataclasses.field(default_factory=list)

  @property
  def per_turn(self) -> list[float]:
    """The median of each turn."""
    return [statistics.median(turn) for turn in self.turns]


def in_turn(
  workloads: Mapping[K, Workload], turns: int, seconds: float, *, each: bool = False
) -> dict[K, Timing]:
  """Times workloads in turn, every other turn in the opposite order.

  A turn begins with a dispatch that is not counted: it brings back caches and threads.

  Args:
    workloads: to be compared.
    turns: how often each of them is measured.
    seconds: about as long as a measurement is to take; at least one dispatch.
    each: time each dispatch by itself, with the wait for its end, which is its latency; otherwise
      all of them together, which is throughput.
  """
  warn_if_busy()
  warm_ups, counts = {}, {}
  for key, workload in workloads.items():
    start = time.perf_counter()
    for _ in range(WARM_UP):
      last = _seconds(workload, 1)
    warm_ups[key] = time.perf_counter() - start
    counts[key] = max(1, round(seconds / last))
  found = {key: Timing(warm_ups[key], []) for key in workloads}
  for turn in range(turns):
    for key in list(workloads)[:: -1 if turn % 2 else 1]:
      workload, count = workloads[key], counts[key]
      with _undisturbed():
        _seconds(workload, 1)
        start, cpu, waited = time.perf_counter(), time.process_time(), workload.waited()
        if each:
          times = [_seconds(workload, 1) for _ in range(count)]
        else:
          times = [_seconds(workload, count) / count]
        passed = max(time.perf_counter() - start, 1e-9)
      found[key].turns.append(times)
      found[key].cores.append((time.process_time() - cpu) / passed)
      found[key].waiting.append((workload.waited() - waited) / passed)
  return found


def warn_if_busy() -> None:
  """Says so where other processes want more of this machine's cores than there are."""
  load, cores = os.getloadavg()[0], os.cpu_count() or 1
  if load > _BUSY * cores:
    _log.warning(
      'this machine is busy (a load of %.1f on %d cores): times are of what others leave; measure '
      'again when it is idle.',
      load,
      cores,
    )


def _seconds(workload: Workload, dispatches: int) -> float:
  start = time.perf_counter()
  for _ in range(dispatches):
    workload.dispatch()
  workload.wait()
  return time.perf_counter() - start


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
  """Turns garbage collection off within the block."""
  gc.collect()
  gc.disable()
  try:
    yield
  finally:
    gc.enable()


def ratios(first: Timing, second: Timing) -> list[float]:
  """Returns the seconds of `first` over those of `second`, turn by turn."""
  return [a / b for a, b in zip(first.per_turn, second.per_turn, strict=True)]


def added_percent(first: Timing, second: Timing) -> dict[str, Any]:
  """Returns by how many percent `first` takes longer than `second`, as `spread` over the turns."""
  return spread([100 * (ratio - 1) for ratio in ratios(first, second)])


# --- memory --------------------------------------------------------------------------------------


def is_out_of_memory(error: Exception) -> bool:
  """Returns whether an error says that a device, or this machine, has too little memory."""
  return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def largest_batch(
  measure: Callable[[int], Any], start: int, *, devices: int = 1, most: int, refine: bool = False
) -> int | None:
  """Returns the largest batch that fits: a power of two a device, or with `refine` a larger one.

  Args:
    measure: runs a batch of the given number of images; raises an error for which
      `is_out_of_memory` is true if it does not fit.
    start: a batch to begin with.
    devices: that share a batch.
    most: no larger batch is tried.
    refine: go on between the last that fitted and twice as much, to an eighth of it.

  Returns:
    The batch, over all devices; None if not even one image a device fits.
  """

  def fits(per_device: int) -> bool:
    try:
      measure(per_device * devices)
      return True
    except Exception as error:
      if not is_out_of_memory(error):
        raise
      return False
    finally:
      gc.collect()  # what it held on the devices, before the next one asks for memory

  limit = most // devices
  best = 1 << max(1, min(start, most) // devices).bit_length() - 1
  while not fits(best):
    if best == 1:
      return None
    best //= 2
    limit = min(limit, 2 * best - 1)
  while 2 * best <= limit:
    if not fits(2 * best):
      limit = 2 * best - 1
      break
    best *= 2
  step = best // 8
  if refine and step:
    low, high = 8, min(15, limit // step)
    while low < high:
      middle = (low + high + 1) // 2
      low, high = (middle, high) if fits(middle * step) else (low, middle - 1)
    best = low * step
  return best * devices
