"""The streaming feed: encoded images read, decoded and cropped by the host while the device works.

Batches are addressed as in the device feed: batch `s` holds the examples at positions
`s * batch_size` and up of an endless sequence of shuffled epochs. A host reads its own part of each
batch and nothing else, so that no example is lost or seen twice whatever the number of hosts, and a
run goes on from any step. Images travel as uint8; colours, flips and normalisation are the
device's work.
"""

import collections
import dataclasses
import functools
import itertools
import logging
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import TYPE_CHECKING

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.data import decoding, preprocessing, sources
from senet_jax.data.preprocessing import TrainingTransform, Transform
from senet_jax.data.sources import Source
from senet_jax.errors import UserError

if TYPE_CHECKING:
  import tensorflow as tf

# Examples that are read by one call from TensorFlow into Python.
_BLOCK = 16
# Batches under way to the devices.
_AHEAD = 2

_log = logging.getLogger('senet_jax')


@dataclasses.dataclass(frozen=True)
class Order:
  """Which examples a host reads: those of its places in each batch, in the order of the steps.

  Attributes:
    num_examples: of the split.
    batch_size: of all hosts.
    seed: of the shuffling, anew in each epoch; None: the examples once, in their order, and the
      last one again to fill the last batch.
    host: number of this host.
    hosts: how many there are.
  """

  num_examples: int
  batch_size: int
  seed: int | None
  host: int = 0
  hosts: int = 1

  @property
  def local_size(self) -> int:
    """Examples of a batch that this host reads."""
    return self.batch_size // self.hosts

  def dataset(self, first: int, last: int | None = None) -> 'tf.data.Dataset':
    """Blocks of `(position, epoch, index)`, each `[m]` int64, of the steps `first` to `last`."""
    tf = runtime.import_tensorflow()
    stop = np.iinfo(np.int64).max if last is None else last * self.local_size
    reads = tf.data.Dataset.range(first * self.local_size, stop)
    # A block never reaches into another step.
    block = _largest_divisor(self.local_size, _BLOCK)
    return _map(reads.batch(block, drop_remainder=True), self._examples)

  def _examples(self, reads: 'tf.Tensor') -> tuple['tf.Tensor', 'tf.Tensor', 'tf.Tensor']:
    tf = runtime.import_tensorflow()
    step, place = reads // self.local_size, reads % self.local_size
    position = step * self.batch_size + self.host * self.local_size + place
    if self.seed is None:
      return position, tf.zeros_like(position), tf.minimum(position, self.num_examples - 1)
    epoch, offset = position // self.num_examples, position % self.num_examples
    # Not tf.random.experimental.index_shuffle, which spoils a batch of seeds (seen in 2.21).
    seeds = tf.stack([tf.fill(tf.shape(epoch), tf.constant(self.seed, tf.int64)), epoch], 1)
    shuffled = tf.raw_ops.RandomIndexShuffle(
      index=offset,
      seed=tf.pad(seeds, [(0, 0), (0, 1)]),  # it wants three
      max_index=tf.constant(self.num_examples - 1, tf.int64),
      rounds=8,
    )
    return position, epoch, shuffled


def _map(
  dataset: 'tf.data.Dataset', function: Callable, *, parallel: bool = False
) -> 'tf.data.Dataset':
  tf = runtime.import_tensorflow()
  calls = tf.data.AUTOTUNE if parallel else None
  return dataset.map(tf.autograph.experimental.do_not_convert(function), calls)


def _largest_divisor(number: int, most: int) -> int:
  return max(d for d in range(1, most + 1) if number % d == 0)


@dataclasses.dataclass
class Stream:
  """Batches of decoded images of one host.

  An image that cannot be decoded is named and counted; its place in the batch is marked.

  Attributes:
    source: of the encoded images.
    order: in which they are read.
    decode: an encoded image, a scalar string, and a seed `[2]` int32 to uint8 `[H, W, 3]`.
    shape: `(H, W, 3)`.
    num_classes: labels are below it.
    max_damaged: unreadable images that are tolerated.
    damaged: names of those found, by index.
  """

  source: Source
  order: Order
  decode: Callable[['tf.Tensor', 'tf.Tensor'], 'tf.Tensor']
  shape: tuple[int, int, int]
  num_classes: int
  max_damaged: int
  damaged: dict[int, str] = dataclasses.field(default_factory=dict)

  def batches(self, first: int, last: int | None = None) -> Iterator[dict[str, np.ndarray]]:
    """The batches from step `first` on, up to step `last` (exclusive).

    Yields:
      `images` `[n, H, W, 3]` uint8, `labels`, `epoch`, `index` `[n]` int32, `position` `[n]`
      int64 and `readable` `[n]` bool.

    Raises:
      UserError: too many images are unreadable, a file cannot be read, or a label is no class.
    """
    tf = runtime.import_tensorflow()
    batches = self._dataset(first, last).as_numpy_iterator()
    for step in itertools.count(first) if last is None else range(first, last):
      try:
        batch = next(batches)
      except tf.errors.OpError:
        batch = self._careful_batch(step)
        batches = self._dataset(step + 1, last).as_numpy_iterator()
        self._note_damage(batch)
      self._check_labels(batch)
      yield batch

  def _careful_batch(self, step: int) -> dict[str, np.ndarray]:
    tf = runtime.import_tensorflow()
    try:
      return next(self._dataset(step, step + 1, careful=True).as_numpy_iterator())
    except tf.errors.OpError as error:
      reason = next(line for line in error.message.splitlines() if line.strip())
      raise UserError(f'cannot read {self.source.where}: {reason}.') from error

  def _dataset(
    self, first: int, last: int | None = None, *, careful: bool = False
  ) -> 'tf.data.Dataset':
    """The batches of the steps; an unreadable image ends it, unless it is `careful`, and slower."""
    tf = runtime.import_tensorflow()
    blocks = self.order.dataset(first, last)
    examples = _map(blocks, self._read, parallel=True).unbatch()
    images = _map(examples, self._decode_carefully if careful else self._decode, parallel=True)
    options = tf.data.Options()
    options.deterministic = True
    return images.batch(self.order.local_size).prefetch(_AHEAD).with_options(options)

  def _read(self, position, epoch, index):
    tf = runtime.import_tensorflow()
    read = functools.partial(tf.numpy_function, self._read_records, Tout=tf.string)
    return position, epoch, index, tf.ensure_shape(read([index]), (None,))

  def _read_records(self, indices: np.ndarray) -> np.ndarray:
    records = np.empty(len(indices), object)
    records[:] = self.source.read(indices)
    return records

  def _decode(self, position, epoch, index, record) -> dict[str, 'tf.Tensor']:
    tf = runtime.import_tensorflow()
    encoded, label = self.source.parse(record, index)
    seed = tf.random.fold_in(tf.stack([self.order.seed or 0, epoch]), index)
    image = self.decode(encoded, tf.cast(seed, tf.int32))
    return self._example(position, epoch, index, image, label, True)

  def _example(self, position, epoch, index, image, label, readable) -> dict[str, 'tf.Tensor']:
    tf = runtime.import_tensorflow()
    return {
      'images': tf.ensure_shape(image, self.shape),
      'labels': tf.cast(label, tf.int32),
      'epoch': tf.cast(epoch, tf.int32),
      'index': tf.cast(index, tf.int32),
      'position': position,
      'readable': tf.constant(readable),
    }

  def _decode_carefully(self, position, epoch, index, record) -> dict[str, 'tf.Tensor']:
    """As `_decode`; where that fails, a black image of class 0 that is not `readable`."""
    tf = runtime.import_tensorflow()
    given = tf.data.Dataset.from_tensors((position, epoch, index, record))
    decoded = _map(given, self._decode).ignore_errors()

    def blank(position, epoch, index, record):
      del record
      image = tf.zeros(self.shape, tf.uint8)
      return self._example(position, epoch, index, image, tf.constant(0), False)

    return decoded.concatenate(_map(given, blank)).take(1).get_single_element()

  def _note_damage(self, batch: dict[str, np.ndarray]) -> None:
    for index in batch['index'][~batch['readable']].tolist():
      if index in self.damaged:
        continue
      self.damaged[index] = self.source.name(index)
      _log.warning(
        'unreadable image %d of at most %d in %s: %s',
        len(self.damaged), self.max_damaged, self.source.where, self.damaged[index],
      )  # fmt: skip
    if len(self.damaged) > self.max_damaged:
      raise UserError(
        f'{len(self.damaged)} images of {self.source.where} cannot be decoded, more than '
        f'config.data.max_damaged={self.max_damaged} allows, the last of them '
        f'{self.damaged[index]}; remove or replace them, or raise the limit.'
      )

  def _check_labels(self, batch: dict[str, np.ndarray]) -> None:
    labels = batch['labels']
    wrong = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
    if wrong.size:
      raise UserError(
        f'label {labels[wrong[0]]} of {self.source.name(int(batch["index"][wrong[0]]))} is outside '
        f'0 to {self.num_classes - 1}; change the data or config.model.num_classes.'
      )

  def replace_unreadable(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The batch with the next readable example, by index, in the place of an unreadable one."""
    if batch['readable'].all():
      return batch
    batch = {name: values.copy() for name, values in batch.items()}
    for place in np.flatnonzero(~batch['readable']):
      position, epoch = batch['position'][place], int(batch['epoch'][place])
      for step in range(1, self.source.num_examples):
        index = (int(batch['index'][place]) + step) % self.source.num_examples
        other = self._one(position, epoch, index)
        if other['readable']:
          break
        self._note_damage({k: np.asarray(v)[None] for k, v in other.items()})
      else:
        raise UserError(f'no image of {self.source.where} can be decoded.')
      for name, values in batch.items():
        values[place] = other[name]
    self._check_labels(batch)
    return batch

  def _one(self, position: int, epoch: int, index: int) -> dict[str, np.ndarray]:
    record = self.source.read(np.array([index]))[0]
    given = (np.int64(position), np.int64(epoch), np.int64(index), record)
    return {k: v.numpy() for k, v in self._decode_carefully(*given).items()}


class _ToDevices:
  """Batches by step; the next ones are read and sent to the devices meanwhile."""

  def __init__(self, batches: Callable[[int], Iterator[dict]], mesh: Mesh):
    sharding = NamedSharding(mesh, PartitionSpec(runtime.DATA_AXIS))
    self._batches = batches
    self._place = functools.partial(jax.make_array_from_process_local_data, sharding)
    self._thread = futures.ThreadPoolExecutor(1, 'senet_jax-feed')
    self._under_way: collections.deque[futures.Future] = collections.deque()
    self._step: int | None = None  # of `_batch`
    self._batch: dict[str, jax.Array] | None = None

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
class StreamFeed:
  """Training batches that are streamed.

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
  transform: TrainingTransform
  mesh: Mesh
  input_spec = PartitionSpec(runtime.DATA_AXIS)

  def __post_init__(self):
    self._to_devices = _ToDevices(self._batches, self.mesh)

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
    )
    stream = _stream(config, data.train_split, decode, config.batch_size, seed=config.seed)
    return cls(stream.source, config.batch_size, stream, transform, mesh)

  @property
  def damaged(self) -> dict[int, str]:
    """Names of the images that could not be decoded, by index."""
    return self.stream.damaged

  def _batches(self, first: int) -> Iterator[dict[str, np.ndarray]]:
    for batch in map(self.stream.replace_unreadable, self.stream.batches(first)):
      yield {name: batch[name] for name in ('images', 'labels', 'epoch', 'index')}

  def inputs(self, step: int, limit: int) -> tuple[dict[str, jax.Array], int]:
    """What the program needs to run `step`, and that it can run one step with it."""
    del limit
    return self._to_devices.at(step), 1

  def batch(self, inputs: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    """This device's share of the batch of `step`; runs inside the compiled program.

    Returns:
      `images` `[n, S, S, 3]` float32, `labels` `[n]` int32, with `n` the batch over the devices.
    """
    del step
    images = self.transform.to_input(inputs['images'], inputs['epoch'], inputs['index'])
    return {'images': images, 'labels': inputs['labels']}


@dataclasses.dataclass
class StreamEvalFeed:
  """Evaluation batches that are streamed: each example once, in order.

  Attributes:
    split: the source of the examples.
    batch_size: images a step, over all devices; the last batch is padded and masked, and so is an
      image that cannot be decoded.
    stream: this host's part of the batches.
    transform: from images to inputs.
    mesh: the devices.
  """

  split: Source
  batch_size: int
  stream: Stream
  transform: Transform
  mesh: Mesh
  input_spec = PartitionSpec(runtime.DATA_AXIS)

  def __post_init__(self):
    self._to_devices = _ToDevices(self._batches, self.mesh)

  @classmethod
  def create(cls, config: ConfigDict, split: str, mesh: Mesh) -> 'StreamEvalFeed':
    """The feed over `split`."""
    transform = preprocessing.evaluation_transform(config)
    batch_size = runtime.fill_devices(config.eval.batch_size or config.batch_size, mesh.size)

    def decode(encoded: 'tf.Tensor', seed: 'tf.Tensor') -> 'tf.Tensor':
      del seed
      return decoding.evaluation_image(encoded, size=transform.shape[0], resize=transform.resize)

    stream = _stream(config, split, decode, batch_size, seed=None)
    return cls(stream.source, batch_size, stream, transform, mesh)

  @property
  def damaged(self) -> dict[int, str]:
    """Names of the images that could not be decoded, by index."""
    return self.stream.damaged

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
    """What the program needs for batch `step`."""
    return self._to_devices.at(step)

  def batch(self, inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """This device's share: as of `StreamFeed.batch`, and `mask` `[n]`, 0.0 for no example."""
    return {**inputs, 'images': self.transform.to_input(inputs['images'])}


def _stream(
  config: ConfigDict, split: str, decode: Callable, batch_size: int, seed: int | None
) -> Stream:
  source = sources.open_source(config, split)
  order = Order(source.num_examples, batch_size, seed, jax.process_index(), jax.process_count())
  return Stream(
    source,
    order,
    decode,
    preprocessing.evaluation_transform(config).shape,
    config.model.num_classes or source.num_classes,
    config.data.max_damaged,
  )
