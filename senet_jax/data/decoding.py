"""Turns encoded photos into images of one size: the crops of training and those of evaluation.

All decode as `photos` does and resize as Pillow does, bilinear over the support of a reduction, so
that the same bytes are the same pixels in training, evaluation and prediction.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from PIL import Image

from senet_jax.data import photos
from senet_jax.data.randaugment import RandAugment

# Tries to fit a random crop into the image before the largest one in the middle is taken.
_TRIES = 10
# Uniform numbers for the angle and the crop.
_DRAWS = 1 + 4 * _TRIES
RESAMPLINGS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}


def training_draws(randaugment: RandAugment | None) -> int:
  """Returns how many uniform numbers `training_image` needs."""
  return _DRAWS + (randaugment.draws if randaugment else 0)


def training_image(
  encoded: bytes,
  drawn: np.ndarray,
  shape: tuple[int, ...],
  *,
  area: tuple[float, float] | tuple[()],
  aspect: tuple[float, float],
  rotation: float,
  fill: str = 'reflect',
  interpolation: str = 'bilinear',
  randaugment: RandAugment | None = None,
) -> np.ndarray:
  """Returns a random crop of a photo, resized, changed and turned at random.

  Args:
    encoded: an image of any kind that `photos` reads.
    drawn: `[training_draws(randaugment)]` float32, uniform in [0, 1).
    shape: of the result, `(S, S, 3)`.
    area: bounds of the crop's share of the image; empty: the largest square, in the middle.
    aspect: bounds of its width over height.
    rotation: largest angle in degrees.
    fill: what comes in at the corners then: `reflect`, or `nearest` pixels.
    interpolation: of the resizing: `bilinear` or `bicubic`.
    randaugment: other changes, of the resized crop.

  Returns:
    uint8 `[S, S, 3]`.

  Raises:
    UnreadableImage: it cannot be decoded.
  """
  with photos.opened_rgb(encoded) as image:
    whole = image.height, image.width
    if area:
      window = random_window(whole, drawn[1:_DRAWS].reshape(4, _TRIES), area, aspect)
    else:
      window = largest_square(whole)
    y, x, height, width = window
    crop = image.crop((x, y, x + width, y + height))
    crop = crop.resize((shape[1], shape[0]), RESAMPLINGS[interpolation])
  if randaugment:
    crop = randaugment(crop, drawn[_DRAWS:])
  if rotation:
    return _rotated(np.asarray(crop), (2 * float(drawn[0]) - 1) * rotation, fill)
  return np.asarray(crop)


def undrawn(
  decode: Callable[[bytes], np.ndarray],
  encoded: bytes,
  drawn: np.ndarray,
  shape: tuple[int, ...],
) -> np.ndarray:
  """Returns `decode(encoded)`, of evaluations: nothing is drawn, and there is one shape."""
  del drawn, shape
  return decode(encoded)


def random_window(
  shape: tuple[int, int],
  drawn: np.ndarray,
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> tuple[int, int, int, int]:
  """Returns a random part of an image, as Inception's training has it.

  Its area is uniform within the bounds, its aspect log-uniform and its place uniform among those
  where it fits; if none of the tries fits, it is the largest with an allowed aspect in the middle.

  Args:
    shape: height and width of the image.
    drawn: `[4, tries]` float32, uniform in [0, 1).
    area: bounds of its share of the image.
    aspect: bounds of its width over height.

  Returns:
    y, x, height, width.
  """
  height, width = map(np.float32, shape)
  share = np.float32(area[0]) + np.float32(area[1] - area[0]) * drawn[0]
  low, high = np.log(np.asarray(aspect, np.float32))
  ratio = np.exp(low + (high - low) * drawn[1])
  heights = np.round(np.sqrt(share * height * width / ratio))
  widths = np.round(np.sqrt(share * height * width * ratio))
  fits = (heights >= 1) & (widths >= 1) & (heights <= height) & (widths <= width)
  if fits.any():
    first = int(fits.argmax())
    h, w = heights[first], widths[first]
    # Float rounding must not push it out.
    y = min(np.floor(drawn[2][first] * (height - h + 1)), height - h)
    x = min(np.floor(drawn[3][first] * (width - w + 1)), width - w)
  else:
    h, w = min(height, width / np.float32(aspect[0])), min(width, height * np.float32(aspect[1]))
    less = np.sqrt(min(np.float32(area[1]) * height * width / (h * w), np.float32(1)))
    h, w = max(np.round(h * less), 1), max(np.round(w * less), 1)
    y, x = (height - h) // 2, (width - w) // 2
  return int(y), int(x), int(h), int(w)


def largest_square(shape: tuple[int, int]) -> tuple[int, int, int, int]:
  """Returns the square in the middle of an image: y, x, height, width."""
  side = min(shape)
  return (shape[0] - side) // 2, (shape[1] - side) // 2, side, side


def evaluation_image(
  encoded: bytes,
  *,
  size: int,
  resize: int,
  keep_aspect: bool = True,
  interpolation: str = 'bilinear',
) -> np.ndarray:
  """Returns the middle of a photo whose shorter side is first resized to `resize`.

  Args:
    encoded: an image of any kind that `photos` reads.
    size: side of the result.
    resize: at least `size`.
    keep_aspect: if not, both sides are resized to `resize`.
    interpolation: `bilinear` or `bicubic`.

  Returns:
    uint8 `[size, size, 3]`.

  Raises:
    UnreadableImage: it cannot be decoded.
  """
  with photos.opened_rgb(encoded) as image:
    return photos.crop_resized(image, resize, (size, size), (1, 1), keep_aspect, interpolation)


def evaluation_crops(
  encoded: bytes,
  *,
  size: int,
  scales: Sequence[int],
  places: Sequence[tuple[int, int]],
  keep_aspect: bool = True,
  interpolation: str = 'bilinear',
) -> np.ndarray:
  """Returns crops of a photo that is resized to one or several scales.

  Args:
    encoded: an image of any kind that `photos` reads.
    size: side of each crop.
    scales: shorter sides of the resized photo, each at least `size`.
    places: of the crops of each scale, down and across: 0 at the beginning, 1 in the middle, 2 at
      the end.
    keep_aspect: as of `evaluation_image`.
    interpolation: as of `evaluation_image`.

  Returns:
    uint8 `[len(scales) * len(places), size, size, 3]`, scale by scale.

  Raises:
    UnreadableImage: it cannot be decoded.
  """
  with photos.opened_rgb(encoded) as image:
    return np.stack([
      photos.crop_resized(image, scale, (size, size), at, keep_aspect, interpolation)
      for scale in scales
      for at in places
    ])  # fmt: skip


def _rotated(image: np.ndarray, degrees: float, fill: str) -> np.ndarray:
  """Turns `[S, S, 3]` uint8 about its middle, bilinear."""
  size = len(image)
  # What comes in at the corners is at most so far outside.
  margin = size // 2 + 2
  modes: dict[str, Literal['symmetric', 'edge']] = {'reflect': 'symmetric', 'nearest': 'edge'}
  padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), modes[fill])
  cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  middle, outer = size / 2, margin + size / 2
  # Maps a point of the result to one of the padded image: x' = a x + b y + c, y' = d x + e y + f.
  row_x = cos, -sin, outer - middle * cos + middle * sin
  row_y = sin, cos, outer - middle * sin - middle * cos
  turned = Image.fromarray(padded).transform(
    (size, size), Image.Transform.AFFINE, (*row_x, *row_y), RESAMPLINGS['bilinear']
  )
  return np.asarray(turned)
