"""The streaming feed: encoded images read, decoded and cropped by the host while the device works.

Batches are addressed as in the device feed: batch `s` holds the examples at positions
`s * batch_size` and up of an endless sequence of shuffled epochs. A host reads its own part of each
batch and nothing else, so that no example is lost or seen twice whatever the number of hosts, and a
run goes on from any step. Images travel as uint8; colours, flips and normalisation are the
device's work.
"""

import abc
import collections
import dataclasses
import functools
import itertools
import logging
import platform
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.config.randaugment import Policy
from senet_jax.data import datasets, decoding, draws, preprocessing, repeats, sources
from senet_jax.data.class_order import ClassOrder
from senet_jax.data.crops import Crops, CropTransform
from senet_jax.data.photos import UnreadableImage
from senet_jax.data.preprocessing import TrainingTransform, Transform
from senet_jax.data.randaugment import Moving, RandAugment
from senet_jax.data.sources import Source
from senet_jax.errors import Stalled, UserError

# Examples that a thread reads and decodes at a time.
_BLOCK = 32
# Batches that are worked on ahead of the one that is asked for, on the host and to the devices.
_AHEAD = 2

# Of an image that cannot be read or decoded.
_FAILURES = (OSError, RuntimeError, UnreadableImage)

_log = logging.getLogger('senet_jax')


@dataclasses.dataclass(frozen=True)
class Order:
  """The examples that a host reads: those of its places in each batch, in the order of the steps.

  Attributes:
    num_examples: of the split.
    batch_size: of all hosts.
    seed: of the shuffling, anew in each epoch; None: the examples once, in their order, and the
      last one again to fill the last batch.
    host: number of this host.
    hosts: how many there are.
    by_class: the order of class-aware sampling instead; epochs are then those of each class.
    repeats: how often a batch has each of its examples; each time has another epoch, so that it is
      augmented differently.
  """

  num_examples: int
  batch_size: int
  seed: int | None
  host: int = 0
  hosts: int = 1
  by_class: ClassOrder | None = None
  repeats: int = 1

  @property
  def local_size(self) -> int:
    """Examples of a batch that this host reads."""
    return self.batch_size // self.hosts

  def examples(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position in the endless sequence, epoch and index, each `[n]` int64, of a step's examples."""
    place = self.host * self.local_size + np.arange(self.local_size)
    if self.repeats > 1:
      place = repeats.spread(self.batch_size, self.repeats)[place]
    position = step * self.batch_size + place
    if self.seed is None:
      return position, np.zeros_like(position), np.minimum(position, self.num_examples - 1)
    if self.by_class:
      return position, *self.by_class.examples(position)
    epoch, offset = np.divmod(position, self.num_examples)
    keys = np.stack([np.full_like(epoch, self.seed), epoch, np.zeros_like(epoch)], 1)
    index = draws.shuffled(offset // self.repeats, keys, self.num_examples)
    return position, epoch * self.repeats + offset % self.repeats, index


class Stream:
  """Batches of decoded images of one host.

  Threads read and decode blocks of images; Pillow does so outside the interpreter lock. There is no
  tf.data here: its iterators, freed with the lock held, wait for reads that need it.

  An image that cannot be read or decoded is named and counted. In training, the next readable one
  by index takes its place; in an evaluation its place is marked.

  Attributes:
    source: of the encoded images.
    order: in which they are read; it shuffles in training.
    shape: `(H, W, 3)`, or with crops in front.
    num_classes: labels are below it.
    max_damaged: unreadable images that are tolerated.
    read_timeout: seconds to wait for an image.
    damaged: names of those found, by index.
  """

  def __init__(
    self,
    source: Source,
    order: Order,
    decode: Callable[[bytes, np.ndarray], np.ndarray],
    shape: tuple[int, ...],
    num_classes: int,
    max_damaged: int,
    read_timeout: float,
  ):
    """Starts nothing yet; `decode` maps an encoded image and a key `[2]` int64 to an image."""
    self.source, self.order, self.shape = source, order, shape
    self.num_classes, self.max_damaged = num_classes, max_damaged
    self.read_timeout = read_timeout
    self.damaged: dict[int, str] = {}
    self._decode = decode

  def batches(self, first: int, last: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """The batches from step `first` on, up to step `last` (exclusive).

    Yields:
      `images` `[n, H, W, 3]` uint8, `labels`, `epoch`, `index` `[n]` int32, `position` `[n]`
      int64 and `readable` `[n]` bool.

    Raises:
      UserError: too many images are unreadable, or a label is no class; `Stalled`: one does not
        come in time.
    """
    steps = itertools.count(first) if last is None else range(first, last)
    under_way: collections.deque = collections.deque()
    # One more than cores: something is to be done while one waits for the interpreter.
    pool = futures.ThreadPoolExecutor(runtime.usable_cores() + 1, 'senet_jax-decode')
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
    """An empty batch, and the work that fills it."""
    position, epoch, index = self.order.examples(step)
    n = len(index)
    batch: dict[str, np.ndarray] = {
      'images': np.zeros((n, *self.shape), np.uint8),
      'labels': np.zeros(n, np.int32),
      'epoch': epoch.astype(np.int32),
      'index': index.astype(np.int32),
      'position': position,
      'readable': np.ones(n, bool),
    }
    blocks = [slice(at, at + _BLOCK) for at in range(0, n, _BLOCK)]
    return batch, [pool.submit(self._fill, batch, block) for block in blocks]

  def _fill(self, batch: dict[str, np.ndarray], block: slice) -> list[int]:
    """Reads and decodes a block of a batch; returns the indices that could not be."""
    epoch, index = batch['epoch'][block].astype(np.int64), batch['index'][block].astype(np.int64)
    try:
      batch['images'][block], batch['labels'][block] = self._read(epoch, index)
      return []
    except _FAILURES:  # of one image or more: each by itself
      places = range(*block.indices(len(batch['index'])))
      return [bad for place in places for bad in self._fill_one(batch, place)]

  def _fill_one(self, batch: dict[str, np.ndarray], place: int) -> list[int]:
    epoch, first = batch['epoch'][[place]].astype(np.int64), int(batch['index'][place])
    # In an evaluation nothing may take the place of an example.
    tries = 1 if self.order.seed is None else self.source.num_examples
    bad = []
    for index in ((first + i) % self.source.num_examples for i in range(tries)):
      try:
        images, labels = self._read(epoch, np.array([index]))
      except _FAILURES:
        bad.append(index)
        if len(bad) > self.max_damaged:
          break  # the run ends with this
        continue
      batch['images'][place], batch['labels'][place] = images[0], labels[0]
      batch['index'][place] = index
      return bad
    batch['readable'][place] = False
    return bad

  def _read(self, epoch: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    encoded, labels = self.source.read(index)
    # Each draw is keyed by (seed, epoch, index).
    keys = draws.fold_in(np.stack([np.full_like(epoch, self.order.seed or 0), epoch], 1), index)
    images = [self._decode(one, key) for one, key in zip(encoded, keys, strict=True)]
    return np.stack(images), labels

  def _finish(
    self, batch: dict[str, np.ndarray], work: list[futures.Future]
  ) -> dict[str, np.ndarray]:
    for number, block in enumerate(work):
      try:
        bad = block.result(self.read_timeout)
      except futures.TimeoutError:
        image = self.source.name(int(batch['index'][number * _BLOCK]))
        raise Stalled(
          f'{platform.node()} has waited {self.read_timeout:g} s for {image} and those read with '
          'it; check the disk or network, or raise config.data.read_timeout.'
        ) from None
      for index in bad:
        self._note_damage(index)
    if self.order.seed is not None and not batch['readable'].all():
      raise UserError(f'no image of {self.source.where} can be decoded.')
    labels = batch['labels']
    wrong = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
    if wrong.size:
      raise UserError(
        f'label {labels[wrong[0]]} of {self.source.name(int(batch["index"][wrong[0]]))} is outside '
        f'0 to {self.num_classes - 1}; change the data or config.model.num_classes.'
      )
    return batch

  def _note_damage(self, index: int) -> None:
    if index in self.damaged:
      return
    self.damaged[index] = name = self.source.name(index)
    count, most = len(self.damaged), self.max_damaged
    if count > most:
      raise UserError(
        f'{count} images of {self.source.where} cannot be read or decoded, more than '
        f'config.data.max_damaged={most} allows, the last of them {name}; remove or replace them, '
        'or raise the limit.'
      )
    _log.warning(
      'unreadable image %d of at most %d in %s: %s', count, most, self.source.where, name
    )


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
    """The batch of `step`; unless it is the last one or the one after it, reading starts anew."""
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
class _Streamed(abc.ABC):
  """The base of the streaming feeds.

  Attributes:
    split: the source of the examples.
    batch_size: images a step, over all devices.
    stream: this host's part of the batches.
    transform: from images to inputs.
    mesh: the devices.
  """

  split: Source
  batch_size: int
  stream: Stream
  transform: TrainingTransform | Transform | CropTransform
  mesh: Mesh
  # Every device gets its share of the batch.
  input_spec = PartitionSpec(runtime.DATA_AXIS)

  def __post_init__(self):
    self._to_devices = _ToDevices(self._batches, self.mesh)

  @property
  def damaged(self) -> dict[int, str]:
    """Names of the images that could not be decoded, by index."""
    return self.stream.damaged

  @abc.abstractmethod
  def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields what the devices get, from step `first` on."""


class StreamFeed(_Streamed):
  """Training batches that are streamed; `transform` makes random changes, too."""

  transform: TrainingTransform

  @classmethod
  def create(cls, config: ConfigDict, mesh: Mesh) -> 'StreamFeed':
    """The feed of a run.

    Raises:
      UserError: the data is not usable, or the batch does not fit the devices.
    """
    runtime.per_device(config.batch_size, mesh.size)
    transform, data = TrainingTransform.create(config), config.data
    decode = functools.partial(
      decoding.training_image,
      size=transform.plain.shape[0],
      area=tuple(data.crop_area),
      aspect=tuple(data.crop_aspect),
      rotation=data.rotation,
      fill='nearest' if data.pad_fill == 'nearest' else 'reflect',
      interpolation=data.crop_interpolation,
      randaugment=_randaugment(config, transform.plain),
    )
    source = sources.open_source(config, data.train_split)
    stream = _stream(config, source, decode, transform.plain.shape, config.batch_size, config.seed)
    return cls(source, config.batch_size, stream, transform, mesh)

  def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
    for batch in self.stream.batches(first):
      yield {name: batch[name] for name in ('images', 'labels', 'epoch', 'index')}

  def inputs(self, step: int, limit: int) -> tuple[dict[str, jax.Array], int]:
    """Returns the inputs of a program that runs `step`, and 1, the steps that they allow."""
    del limit
    return self._to_devices.at(step), 1

  def batch(self, inputs: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    """This device's share of the batch of `step`; runs inside the compiled program.

    Returns:
      `images` `[n, S, S, 3]` float32, `labels` `[n]` int32, with `n` the batch over the devices,
      and what `Mixing` adds.
    """
    return self.transform.batch(**inputs, step=step)


class StreamEvalFeed(_Streamed):
  """Evaluation batches that are streamed: each example once, in order.

  The last batch is padded and masked; an image that cannot be decoded is masked, too.
  """

  transform: Transform | CropTransform

  @classmethod
  def create(
    cls,
    config: ConfigDict,
    split: str,
    mesh: Mesh,
    crops: Crops | None = None,
    source: Source | None = None,
  ) -> 'StreamEvalFeed':
    """The feed over `split`.

    Args:
      config: of the run.
      split: of its data.
      mesh: the devices.
      crops: that are taken of each image, for a `CropTransform`; None: its middle, as it is.
      source: part of the split; None: all of it.
    """
    transform = preprocessing.evaluation_transform(config)
    source = source or sources.open_source(config, split)
    wanted = min(config.eval.batch_size or config.batch_size, source.num_examples)
    batch_size = runtime.fill_devices(wanted, mesh.size)

    def decode(encoded: bytes, key: np.ndarray) -> np.ndarray:
      del key
      if crops:
        return crops.of_photo(encoded)
      return decoding.evaluation_image(
        encoded,
        size=transform.shape[0],
        resize=transform.resize,
        keep_aspect=transform.keep_aspect,
        interpolation=transform.interpolation,
      )

    shape = crops.photo_shape if crops else transform.shape
    stream = _stream(config, source, decode, shape, batch_size, seed=None)
    return cls(source, batch_size, stream, transform, mesh)

  def __len__(self) -> int:
    return -(-self.split.num_examples // self.batch_size)

  def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
    for batch in self.stream.batches(first, len(self)):
      valid = batch['readable'] & (batch['position'] < self.split.num_examples)
      yield {
        'images': batch['images'],
        'labels': batch['labels'],
        'mask': valid.astype(np.float32),
      }

  def inputs(self, step: int) -> dict[str, jax.Array]:
    """Returns the inputs of a program that evaluates batch `step`."""
    return self._to_devices.at(step)

  def batch(self, inputs: dict[str, jax.Array]) -> dict[str, Any]:
    """This device's share: as of `StreamFeed.batch`, and `mask` `[n]`, 0.0 for no example."""
    return {**inputs, 'images': self.transform.to_input(inputs['images'])}


def _randaugment(config: ConfigDict, plain: Transform) -> RandAugment | None:
  """Returns the RandAugment of a run; what comes in from outside is of the mean colour."""
  data = config.data
  if data.randaugment is None:
    return None
  fill = tuple(min(255, round(x)) for x in plain.mean)
  moving = Moving(fill, decoding.RESAMPLINGS[data.crop_interpolation])
  return RandAugment(Policy.parse(data.randaugment), moving)


def _stream(
  config: ConfigDict,
  source: Source,
  decode: Callable,
  shape: tuple[int, ...],
  batch_size: int,
  seed: int | None,
) -> Stream:
  hosts = {'host': jax.process_index(), 'hosts': jax.process_count()}
  num_classes = config.model.num_classes or source.num_classes
  by_class, times = None, config.data.repeats if seed is not None else 1
  if seed is not None and config.data.sampling == 'class_aware':
    labels = source.labels()
    datasets.check_labels(labels, num_classes, source.where)
    by_class = ClassOrder(labels, seed)
  return Stream(
    source,
    Order(source.num_examples, batch_size, seed, **hosts, by_class=by_class, repeats=times),
    decode,
    shape,
    num_classes,
    config.data.max_damaged,
    config.data.read_timeout,
  )
