"""Processes that decode images, for hosts with more cores than the threads of a process can use.

Pillow decodes outside the interpreter lock, but between its calls threads wait for each other.
Images go there and back through shared memory, as pipes cost nearly as much as the decoding.
"""

import atexit
import contextlib
import functools
import math
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from senet_jax.errors import UserError

# Where Linux has shared memory; containers give it little.
_SHARED = pathlib.Path('/dev/shm')

# Of an encoded image, uniform numbers and the shape of the result: uint8 of that shape.
Decode = Callable[[bytes, np.ndarray, tuple[int, ...]], np.ndarray]


class _Process(SpawnProcess):
  """One of the processes; where one has ended, the pool terminates the others."""

  def terminate(self) -> None:
    """Ends it, which leaves a mere SIGTERM to the process that is worked for."""
    self.kill()


class _Context(SpawnContext):
  Process = _Process


class Workers:
  """Processes that wait for images to decode.

  They start with the first images, without accelerators, JAX or TensorFlow, and end with the
  process that they work for, however that ends.
  """

  def __init__(self, count: int):
    """Starts nothing yet."""
    self._count = count
    # NumPy's library, which reads this as they start, has a thread for each core of the host else.
    os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
    self._pool = futures.ProcessPoolExecutor(count, _Context(), initializer=_stay_until_the_end)
    # Shared memory that no thread uses now; the last that was used is the first again.
    self._idle: list[SharedMemory] = []
    atexit.register(self._close)  # what is left to the interpreter's end complains there

  def __len__(self) -> int:
    return self._count

  @contextlib.contextmanager
  def decoded(
    self, decode: Decode, encoded: list[bytes], drawn: np.ndarray, shape: tuple[int, ...]
  ) -> Iterator[np.ndarray]:
    """Has one of the processes decode images, `[n, *shape]` uint8, which hold within the block.

    Args:
      decode: a function that can be pickled.
      encoded: `n` images.
      drawn: `[n, draws]` float32, the uniform numbers of each.
      shape: of each result.

    Raises:
      UserError: a process was ended, or there is too little shared memory.
      Exception: what `decode` raises.
    """
    # The images, and behind them where each of the encoded ones begins and ends.
    pixels = len(encoded) * math.prod(shape)
    ends = pixels + np.cumsum([0, *map(len, encoded)])
    memory = self._memory(int(ends[-1]))
    try:
      shared = _bytes(memory)
      for data, first, last in zip(encoded, ends[:-1], ends[1:], strict=True):
        shared[first:last] = np.frombuffer(data, np.uint8)
      self._submit(_decode, decode, memory.name, ends, drawn, shape).result()
      yield shared[:pixels].reshape(-1, *shape)
    except futures.process.BrokenProcessPool:
      start.cache_clear()  # another run gets new ones
      raise UserError(
        f'one of the config.data.workers={self._count} that decode images has ended. If memory ran '
        "out, use fewer; a script of your own needs `if __name__ == '__main__':` around what it "
        'runs; config.data.workers=0 decodes in threads.'
      ) from None
    finally:
      self._idle.append(memory)

  def _submit(self, *call: Any) -> futures.Future:
    try:
      return self._pool.submit(*call)
    except futures.process.BrokenProcessPool:
      raise
    except OSError as error:
      raise UserError(
        f'config.data.workers={self._count}: a process cannot be started ({error.strerror}); use '
        'fewer.'
      ) from None
    except RuntimeError as error:  # no fault of an image
      raise futures.CancelledError('the interpreter is about to end') from error

  def _memory(self, size: int) -> SharedMemory:
    """Returns shared memory of at least `size` bytes that nobody else uses."""
    try:
      memory = self._idle.pop()
    except IndexError:
      pass
    else:
      if memory.size >= size:
        return memory
      memory.unlink()
    size = 1 << (size - 1).bit_length()  # so that few are outgrown
    try:
      return _new(size)
    except OSError as error:  # no fault of an image
      raise UserError(
        f'each of config.data.workers={self._count} and one more take {size / 2**20:.0f} MiB of '
        f'shared memory (on Linux {_SHARED}): {error.strerror}; use fewer, or give a container '
        'more (docker run --shm-size=…).'
      ) from None

  def _close(self) -> None:
    self._pool.shutdown()
    while self._idle:
      self._idle.pop().unlink()


@functools.cache
def start(count: int) -> Workers | None:
  """Returns the processes that all streams of this process share; None for a count of 0.

  Raises:
    UserError: this is such a process itself, which runs a script as far as nothing keeps it.
  """
  if count and getattr(multiprocessing.current_process(), '_inheriting', False):
    raise UserError(
      f'config.data.workers={count}: each process runs your script once more; put '
      "`if __name__ == '__main__':` around what trains or evaluates there."
    )
  return Workers(count) if count else None


def _new(size: int) -> SharedMemory:
  memory = SharedMemory(create=True, size=size)
  try:
    if _SHARED.exists():  # Linux would give it page by page, and end a process that gets none
      with open(_SHARED / memory.name, 'r+b') as file:
        os.posix_fallocate(file.fileno(), 0, size)
  except OSError:
    memory.unlink()
    raise
  return memory


def _bytes(memory: SharedMemory) -> np.ndarray:
  return np.ndarray(memory.size, np.uint8, memory.buf)


# --- in the processes ------------------------------------------------------------------------

_attached = functools.cache(SharedMemory)


def _decode(
  decode: Decode, name: str, ends: np.ndarray, drawn: np.ndarray, shape: tuple[int, ...]
) -> None:
  """Decodes images of shared memory, each from one of `ends` to the next, to its beginning."""
  shared = _bytes(_attached(name))
  images = shared[: ends[0]].reshape(-1, *shape)
  for image, first, last, own in zip(images, ends[:-1], ends[1:], drawn, strict=True):
    image[...] = decode(shared[first:last].tobytes(), own, shape)


def _stay_until_the_end() -> None:
  """Leaves signals, which a terminal or a launcher sends to all, to the process that is worked for.

  That one may save a checkpoint first, and decides when it needs no more images.
  """
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  assert parent is not None

  def end_with_it() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=end_with_it, daemon=True).start()
