"""The way of an image into a network: one answer for all commands."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from senet_jax.config.randaugment import Policy
from senet_jax.data import augment, datasets
from senet_jax.data.device_randaugment import DeviceRandAugment
from senet_jax.data.mixing import Mixing
from senet_jax.errors import UserError
from senet_jax.models import model_info
from senet_jax.runtime import keys


@dataclasses.dataclass(frozen=True)
class Transform:
  """Turns an image into an input, without random changes.

  Attributes:
    shape: `(H, W, C)` of the images as they come to the device, uint8.
    resize: of a photo, the shorter side before the centre crop to `shape`, in pixels.
    keep_aspect: if not, `resize` is that of both sides.
    interpolation: of that resizing: `bilinear` or `bicubic`, over the support of the reduction.
    image_size: side of the network's input.
    mean: per channel, 0-255 scale, subtracted.
    std: per channel, 0-255 scale, divided by.
  """

  shape: tuple[int, int, int]
  resize: int
  image_size: int
  mean: tuple[float, ...]
  std: tuple[float, ...]
  keep_aspect: bool = True
  interpolation: str = 'bilinear'

  @property
  def fill(self) -> tuple[int, ...]:
    """Returns the mean colour as a pixel, for what comes in where RandAugment moves an image."""
    return tuple(min(255, round(x)) for x in self.mean)

  def to_input(self, images: jax.Array) -> jax.Array:
    """Images `[N, *shape]` uint8, or float32 on the same scale, to `[N, S, S, 3]` float32."""
    return augment.to_input(images, self.mean, self.std, self.image_size)


def evaluation_transform(config: ConfigDict) -> Transform:
  """Returns the transform of evaluations, from the network, the data set and `config`.

  A network that was published with a mean and a crop of its own has those on any data.

  Raises:
    UserError: the crop is larger than what it is taken from.
  """
  data, network = config.data, model_info(config.model.name)
  expected = network.preprocessing
  info = datasets.dataset_info(data.name) if data.feed == 'device' else None
  info = info or datasets.streamed_info(data.name)
  stored = info.image_shape
  size = data.image_size or (stored[0] if stored else network.image_size)
  if data.feed == 'device' and stored:
    shape, resize = stored, min(stored[:2])
  else:
    usual = size if expected.resize is None else round(size * expected.resize / network.image_size)
    shape, resize = (size, size, 3), data.resize or usual
  if resize < shape[0]:
    raise UserError(
      f'config.data.resize={resize} is smaller than the crop of {shape[0]}; use at least that.'
    )
  return Transform(
    shape=shape,
    resize=resize,
    image_size=size,
    mean=tuple(data.mean) or expected.mean or info.mean,
    std=tuple(data.std) or expected.std or info.std,
    keep_aspect=data.resize_keep_aspect,
    interpolation=data.interpolation,
  )


def training_transform(config: ConfigDict) -> Transform:
  """Returns the transform of training without its random changes, see `evaluation_transform`.

  Of several sizes it is that of the last one.
  """
  plain, sizes = evaluation_transform(config), config.data.train_size
  if sizes is None:
    return plain
  size = sizes[-1]
  streamed = config.data.feed == 'stream' and not config.data.fake
  shape = (size, size, 3) if streamed else plain.shape
  return dataclasses.replace(plain, image_size=size, shape=shape)


@dataclasses.dataclass(frozen=True)
class TrainingTransform:
  """Turns an image into an input, with the random changes that a device makes.

  Each draw is keyed by (seed, epoch, index of the example), so that no other example, batch or
  device has a part in it.

  Attributes:
    plain: without them.
    seed: of the draws.
    recolor: changes of colour, from keys `[n]` and images `[n, H, W, 3]`; None for none.
    augment: other changes, from keys `[n]` and inputs `[n, S, S, 3]`.
    mixing: of the images of a batch; None for none.
    randaugment: changes of images `[n, H, W, 3]` uint8, before all others; None for none, as for a
      stream, whose threads make them.
  """

  plain: Transform
  seed: int
  recolor: functools.partial | None
  augment: functools.partial
  mixing: Mixing | None = None
  randaugment: DeviceRandAugment | None = None

  @classmethod
  def create(cls, config: ConfigDict) -> 'TrainingTransform':
    """The transform of a run.

    Raises:
      UserError: grey images are to be recoloured.
    """
    plain, data = training_transform(config), config.data
    names = ('brightness_jitter', 'pixel_jitter', 'color_jitter', 'lighting')
    colors = {name: data[name] for name in names}
    if plain.shape[2] != 3:
      if any(colors.values()):
        raise UserError(f'{data.name} is grey; set {", ".join(colors)} of config.data to 0.')
      if data.randaugment is not None:
        raise UserError(f'{data.name} is grey; leave config.data.randaugment out.')
    recolor = functools.partial(augment.recolor, **colors) if any(colors.values()) else None
    changes = functools.partial(
      augment.augment,
      pad=data.pad,
      flip=data.flip,
      cutout=data.cutout,
      fill=data.pad_fill,
      rotation=0.0 if data.feed == 'stream' else data.rotation,  # where the host turns them
      erasing=data.erasing,
    )
    mixing, randaugment = Mixing.create(config), _randaugment(config, plain)
    return cls(plain, config.seed, recolor, changes, mixing, randaugment)

  def at_size(self, size: int) -> 'TrainingTransform':
    """Returns the transform for inputs of another side."""
    return dataclasses.replace(self, plain=dataclasses.replace(self.plain, image_size=size))

  def without_changes(self) -> 'TrainingTransform':
    """Returns the transform that makes the same inputs without random changes."""
    same = functools.partial(_unchanged)
    return dataclasses.replace(self, recolor=None, augment=same, mixing=None, randaugment=None)

  def batch(
    self, images: jax.Array, labels: jax.Array, epoch: jax.Array, index: jax.Array, step: jax.Array
  ) -> dict[str, jax.Array]:
    """Returns a batch of training: `images`, `labels`, and what `Mixing` adds.

    Args:
      images: as of `to_input`.
      labels: `[n]` int32.
      epoch: `[n]` int32.
      index: `[n]` int32, of the examples.
      step: int32.
    """
    batch = {'images': self.to_input(images, epoch, index), 'labels': labels}
    return self.mixing(batch, self._keys(epoch, index), step) if self.mixing else batch

  def _keys(self, epoch: jax.Array, index: jax.Array) -> jax.Array:
    return jax.vmap(functools.partial(keys.of_example, self.seed))(epoch, index)

  def to_input(self, images: jax.Array, epoch: jax.Array, index: jax.Array) -> jax.Array:
    """Images `[n, *plain.shape]` uint8 of examples `[n]` int32 to `[n, S, S, 3]` float32."""
    of_each = self._keys(epoch, index)
    if self.randaugment:
      images = self.randaugment(of_each, images)
    if self.recolor:
      images = self.recolor(of_each, images.astype(jnp.float32))
    return self.augment(of_each, self.plain.to_input(images))


def _randaugment(config: ConfigDict, plain: Transform) -> DeviceRandAugment | None:
  data = config.data
  if data.randaugment is None or data.feed == 'stream':
    return None
  bicubic = data.crop_interpolation == 'bicubic'
  return DeviceRandAugment(Policy.parse(data.randaugment), plain.fill, bicubic)


def _unchanged(keys: jax.Array, images: jax.Array) -> jax.Array:
  del keys
  return images
