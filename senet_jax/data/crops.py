"""The crops of an image that an evaluation looks at, and the inputs that they become."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax.data import decoding
from senet_jax.data.preprocessing import Transform

# Down and across in halves of what the image is larger than the crop.
_MIDDLE = ((1, 1),)
_CORNERS_AND_MIDDLE = ((0, 0), (0, 2), (2, 0), (2, 2), *_MIDDLE)


@dataclasses.dataclass(frozen=True)
class Crops:
  """The crops that are taken of each image.

  Attributes:
    size: side of each, and of the network's input, in pixels.
    scales: shorter sides, in pixels, that an image is resized to; the crops are taken of each.
    ten: the four corners and the middle, and the mirror image of each (Krizhevsky et al. 2012);
      else the middle alone.
    keep_aspect: if not, photos are first resized to squares of these sides.
    interpolation: of the resizing of photos: `bilinear` or `bicubic`.
  """

  size: int
  scales: tuple[int, ...]
  ten: bool = False
  keep_aspect: bool = True
  interpolation: str = 'bilinear'

  def __len__(self) -> int:
    """Crops of an image."""
    return len(self.scales) * len(self._places) * (1 + self.ten)

  @property
  def photo_shape(self) -> tuple[int, int, int, int]:
    """Returns the shape of what `of_photo` returns."""
    return len(self.scales) * len(self._places), self.size, self.size, 3

  def describe(self) -> str:
    """Size and scales in words."""
    scales = ', '.join(map(str, self.scales))
    square = '' if self.keep_aspect else ', square'
    bicubic = '' if self.interpolation == 'bilinear' else f', {self.interpolation}'
    return f'{self.size} x {self.size} of images of {scales}{square}{bicubic}'

  def of_photo(self, encoded: bytes) -> np.ndarray:
    """Returns the crops of an encoded photo without mirror images, uint8 `photo_shape`."""
    return decoding.evaluation_crops(
      encoded,
      size=self.size,
      scales=self.scales,
      places=self._places,
      keep_aspect=self.keep_aspect,
      interpolation=self.interpolation,
    )

  def inputs(self, images: jax.Array, transform: Transform) -> jax.Array:
    """The inputs of a network for all crops, scale by scale; mirror images come last.

    Args:
      images: uint8, `[N, *photo_shape]` as of `of_photo`, or whole images `[N, H, W, C]`, which are
        resized here, to squares.
      transform: of the network, with `image_size` equal to `size`.

    Returns:
      `[N, len(self), size, size, 3]` float32.
    """
    if images.ndim == 5:
      crops = transform.to_input(images.reshape(-1, *images.shape[2:]))
      crops = crops.reshape(images.shape)
    else:
      resized = [
        dataclasses.replace(transform, image_size=scale).to_input(images) for scale in self.scales
      ]
      crops = jnp.stack([self._cut(x, place) for x in resized for place in self._places], axis=1)
    return jnp.concatenate([crops, crops[:, :, :, ::-1]], axis=1) if self.ten else crops

  @property
  def _places(self) -> tuple[tuple[int, int], ...]:
    return _CORNERS_AND_MIDDLE if self.ten else _MIDDLE

  def _cut(self, images: jax.Array, place: tuple[int, int]) -> jax.Array:
    y, x = ((side - self.size) * p // 2 for side, p in zip(images.shape[1:3], place, strict=True))
    return images[:, y : y + self.size, x : x + self.size]


@dataclasses.dataclass(frozen=True)
class CropTransform:
  """Turns images into the crops that several networks take; a feed has it instead of a `Transform`.

  Attributes:
    crops: that are taken.
    transforms: of the networks, which may differ in mean, standard deviation and order of channels.
  """

  crops: Crops
  transforms: tuple[Transform, ...]

  @property
  def image_size(self) -> int:
    """The side of the networks' inputs."""
    return self.crops.size

  def to_input(self, images: jax.Array) -> tuple[jax.Array, ...]:
    """The inputs of each network, as of `Crops.inputs`."""
    return tuple(self.crops.inputs(images, transform) for transform in self.transforms)
