"""RandAugment (Cubuk et al. 2020) on the device, for images that lie in its memory.

The operations, magnitudes and probabilities are those of `randaugment`, where Pillow does them; the
images stay uint8 and are within a grey level of Pillow's.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax.config.randaugment import MOST, Policy
from senet_jax.data.randaugment import OPERATIONS, SIGNED

# What is folded into the key of an example; `augment` and `mixing` have the numbers below.
_OF_EXAMPLE = 8
# Shares of red, green and blue in the grey of Pillow, of 2**16.
_GREY = (19595, 38470, 7471)


def _auto_contrast(image: jax.Array, amount: jax.Array) -> jax.Array:
  low, high = image.min((0, 1)), image.max((0, 1))
  stretched = (image - low) * (255 / jnp.maximum(high - low, 1))
  return jnp.where(high > low, stretched, image)


def _equalize(image: jax.Array, amount: jax.Array) -> jax.Array:
  pixels = image.reshape(-1, 3)
  step = (pixels < pixels.max(0)).sum(0) // 255
  table = (_below(pixels) + step // 2) // jnp.maximum(step, 1)
  equalized = jax.lax.platform_dependent(pixels, table, tpu=_looked_up, default=_taken)
  return jnp.where(step > 0, equalized.reshape(image.shape), image)


def _below(pixels: jax.Array) -> jax.Array:
  """Returns how many of `[n, 3]` pixels are below each grey level, `[256, 3]`."""

  def scattered(pixels):
    counts = jnp.zeros((256, 3), jnp.int32).at[pixels, jnp.arange(3)].add(1)
    return jnp.cumsum(counts, 0) - counts

  def compared(pixels):
    return (pixels < jnp.arange(256)[:, None, None]).sum(1)

  return jax.lax.platform_dependent(pixels, tpu=compared, default=scattered)


def _taken(pixels: jax.Array, table: jax.Array) -> jax.Array:
  return jnp.take_along_axis(table, pixels, 0)


def _looked_up(pixels: jax.Array, table: jax.Array) -> jax.Array:
  """Returns the same as `_taken` without gathering."""
  return jnp.where(pixels == jnp.arange(256)[:, None, None], table[:, None], 0).sum(0)


def _posterize(image: jax.Array, amount: jax.Array) -> jax.Array:
  return image & (256 - jnp.left_shift(1, 4 + (4 * amount).astype(jnp.int32)))


def _solarize(image: jax.Array, amount: jax.Array) -> jax.Array:
  threshold = 256 - jnp.minimum(256, (256 * amount).astype(jnp.int32))
  return jnp.where(image < threshold, image, 255 - image)


def _solarize_add(image: jax.Array, amount: jax.Array) -> jax.Array:
  added = jnp.minimum(128, (110 * amount).astype(jnp.int32))
  return jnp.where(image < 128, image + added, image)


def _enhance(other: Callable[[jax.Array], jax.Array | int]) -> Callable:
  """Returns a change away from what `other` makes of an image, or towards it."""

  def change(image: jax.Array, amount: jax.Array) -> jax.Array:
    start = other(image)
    return start + jnp.maximum(0.1, 1 + 0.9 * amount) * (image - start)

  return change


def _grey(image: jax.Array) -> jax.Array:
  return ((image * jnp.array(_GREY)).sum(-1, keepdims=True) + 2**15) >> 16


def _smooth(image: jax.Array) -> jax.Array:
  """Returns an image smoothed by Pillow's filter, but for its border."""
  height, width, _ = image.shape
  parts = [image[y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3)]
  inner = (sum(parts) + 4 * image[1:-1, 1:-1]) / 13
  return image.at[1:-1, 1:-1].set(jnp.round(inner).astype(jnp.int32))


_COLORS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
  'AutoContrast': _auto_contrast,
  'Equalize': _equalize,
  'Invert': lambda image, amount: 255 - image,
  'PosterizeIncreasing': _posterize,
  'SolarizeIncreasing': _solarize,
  'SolarizeAdd': _solarize_add,
  'ColorIncreasing': _enhance(_grey),
  'ContrastIncreasing': _enhance(lambda image: jnp.floor(_grey(image).mean() + 0.5)),
  'BrightnessIncreasing': _enhance(lambda image: 0),
  'SharpnessIncreasing': _enhance(_smooth),
}


def _turn(amount: jax.Array, height: int, width: int) -> tuple:
  cos, sin = jnp.cos(jnp.deg2rad(30 * amount)), jnp.sin(jnp.deg2rad(30 * amount))
  y, x = height / 2, width / 2
  return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


# From amount, height and width to Pillow's matrix: x' = a x + b y + c, y' = d x + e y + f is where
# the pixel of the result at x, y comes from.
_MOVES: dict[str, Callable[[jax.Array, int, int], tuple]] = {
  'Rotate': _turn,
  'ShearX': lambda amount, height, width: (1, 0.3 * amount, 0, 0, 1, 0),
  'ShearY': lambda amount, height, width: (1, 0, 0, 0.3 * amount, 1, 0),
  'TranslateXRel': lambda amount, height, width: (1, 0, 0.45 * amount * width, 0, 1, 0),
  'TranslateYRel': lambda amount, height, width: (1, 0, 0, 0, 1, 0.45 * amount * height),
}
_NAMES = (None, *OPERATIONS)
# The branch of each operation: none, one of colours, and the last one for all that moves.
_BRANCHES = np.array([
  0 if name is None else 1 + list(_COLORS).index(name) if name in _COLORS else 1 + len(_COLORS)
  for name in _NAMES
])  # fmt: skip
_MATRICES = np.array([list(_MOVES).index(name) if name in _MOVES else 0 for name in _NAMES])
_IS_SIGNED = np.array([name in SIGNED for name in _NAMES])


@dataclasses.dataclass(frozen=True)
class DeviceRandAugment:
  """Draws operations and does them, inside a compiled program.

  Attributes:
    policy: how many, how strong.
    fill: colour of what comes in from outside, RGB.
    bicubic: interpolate so where an image is moved, and not bilinear.
  """

  policy: Policy
  fill: tuple[int, ...]
  bicubic: bool

  def __call__(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    """Returns images `[n, H, W, 3]` uint8 changed as their keys `[n]` say."""
    which, amounts = jax.vmap(self.plan)(keys)

    def each(images: jax.Array, which: jax.Array, amounts: jax.Array) -> jax.Array:
      return jax.lax.map(lambda given: self.change(*given), (images, which, amounts))

    # A CPU does what was drawn, image by image; a GPU or TPU all operations on all images at once,
    # of which it takes those that were drawn.
    together = jax.vmap(self.change)
    return jax.lax.platform_dependent(images, which, amounts, cpu=each, default=together)

  def plan(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the operations on an image and their amounts, each `[operations]`.

    An operation is its number in `OPERATIONS`, counted from 1; 0 is none.
    """
    policy, shape = self.policy, (self.policy.operations,)
    parts = jax.random.split(jax.random.fold_in(key, _OF_EXAMPLE), 4)
    which = jax.random.randint(parts[0], shape, 1, len(_NAMES))
    which = jnp.where(jax.random.bernoulli(parts[1], policy.probability, shape), which, 0)
    if math.isinf(policy.std):
      magnitude = policy.magnitude * jax.random.uniform(parts[2], shape)
    else:
      magnitude = policy.magnitude + policy.std * jax.random.normal(parts[2], shape)
    amounts = jnp.clip(magnitude, 0, policy.largest) / MOST
    negative = jax.random.bernoulli(parts[3], shape=shape) & jnp.asarray(_IS_SIGNED)[which]
    return which, jnp.where(negative, -amounts, amounts)

  def change(self, image: jax.Array, which: jax.Array, amounts: jax.Array) -> jax.Array:
    """Returns an image `[H, W, 3]` uint8 after operations, as of `plan`."""
    changes = [lambda image, amount, matrix: image, *map(_colored, _COLORS.values()), self._moved]

    def one(image, given):
      number, amount = given
      made = jnp.array([move(amount, *image.shape[:2]) for move in _MOVES.values()], jnp.float32)
      matrix = made[jnp.asarray(_MATRICES)[number]]
      branch = jnp.asarray(_BRANCHES)[number]
      return jax.lax.switch(branch, changes, image, amount, matrix), None

    return jax.lax.scan(one, image.astype(jnp.int32), (which, amounts))[0].astype(jnp.uint8)

  def _moved(self, image: jax.Array, amount: jax.Array, matrix: jax.Array) -> jax.Array:
    """Returns an image moved by a matrix, as Pillow's `transform`."""
    height, width, _ = image.shape
    y, x = jnp.arange(height)[:, None] + 0.5, jnp.arange(width) + 0.5
    across, down = (a * x + b * y + c for a, b, c in matrix.reshape(2, 3))
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    taps = self._taps(down, height), self._taps(across, width)
    moved = jax.lax.platform_dependent(image, *taps, tpu=_multiplied, default=_gathered)
    return jnp.where(inside[..., None], _grey_levels(moved + 0.5), jnp.array(self.fill))

  def _taps(self, places: jax.Array, side: int) -> list[tuple[jax.Array, jax.Array]]:
    """Returns what is read for places along an axis: indices of pixels, and their weights."""
    first = jnp.floor(places - 0.5)
    d = places - 0.5 - first
    weights = [1 - d, d]
    if self.bicubic:  # Keys' with a = -1, as Pillow's of transformations
      weights = [
        d * (d * (2 - d) - 1), d * d * (d - 2) + 1, d * (d * (1 - d) + 1), d * d * (d - 1)
      ]  # fmt: skip
    start = first.astype(jnp.int32) - self.bicubic
    return [(jnp.clip(start + i, 0, side - 1), weight) for i, weight in enumerate(weights)]


_Taps = list[tuple[jax.Array, jax.Array]]


def _gathered(image: jax.Array, rows: _Taps, columns: _Taps) -> jax.Array:
  """Returns the weighted sum of pixels, `[H, W, 3]` float32."""
  parts = [
    (row_weight * column_weight)[..., None] * image[row, column]
    for row, row_weight in rows
    for column, column_weight in columns
  ]
  return functools.reduce(operator.add, parts)


def _multiplied(image: jax.Array, rows: _Taps, columns: _Taps) -> jax.Array:
  """Returns the same as `_gathered` as products with weights that are mostly zero.

  A TPU gathers pixel by pixel: a step with 128 images of CIFAR moved 77 GB that way, and 1.4 so.
  """
  height, width, _ = image.shape

  def spread(taps: _Taps, side: int) -> jax.Array:
    parts = [weight[..., None] * (index[..., None] == jnp.arange(side)) for index, weight in taps]
    return functools.reduce(operator.add, parts)

  # The default of a TPU, bfloat16, would cut the weights off.
  product = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
  of_rows = product('yxh,hwc->yxwc', spread(rows, height), image.astype(jnp.float32))
  return product('yxw,yxwc->yxc', spread(columns, width), of_rows)


def _colored(function: Callable) -> Callable:
  return lambda image, amount, matrix: _grey_levels(function(image, amount))


def _grey_levels(values: jax.Array) -> jax.Array:
  """Returns values as the whole numbers at or below them, from 0 to 255."""
  return jnp.clip(values, 0, 255).astype(jnp.int32)
