"""The streaming feed: encoded images read, decoded and cropped by the host while the device works.

Batches are addressed as in the device feed: batch `s` holds the examples at positions
`s * batch_size` and up of an endless sequence of shuffled epochs. A host reads its own part of each
batch and nothing else, so that no example is lost or seen twice whatever the number of hosts, and a
run goes on from any step. Images travel as uint8; colours, flips and normalisation are the
device's work.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.config.randaugment import Policy
from senet_jax.data import datasets, decoding, draws, preprocessing, repeats, sources, workers
from senet_jax.data.class_order import ClassOrder
from senet_jax.data.crops import Crops, CropTransform
from senet_jax.data.preprocessing import TrainingTransform, Transform
from senet_jax.data.randaugment import Moving, RandAugment
from senet_jax.data.sizes import Sizes
from senet_jax.data.sources import Source
from senet_jax.data.stream import Form, Spec, Stream, StreamedEvaluation, StreamedTraining
from senet_jax.data.workers import Decode, Workers
from senet_jax.errors import UserError


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
    """Returns position in the endless sequence, epoch and index of a step, each `[n]` int64."""
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

  def instead(self, index: int) -> Iterator[int]:
    """Yields an example and those behind it, of which the first readable one takes its place."""
    # In an evaluation nothing may take the place of an example.
    tries = 1 if self.seed is None else self.num_examples
    return ((index + i) % self.num_examples for i in range(tries))


@dataclasses.dataclass
class Labelled(Form):
  """Images of one shape, each with its class.

  Attributes:
    source: of the images, for messages.
    decode: of one image; it is pickled if there are workers.
    shape: `(H, W, 3)`, or with crops in front.
    num_classes: labels are below it.
    sizes: height and width by step, if they change.
    num_draws: see `Form`.
    workers: see `Form`.
  """

  source: Source
  decode: Decode
  shape: tuple[int, ...]
  num_classes: int
  sizes: Sizes | None = None
  num_draws: int = 0
  workers: Workers | None = None

  def spec(self, shape: tuple[int, ...]) -> Spec:
    """See `Form.spec`."""
    return {'images': (shape, np.uint8), 'labels': ((), np.int32)}

  def shape_at(self, step: int) -> tuple[int, ...]:
    """See `Form.shape_at`."""
    return self.shape if self.sizes is None else _square(self.sizes.at(step))

  @property
  def shapes(self) -> list[tuple[int, ...]]:
    """See `Form.shapes`."""
    if self.sizes is None:
      return [self.shape]
    return [_square(side) for side in dict.fromkeys(self.sizes.sides)]

  def put(
    self, batch: dict[str, np.ndarray], place: int, encoded: bytes, label: Any, drawn: np.ndarray
  ) -> None:
    """See `Form.put`."""
    batch['images'][place] = self.decode(encoded, drawn, batch['images'].shape[1:])
    batch['labels'][place] = label

  def fill(
    self,
    batch: dict[str, np.ndarray],
    places: Sequence[int],
    encoded: list[bytes],
    labels: np.ndarray,
    drawn: np.ndarray,
  ) -> None:
    """See `Form.fill`."""
    if self.workers is None:
      super().fill(batch, places, encoded, labels, drawn)
    else:
      shape = batch['images'].shape[1:]
      with self.workers.decoded(self.decode, encoded, drawn, shape) as images:
        batch['images'][places] = images
      batch['labels'][places] = labels

  def check(self, batch: dict[str, np.ndarray]) -> None:
    """See `Form.check`: each label is a class."""
    labels = batch['labels']
    wrong = np.flatnonzero((labels < 0) | (labels >= self.num_classes))
    if wrong.size:
      raise UserError(
        f'label {labels[wrong[0]]} of {self.source.name(int(batch["index"][wrong[0]]))} is outside '
        f'0 to {self.num_classes - 1}; change the data or config.model.num_classes.'
      )


class StreamFeed(StreamedTraining):
  """Training batches that are streamed; `transform` makes random changes, too."""

  transform: TrainingTransform
  _more: ClassVar[Spec] = {'epoch': ((), np.int32), 'index': ((), np.int32)}

  @classmethod
  def create(cls, config: ConfigDict, mesh: Mesh) -> 'StreamFeed':
    """Returns the feed of a run.

    Raises:
      UserError: the data is not usable, or the batch does not fit the devices.
    """
    runtime.per_device(config.batch_size, mesh.size)
    transform, data = TrainingTransform.create(config), config.data
    randaugment = _randaugment(config, transform.plain)
    decode = functools.partial(
      decoding.training_image,
      area=tuple(data.crop_area),
      aspect=tuple(data.crop_aspect),
      rotation=data.rotation,
      fill='nearest' if data.pad_fill == 'nearest' else 'reflect',
      interpolation=data.crop_interpolation,
      randaugment=randaugment,
    )
    source = sources.open_source(config, data.train_split)
    sizes = Sizes.create(config, source.num_examples)
    form = Labelled(
      source, decode, transform.plain.shape, _num_classes(config, source), sizes,
      decoding.training_draws(randaugment), workers.start(data.workers),
    )  # fmt: skip
    stream = _stream(config, form, config.batch_size, config.seed)
    return cls(source, config.batch_size, stream, transform, mesh)

  def batch(self, inputs: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    """Returns this device's share of the batch of `step`; runs inside the compiled program.

    Returns:
      `images` `[n, S, S, 3]` float32, `labels` `[n]` int32, with `n` the batch over the devices,
      and what `Mixing` adds.
    """
    transform = self.transform.at_size(inputs['images'].shape[1])
    return transform.batch(**inputs, step=step)


class StreamEvalFeed(StreamedEvaluation):
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
    """Returns the feed over `split`.

    Args:
      config: of the run.
      split: of its data.
      mesh: the devices.
      crops: that are taken of each image, for a `CropTransform`; None: its middle, as it is.
      source: part of the split; None: all of it.
    """
    transform = preprocessing.evaluation_transform(config)
    source = source or sources.open_source(config, split)
    batch_size = datasets.eval_batch_size(config, source.num_examples, mesh.size)
    middle = functools.partial(
      decoding.evaluation_image,
      size=transform.shape[0],
      resize=transform.resize,
      keep_aspect=transform.keep_aspect,
      interpolation=transform.interpolation,
    )
    decode = functools.partial(decoding.undrawn, crops.of_photo if crops else middle)
    shape = crops.photo_shape if crops else transform.shape
    form = Labelled(
      source, decode, shape, _num_classes(config, source),
      workers=workers.start(config.data.workers),
    )  # fmt: skip
    stream = _stream(config, form, batch_size, seed=None)
    return cls(source, batch_size, stream, transform, mesh)

  def __len__(self) -> int:
    return -(-self.split.num_examples // self.batch_size)

  def batch(self, inputs: dict[str, jax.Array]) -> dict[str, Any]:
    """Returns this device's share: as of `StreamFeed.batch`, and `mask` `[n]`, 0.0: none."""
    return {**inputs, 'images': self.transform.to_input(inputs['images'])}


def _square(side: int) -> tuple[int, ...]:
  return side, side, 3


def _randaugment(config: ConfigDict, plain: Transform) -> RandAugment | None:
  """Returns the RandAugment of a run."""
  data = config.data
  if data.randaugment is None:
    return None
  moving = Moving(plain.fill, decoding.RESAMPLINGS[data.crop_interpolation])
  return RandAugment(Policy.parse(data.randaugment), moving)


def _num_classes(config: ConfigDict, source: Source) -> int:
  return config.model.num_classes or source.num_classes


def _stream(config: ConfigDict, form: Labelled, batch_size: int, seed: int | None) -> Stream:
  source, hosts = form.source, {'host': jax.process_index(), 'hosts': jax.process_count()}
  by_class, times = None, config.data.repeats if seed is not None else 1
  if seed is not None and config.data.sampling == 'class_aware':
    labels = source.labels()
    datasets.check_labels(labels, form.num_classes, source.where)
    by_class = ClassOrder(labels, seed)
  order = Order(source.num_examples, batch_size, seed, **hosts, by_class=by_class, repeats=times)
  return Stream(source, order, form, config.data.max_damaged, config.data.read_timeout)
