"""Batches of encoded images that the host reads and decodes while the device works.

One piece for all tasks. An `Order` says which examples a step has, a source gives them encoded, and
a `Form` decodes them into arrays. Here are the threads, the reading ahead, the images that cannot
be read, the waiting and the way to the devices.
"""

import abc
import collections
import dataclasses
import functools
import itertools
import logging
import platform
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, ClassVar, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from senet_jax import runtime
from senet_jax.data import draws
from senet_jax.data.photos import UnreadableImage
from senet_jax.data.workers import Workers
from senet_jax.errors import Stalled, UserError

# Batches that are worked on ahead of the one that is asked for, on the host and to the devices.
_AHEAD = 2

# Errors of an image that cannot be read or decoded.
_FAILURES = (OSError, RuntimeError, UnreadableImage)
# Characters of an error that a message about an image has.
_REASON = 200

# Shape and dtype of one example, by the name of an array.
Spec = dict[str, tuple[tuple[int, ...], Any]]

_log = logging.getLogger('senet_jax')


class Order(Protocol):
  """Which examples this host reads at each step."""

  @property
  def seed(self) -> int | None:
    """The seed of the shuffling; None for an evaluation, which has each example once."""

  def examples(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns position, epoch and index, each `[n]` int64, of a step's examples."""

  def instead(self, index: int) -> Iterable[int]:
    """Returns an example and, in this order, those that may take its place if it is unreadable."""


class Readable(Protocol):
  """Encoded images by index, such as a `sources.Source`, which describes them."""

  @property
  def where(self) -> str:
    """The data set and its split, in words."""

  @property
  def num_examples(self) -> int:
    """The number of images of the split."""

  @property
  def read(self) -> Callable[[np.ndarray], tuple[list[bytes], np.ndarray]]:
    """The function that gives encoded images by index, and what the form is told of each."""

  @property
  def name(self) -> Callable[[int], str]:
    """The function that names the example of an index for people."""


class Form(abc.ABC):
  """Makes arrays of encoded images.

  Attributes:
    block: examples that a thread reads and decodes at a time.
    num_draws: uniform numbers that an example needs for its random changes.
    workers: processes that decode; None: the threads do.
  """

  block = 32
  num_draws = 0
  workers: Workers | None = None

  @property
  @abc.abstractmethod
  def shapes(self) -> Sequence[tuple[int, ...]]:
    """The shapes that images have, all of them."""

  @abc.abstractmethod
  def shape_at(self, step: int) -> tuple[int, ...]:
    """Returns the shape that the images of a step have."""

  @abc.abstractmethod
  def spec(self, shape: tuple[int, ...]) -> Spec:
    """Returns shape and dtype of what an example has, by name, given the shape of images."""

  def empty(self, step: int, count: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a batch, `[count, ...]`, to be filled; an unreadable image stays so."""
    spec = self.spec(self.shape_at(step))
    return {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in spec.items()}

  @abc.abstractmethod
  def put(
    self, batch: dict[str, np.ndarray], place: int, encoded: bytes, label: Any, drawn: np.ndarray
  ) -> None:
    """Decodes an image into its place of a batch; called in threads.

    Args:
      batch: from `empty`.
      place: in it.
      encoded: the image.
      label: what the source gave with it.
      drawn: `[num_draws]` float32, uniform in [0, 1), for its random changes.

    Raises:
      UnreadableImage: it cannot be decoded; the batch is then as it was.
    """

  def fill(
    self,
    batch: dict[str, np.ndarray],
    places: Sequence[int],
    encoded: list[bytes],
    labels: np.ndarray,
    drawn: np.ndarray,
  ) -> None:
    """Decodes images into their places; otherwise as `put`, whose arguments these are, of each."""
    for place, image, label, own in zip(places, encoded, labels, drawn, strict=True):
      self.put(batch, place, image, label, own)

  def check(self, batch: dict[str, np.ndarray]) -> None:
    """Checks a whole batch, if there is anything to check.

    Raises:
      UserError: something in it is invalid.
    """
    del batch


class Stream:
  """Batches of decoded images of one host.

  Threads read and decode blocks of images; Pillow does so outside the interpreter lock. The threads
  of a form that has workers read, and wait for what those decode. There is no tf.data here: its
  iterators, freed with the lock held, wait for reads that need it.

  An image that cannot be read or decoded is named and counted. In training, the next readable one
  that the order allows takes its place; where there is none, and in an evaluation, its place stays
  as it was and is marked.

  Attributes:
    source: of the encoded images.
    order: in which they are read; it shuffles in training.
    form: decodes them.
    max_damaged: unreadable images that are tolerated.
    read_timeout: seconds to wait for an image.
    damaged: names of those found, by index.
  """

  def __init__(
    self, source: Readable, order: Order, form: Form, max_damaged: int, read_timeout: float
  ):
    """Starts nothing yet."""
    self.source, self.order, self.form = source, order, form
    self.max_damaged, self.read_timeout = max_damaged, read_timeout
    self.damaged: dict[int, str] = {}

  def batches(self, first: int, last: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Yields the batches from step `first` on, up to step `last` (exclusive).

    Yields:
      What the form makes, `epoch` and `index` `[n]` int32, `position` `[n]` int64 and `readable`
      `[n]` bool.

    Raises:
      UserError: too many images are unreadable, or the form refuses a batch; `Stalled`: one does
        not come in time.
    """
    steps = itertools.count(first) if last is None else range(first, last)
    under_way: collections.deque = collections.deque()
    # One more than work at once: something is to be done while one waits for the interpreter.
    at_once = len(self.form.workers) if self.form.workers else runtime.usable_cores()
    pool = futures.ThreadPoolExecutor(at_once + 1, 'senet_jax-decode')
    try:
      for step in steps:
        under_way.append(self._start(step, pool))
        if len(under_way) > _AHEAD:
          yield self._finish(*under_way.popleft())
      while under_way:
        yield self._finish(*under_way.popleft())
    finally:
      pool.shutdown(wait=False, cancel_futures=True)

  def _start(
    self, step: int, pool: futures.Executor
  ) -> tuple[dict[str, np.ndarray], list[futures.Future]]:
    """Returns an empty batch, and the work that fills it."""
    position, epoch, index = self.order.examples(step)
    n = len(index)
    batch: dict[str, np.ndarray] = {
      **self.form.empty(step, n),
      'epoch': epoch.astype(np.int32),
      'index': index.astype(np.int32),
      'position': position,
      'readable': np.ones(n, bool),
    }
    blocks = [range(at, min(at + self.form.block, n)) for at in range(0, n, self.form.block)]
    return batch, [pool.submit(self._fill, batch, block) for block in blocks]

  def _fill(self, batch: dict[str, np.ndarray], block: range) -> list[tuple[int, str]]:
    """Reads and decodes a block of a batch; returns the indices that could not be, and why."""
    try:
      self._put(batch, block, batch['index'][block].astype(np.int64))
      return []
    except _FAILURES:  # of one image or more: each by itself
      return [bad for place in block for bad in self._fill_one(batch, place)]

  def _fill_one(self, batch: dict[str, np.ndarray], place: int) -> list[tuple[int, str]]:
    bad = []
    for index in self.order.instead(int(batch['index'][place])):
      try:
        self._put(batch, [place], np.array([index]))
      except _FAILURES as error:
        bad.append((index, textwrap.shorten(str(error), _REASON, placeholder=' …')))
        if len(bad) > self.max_damaged:
          break  # the run ends with this
        continue
      batch['index'][place] = index
      return bad
    batch['readable'][place] = False
    return bad

  def _put(self, batch: dict[str, np.ndarray], places: Sequence[int], index: np.ndarray) -> None:
    encoded, labels = self.source.read(index)
    drawn = self._drawn(batch['epoch'][places].astype(np.int64), index)
    self.form.fill(batch, places, encoded, labels, drawn)

  def _drawn(self, epoch: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Returns `[n, num_draws]` of `n` examples, each row keyed by (seed, epoch, index).

    All at once: a row by itself costs as much, and holds the interpreter lock for as long.
    """
    if not self.form.num_draws:
      return np.empty((len(index), 0), np.float32)
    keys = draws.fold_in(np.stack([np.full_like(epoch, self.order.seed or 0), epoch], 1), index)
    return draws.uniform(keys, self.form.num_draws)

  def _finish(
    self, batch: dict[str, np.ndarray], work: list[futures.Future]
  ) -> dict[str, np.ndarray]:
    for number, block in enumerate(work):
      try:
        bad = block.result(self.read_timeout)
      except futures.TimeoutError:
        image = self.source.name(int(batch['index'][number * self.form.block]))
        raise Stalled(
          f'{platform.node()} has waited {self.read_timeout:g} s for {image} and those read with '
          'it; check the disk or network, or raise config.data.read_timeout.'
        ) from None
      for index, reason in bad:
        self._note_damage(index, reason)
    misses = self.order.seed is not None and not batch['readable'].all()
    if misses and len(self.damaged) == self.source.num_examples:
      raise UserError(f'no image of {self.source.where} can be decoded.')
    self.form.check(batch)
    return batch

  def _note_damage(self, index: int, reason: str) -> None:
    if index in self.damaged:
      return
    self.damaged[index] = name = self.source.name(index)
    count, most = len(self.damaged), self.max_damaged
    if count > most:
      raise UserError(
        f'{count} images of {self.source.where} cannot be read or decoded, more than '
        f'config.data.max_damaged={most} allows, the last of them {name} ({reason}); remove or '
        'replace them, or raise the limit.'
      )
    _log.warning(
      'unreadable image %d of at most %d in %s: %s (%s)',
      count, most, self.source.where, name, reason,
    )  # fmt: skip


class _ToDevices:
  """Batches by step; the next ones are read and sent to the devices meanwhile."""

  def __init__(self, batches: Callable[[int], Iterator[dict]], mesh: Mesh):
    sharding = NamedSharding(mesh, PartitionSpec(runtime.DATA_AXIS))
    self._batches = batches
    self._place = functools.partial(jax.make_array_from_process_local_data, sharding)
    self._thread = futures.ThreadPoolExecutor(1, 'senet_jax-feed')
    self._under_way: collections.deque[futures.Future] = collections.deque()
    self._step: int | None = None  # of `_batch`
    self._batch: Any = None

  def at(self, step: int) -> dict[str, jax.Array]:
    """Returns the batch of `step`; reading starts anew unless it is the last one or the next."""
    if step == self._step:
      return self._batch
    if self._step is None or step != self._step + 1:
      while self._under_way:
        self._under_way.pop().cancel()
      self._iterator = self._batches(step)
    while len(self._under_way) <= _AHEAD:
      self._under_way.append(self._thread.submit(self._fetch, self._iterator))
    self._step, self._batch = step, self._under_way.popleft().result()
    return self._batch

  def _fetch(self, iterator: Iterator[dict]) -> dict[str, jax.Array] | None:
    batch = next(iterator, None)
    return batch and jax.tree.map(self._place, batch)


@dataclasses.dataclass
class Streamed(abc.ABC):
  """The base of the streaming feeds.

  Attributes:
    split: the source of the examples.
    batch_size: images a step, over all devices.
    stream: this host's part of the batches.
    transform: from images to inputs.
    mesh: the devices.
  """

  split: Any
  batch_size: int
  stream: Stream
  transform: Any
  mesh: Mesh
  # Every device gets its share of the batch.
  input_spec = PartitionSpec(runtime.DATA_AXIS)
  # What the devices get besides that of the form.
  _more: ClassVar[Spec] = {}

  def __post_init__(self):
    self._to_devices = _ToDevices(self._batches, self.mesh)

  @property
  def damaged(self) -> dict[int, str]:
    """Names of the images that could not be decoded, by index; a copy, as threads add to them."""
    return dict(self.stream.damaged)

  def know(self, damaged: Mapping[int, str]) -> None:
    """Adds images that others have found damaged, names by index."""
    self.stream.damaged.update(damaged)

  def shapes(self) -> list[dict[str, jax.ShapeDtypeStruct]]:
    """Returns what `inputs` gives, without the data: one for each shape of the images."""
    sharding, form = NamedSharding(self.mesh, self.input_spec), self.stream.form
    return [
      {
        name: jax.ShapeDtypeStruct((self.batch_size, *shape), dtype, sharding=sharding)
        for name, (shape, dtype) in {**form.spec(of_images), **self._more}.items()
      }
      for of_images in form.shapes
    ]

  @abc.abstractmethod
  def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields what the devices get, from step `first` on."""


class StreamedTraining(Streamed):
  """The base of the streaming feeds of training."""

  def inputs(self, step: int, limit: int) -> tuple[dict[str, jax.Array], int]:
    """Returns the inputs of a program that runs `step`, and 1, the steps that they allow."""
    del limit
    return self._to_devices.at(step), 1

  def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
    names = list(self.shapes()[0])
    for batch in self.stream.batches(first):
      yield {name: batch[name] for name in names}


class StreamedEvaluation(Streamed):
  """The base of the streaming feeds of evaluations: each example once, and no more."""

  _more: ClassVar[Spec] = {'mask': ((), np.float32)}

  @abc.abstractmethod
  def __len__(self) -> int: ...

  def inputs(self, step: int) -> dict[str, jax.Array]:
    """Returns the inputs of a program that evaluates batch `step`."""
    return self._to_devices.at(step)

  def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
    names = list(self.shapes()[0])
    for batch in self.stream.batches(first, len(self)):
      batch.update(self._added(batch))
      yield {name: batch[name] for name in names}

  def _added(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what a batch of the stream does not have: `mask`, 0.0 for no example."""
    mask = batch['readable'] & (batch['position'] < self.split.num_examples)
    return {'mask': mask.astype(np.float32)}
