"""A trained network that many ask at once: one thread has the device and takes who has come."""

import asyncio
import dataclasses
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from senet_jax import runtime
from senet_jax.layers import excitations
from senet_jax.prediction import Predictor


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
  """The answer of the network to a photo.

  Attributes:
    probabilities: of each class, `[K]` float32.
    gates: of each SE block, by the paper's names in network order, `[C]` float32; where each pixel
      has gates of its own, their means.
  """

  probabilities: np.ndarray
  gates: dict[str, np.ndarray]


class _Batch:
  """Images that go through the network together.

  Attributes:
    images: by the places of those who have come.
    places: that are still free.
    answers: by place, to come.
  """

  answers: Future

  def __init__(self):
    self.images: dict[int, np.ndarray] = {}
    self.places = itertools.count()


class Classifier:
  """A context manager within which photos are answered.

  The network is compiled for a few sizes of a batch when it is entered. While the device is busy,
  those who come are put into one batch, which is next; one that comes alone runs alone, at once.

  Attributes:
    predictor: has the network.
    batch_sizes: that it is compiled for, from the smallest.
    blocks: channels of each SE block, in network order; empty where there is none.
  """

  def __init__(self, predictor: Predictor, largest: int = 16):
    """Compiles nothing yet; no batch will have more than `largest` images, or one a device."""
    sizes = itertools.takewhile(lambda n: n < largest, (4**i for i in itertools.count()))
    devices = predictor.mesh.size
    self.predictor = predictor
    self.batch_sizes = tuple(sorted({runtime.fill_devices(n, devices) for n in (*sizes, largest)}))
    self.blocks: dict[str, int] = {}
    self._open: _Batch | None = None  # the one that is next, which others may join
    self._joining = threading.Lock()

  def __enter__(self) -> 'Classifier':
    self._decoders = ThreadPoolExecutor(runtime.usable_cores(), 'decode')
    self._device = ThreadPoolExecutor(1, 'device')
    self._program = self._compiled()
    blank = np.zeros(self.predictor.preprocessing.shape, np.uint8)
    for size in self.batch_sizes:
      self._device.submit(self._run, [blank] * size).result()
    return self

  def __exit__(self, *_) -> None:
    for pool in (self._decoders, self._device):
      pool.shutdown(cancel_futures=True)

  async def answer(self, photo: bytes) -> Answer:
    """Returns what the network makes of an encoded photo.

    Raises:
      UnreadableImage: it is none, damaged, or too large.
    """
    loop = asyncio.get_running_loop()
    image = await loop.run_in_executor(self._decoders, self.predictor.read, photo)
    batch, place = self._join(image)
    try:
      # The others in the batch want theirs, even if this one is not waited for any more.
      return (await asyncio.shield(asyncio.wrap_future(batch.answers)))[place]
    finally:
      with self._joining:
        batch.images.pop(place, None)  # who leaves before it runs is left out

  def _join(self, image: np.ndarray) -> tuple['_Batch', int]:
    """Puts an image into the next batch; returns it and the image's place."""
    with self._joining:
      if self._open is None or len(self._open.images) == self.batch_sizes[-1]:
        self._open = _Batch()
        self._open.answers = self._device.submit(self._close_and_run, self._open)
      place = next(self._open.places)
      self._open.images[place] = image
      return self._open, place

  def _close_and_run(self, batch: '_Batch') -> dict[int, Answer]:
    """Answers those who are in a batch now, which nobody joins any more, by their places."""
    with self._joining:
      if self._open is batch:
        self._open = None
      images = dict(batch.images)
    return dict(zip(images, self._run(list(images.values())), strict=True)) if images else {}

  def _run(self, batch: Sequence[np.ndarray]) -> list[Answer]:
    """Answers at least one image, at most those of the largest batch."""
    size = next(size for size in self.batch_sizes if size >= len(batch))
    images = np.zeros((size, *self.predictor.preprocessing.shape), np.uint8)
    images[: len(batch)] = batch
    shares = NamedSharding(self.predictor.mesh, PartitionSpec(runtime.DATA_AXIS))
    outputs = self._program(self.predictor.variables, jax.device_put(images, shares))
    probabilities, gates = jax.device_get(outputs)
    self.predictor.check_finite(np.isfinite(probabilities))
    ends = np.cumsum(list(self.blocks.values()), dtype=int)
    return [
      Answer(row, dict(zip(self.blocks, np.split(channels, ends[:-1]), strict=bool(self.blocks))))
      for row, channels in zip(probabilities[: len(batch)], gates, strict=False)
    ]

  def _compiled(self) -> Callable:
    """Returns `(variables, images) -> probabilities [N, K], gates [N, C]` of all blocks."""
    model, preprocessing = self.predictor.model, self.predictor.preprocessing

    def run(variables: dict, images: jax.Array) -> tuple[jax.Array, jax.Array]:
      logits, state = model.apply(
        variables, preprocessing.to_input(images), train=False, mutable=['intermediates']
      )
      n = len(images)
      gates = excitations(state.get('intermediates', {}))
      self.blocks = {name: gate.shape[-1] for name, gate in gates.items()}  # when it is traced
      means = [gate.reshape(n, -1, gate.shape[-1]).mean(1) for gate in gates.values()]
      return jax.nn.softmax(logits), jnp.concatenate([jnp.zeros((n, 0)), *means], 1)

    shares = PartitionSpec(runtime.DATA_AXIS)
    return runtime.data_parallel(run, self.predictor.mesh, (PartitionSpec(), shares), shares)
