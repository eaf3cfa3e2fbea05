"""The feeds of a detector: photos with boxes, streamed in batches of few shapes.

`order` says which photos a step has, `data.stream` reads them ahead. Photos are resized, mirrored
and padded by the host and travel as uint8; the device normalises them.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict
from PIL import Image

from senet_jax import runtime
from senet_jax.data import datasets, photos
from senet_jax.data.stream import Form, Spec, Stream, StreamedEvaluation, StreamedTraining
from senet_jax.detection import buckets, coordinates, sources
from senet_jax.detection.annotations import Annotations
from senet_jax.detection.order import GroupedOrder
from senet_jax.detection.settings import settings_of
from senet_jax.detection.sources import Source
from senet_jax.errors import UserError
from senet_jax.models import model_info


@dataclasses.dataclass(frozen=True)
class Normalize:
  """Turns padded photos into inputs.

  Attributes:
    mean: of red, green and blue, 0-255 scale, subtracted.
    std: of red, green and blue, 0-255 scale, divided by.
  """

  mean: tuple[float, ...]
  std: tuple[float, ...]

  @classmethod
  def create(cls, config: ConfigDict) -> 'Normalize':
    """Returns what the configuration of a run says, or else what its network expects."""
    expected = model_info(config.model.name).preprocessing
    mean, std = tuple(config.data.mean) or expected.mean, tuple(config.data.std) or expected.std
    if mean is None or std is None:
      raise UserError(
        f'{config.model.name} has no mean and deviation of its own; set config.data.mean and '
        'config.data.std.'
      )
    return cls(mean, std)

  def to_input(self, images: jax.Array, sizes: jax.Array) -> jax.Array:
    """Returns photos `[n, H, W, 3]` uint8 as float32, zero behind their `sizes` `[n, 2]`."""
    mean, std = jnp.asarray(self.mean, jnp.float32), jnp.asarray(self.std, jnp.float32)
    down = jnp.arange(images.shape[1])[:, None] < sizes[:, 0, None, None]
    across = jnp.arange(images.shape[2]) < sizes[:, 1, None, None]
    return jnp.where((down & across)[..., None], (images.astype(jnp.float32) - mean) / std, 0)


@dataclasses.dataclass(eq=False)
class Photos(Form):
  """Photos, resized and padded.

  Attributes:
    annotations: of the split.
    order: has the padded shape of each step.
    resized: height and width of each photo as the network sees it, `[n, 2]` int32.
  """

  annotations: Annotations
  order: GroupedOrder
  resized: np.ndarray
  block = 1  # each is work enough

  @property
  def shapes(self) -> tuple[tuple[int, int], ...]:
    """See `Form.shapes`; these are padded, height and width."""
    return self.order.shapes

  def shape_at(self, step: int) -> tuple[int, int]:
    """See `Form.shape_at`."""
    return self.order.shape(step)

  def spec(self, shape: tuple[int, ...]) -> Spec:
    """See `Form.spec`."""
    return {'images': ((*shape, 3), np.uint8), 'sizes': ((2,), np.int32)}

  def empty(self, step: int, count: int) -> dict[str, np.ndarray]:
    """See `Form.empty`; a photo that stays empty is black, and has no boxes."""
    batch = super().empty(step, count)
    batch['sizes'][:] = self.shape_at(step)
    return batch

  def put(
    self, batch: dict[str, np.ndarray], place: int, encoded: bytes, label: Any, drawn: np.ndarray
  ) -> None:
    """See `Form.put`; `label` is the index."""
    self.put_photo(batch, place, encoded, int(label), flip=False)

  def put_photo(
    self, batch: dict[str, np.ndarray], place: int, encoded: bytes, index: int, *, flip: bool
  ) -> None:
    """Writes a photo, mirrored or not, into its place of a batch.

    Raises:
      UnreadableImage: it cannot be decoded, or has not the size that its boxes are for.
    """
    height, width = self.resized[index].tolist()
    with photos.opened_rgb(encoded) as image:
      expected = self.annotations.sizes[index].tolist()
      if [image.height, image.width] != expected:
        raise photos.UnreadableImage(
          f'it has {image.width} x {image.height} pixels, and its annotations are for '
          f'{expected[1]} x {expected[0]}'
        )
      pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    batch['images'][place, :height, :width] = pixels[:, ::-1] if flip else pixels
    batch['sizes'][place] = height, width


@dataclasses.dataclass(eq=False)
class PhotosWithBoxes(Photos):
  """Photos of training, mirrored at random, with their boxes.

  Attributes:
    max_boxes: an example is padded to so many.
    flip: mirror half of the photos.
    box_offset: see `DetectorSettings`.
  """

  max_boxes: int
  flip: bool
  box_offset: float
  num_draws = 1  # for `flip`

  def spec(self, shape: tuple[int, ...]) -> Spec:
    """See `Form.spec`."""
    boxes, many = (self.max_boxes, 4), (self.max_boxes,)
    of_boxes = {
      'boxes': (boxes, np.float32), 'classes': (many, np.int32), 'valid': (many, bool),
      'crowd': (many, bool),
    }  # fmt: skip
    return {**super().spec(shape), **of_boxes}

  def put(
    self, batch: dict[str, np.ndarray], place: int, encoded: bytes, label: Any, drawn: np.ndarray
  ) -> None:
    """See `Form.put`; `label` is the index."""
    index, known = int(label), self.annotations
    flip = self.flip and bool(drawn[0] < 0.5)
    self.put_photo(batch, place, encoded, index, flip=flip)
    rows = known.of(index)
    boxes = coordinates.to_network(
      known.boxes[rows], known.sizes[index], self.resized[index], flip, self.box_offset
    )
    some = slice(len(boxes))
    batch['boxes'][place, some] = boxes
    batch['classes'][place, some] = known.classes[rows]
    batch['crowd'][place, some] = known.crowd[rows]
    batch['valid'][place, some] = (boxes[:, 2:] > boxes[:, :2]).all(1)


class DetectionFeed(StreamedTraining):
  """Training batches; one that was mirrored in one epoch may not be in the next."""

  transform: Normalize

  @classmethod
  def create(cls, config: ConfigDict, mesh: Mesh) -> 'DetectionFeed':
    """Returns the feed of a run.

    Raises:
      UserError: the data is not usable, or the batch does not fit the devices.
    """
    runtime.per_device(config.batch_size, mesh.size)
    data, source = config.data, sources.open_source(config, config.data.train_split)
    most = int(source.annotations.counts.argmax())
    if source.annotations.counts[most] > data.max_boxes:
      raise UserError(
        f'{source.name(most)} has {source.annotations.counts[most]} boxes, more than '
        f'config.data.max_boxes={data.max_boxes}; raise it to that.'
      )
    order, resized = _order(config, source, config.batch_size, config.seed)
    offset = settings_of(config.model.settings or 'detectron').box_offset
    form = PhotosWithBoxes(source.annotations, order, resized, data.max_boxes, data.flip, offset)
    stream = Stream(source, order, form, data.max_damaged, data.read_timeout)
    return cls(source, config.batch_size, stream, Normalize.create(config), mesh)

  def batch(self, inputs: dict[str, jax.Array], step: jax.Array) -> dict[str, Any]:
    """Returns this device's share of the batch of `step`; runs inside the compiled program.

    Returns:
      `images` `[n, H, W, 3]` float32, `sizes` `[n, 2]` int32 and `targets`, as of `FasterRCNN`,
      with n the batch over the devices.
    """
    del step
    targets = {name: inputs[name] for name in ('boxes', 'classes', 'valid', 'crowd')}
    images = self.transform.to_input(inputs['images'], inputs['sizes'])
    return {'images': images, 'sizes': inputs['sizes'], 'targets': targets}


class DetectionEvalFeed(StreamedEvaluation):
  """Evaluation batches: each photo once, shape by shape; what fills a batch is masked."""

  transform: Normalize
  _more: ClassVar[Spec] = {
    'scales': ((2,), np.float32),
    'index': ((), np.int32),
    'mask': ((), np.float32),
  }

  @classmethod
  def create(cls, config: ConfigDict, split: str, mesh: Mesh) -> 'DetectionEvalFeed':
    """Returns the feed over `split`.

    Raises:
      UserError: the data is not usable.
    """
    source = sources.open_source(config, split)
    batch_size = datasets.eval_batch_size(config, source.num_examples, mesh.size)
    order, resized = _order(config, source, batch_size, None)
    form = Photos(source.annotations, order, resized)
    stream = Stream(source, order, form, config.data.max_damaged, config.data.read_timeout)
    return cls(source, batch_size, stream, Normalize.create(config), mesh)

  def __len__(self) -> int:
    order: Any = self.stream.order
    return order.steps

  def _added(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    form: Any = self.stream.form
    index = batch['index']
    scales = coordinates.scales(self.split.sizes[index], form.resized[index])
    return {**super()._added(batch), 'scales': scales}

  def batch(self, inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns this device's share.

    Returns:
      `images` and `sizes` as of `DetectionFeed.batch`; `scales` `[n, 2]` float32, by what the photo
      was multiplied down and across; `index` `[n]` int32, of the photo in the split; `mask` `[n]`,
      0.0 for no photo.
    """
    return {**inputs, 'images': self.transform.to_input(inputs['images'], inputs['sizes'])}


def _order(
  config: ConfigDict, source: Source, batch_size: int, seed: int | None
) -> tuple[GroupedOrder, np.ndarray]:
  """Returns the order of a split, and the sizes of its photos after resizing."""
  sides = config.data.shorter_side, config.data.longer_side
  resized = buckets.resized(source.sizes, *sides)
  among = buckets.shapes(*sides)
  hosts = {'host': jax.process_index(), 'hosts': jax.process_count()}
  return GroupedOrder.of(buckets.assign(resized, among), among, batch_size, seed, **hosts), resized
