"""RoIAlign over the levels of a pyramid (He et al. 2017, "Mask R-CNN"; Lin et al. 2017, "FPN").

A bin is the mean of points of its own, each between four pixels. As a point's four weights are
products of one for the row and one for the column, a bin with `s` points an axis is a sum over
`2s` rows and `2s` columns. All levels lie in one array of pixels, so that whatever level a box is
of, it takes the same number of rows of channels from it: no shape depends on the boxes, and nothing
is computed for levels that a box is not of.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from senet_jax.detection import boxes as box_lib
from senet_jax.layers.derivatives import own_gradient

# A box of this side in pixels, the size of ImageNet's images, is of the level 4.
_CANONICAL_SIDE, _CANONICAL_LEVEL = 224, 4


def assign_levels(
  boxes: jax.Array,
  first: int,
  last: int,
  epsilon: tuple[float, float] = (1e-6, 0.0),
  offset: float = 0.0,
) -> jax.Array:
  """Returns the level of each box, `floor(4 + log2(sqrt(area) / 224))` from `first` to `last`.

  Args:
    boxes: `[..., 4]`.
    first: the finest level.
    last: the coarsest one.
    epsilon: added in the logarithm and to it.
    offset: of widths.

  Returns:
    int32 `[...]`.
  """
  scale = jnp.sqrt(box_lib.area(boxes, offset)) / _CANONICAL_SIDE + epsilon[0]
  level = jnp.floor(_CANONICAL_LEVEL + jnp.log2(scale) + epsilon[1])
  return jnp.clip(level, first, last).astype(jnp.int32)


def roi_align(
  maps: Sequence[jax.Array],
  strides: Sequence[int],
  boxes: jax.Array,
  levels: jax.Array,
  *,
  resolution: int = 7,
  sampling: int = 2,
  aligned: bool = False,
) -> jax.Array:
  """Cuts boxes out of the level that each is of.

  The gradient goes to the maps alone: boxes are constants, as everywhere in Faster R-CNN.

  Args:
    maps: of each level, `[N, H, W, C]`.
    strides: of each, in pixels.
    boxes: `[N, R, 4]`.
    levels: int `[N, R]`, from 0.
    resolution: bins an axis.
    sampling: points an axis of a bin.
    aligned: shift by half a pixel, as the centre of the first pixel is at 0.5; without it a box has
      one pixel of the map a side at least.

  Returns:
    `[N, R, resolution, resolution, C]` of the dtype of the maps; sums are float32. Points more than
    a pixel outside count as 0.
  """
  images, count = boxes.shape[:2]
  channels = maps[0].shape[-1]
  flat = jnp.concatenate([level.reshape(images, -1, channels) for level in maps], 1)
  sizes = [level.shape[1] * level.shape[2] for level in maps]
  starts = [sum(sizes[:i]) for i in range(len(sizes))]
  levels = levels.reshape(-1)
  of_level = lambda values: jnp.asarray(values)[levels]  # noqa: E731
  image = jnp.repeat(jnp.arange(images), count)

  boxes = jax.lax.stop_gradient(boxes).reshape(-1, 4).astype(jnp.float32)
  boxes = boxes / of_level([float(stride) for stride in strides])[:, None]
  taps = functools.partial(_taps, bins=resolution, sampling=sampling, aligned=aligned)
  rows, row_weights = taps(boxes[:, 1], boxes[:, 3], of_level([level.shape[1] for level in maps]))
  columns, column_weights = taps(
    boxes[:, 0], boxes[:, 2], of_level([level.shape[2] for level in maps])
  )
  # From here on the index of a row is that of its first pixel.
  first = image * sum(sizes) + of_level(starts)
  width = of_level([level.shape[2] for level in maps])
  rows = first[:, None, None] + rows * width[:, None, None]
  pooled = _pool(flat.reshape(-1, channels), rows, row_weights, columns, column_weights)
  return pooled.reshape(images, count, resolution, resolution, channels)


def _taps(
  start, end, length, *, bins: int, sampling: int, aligned: bool
) -> tuple[jax.Array, jax.Array]:
  """Returns the pixels of an axis that each bin takes, and their weights, `[R, bins, 2s]`.

  Args:
    start: of boxes, in pixels of their maps, `[R]`.
    end: of boxes, `[R]`.
    length: of the axis of their maps, `[R]`.
    bins: of the axis.
    sampling: points of a bin, s.
    aligned: as of `roi_align`.
  """
  if aligned:
    start, size = start - 0.5, end - start
  else:
    size = jnp.maximum(end - start, 1)
  points = (jnp.arange(bins * sampling, dtype=jnp.float32) + 0.5) / sampling
  at = start[:, None] + points * (size / bins)[:, None]
  last = (length - 1)[:, None].astype(jnp.float32)
  inside = (at >= -1) & (at <= last + 1)
  at = jnp.clip(at, 0, last)
  low = jnp.floor(at)
  high = jnp.minimum(low + 1, last)
  fraction = at - low
  weight = jnp.stack([1 - fraction, fraction], -1) * inside[..., None] / sampling
  index = jnp.stack([low, high], -1).astype(jnp.int32)
  shape = (start.shape[0], bins, 2 * sampling)
  return index.reshape(shape), weight.reshape(shape)


def _pixels(rows, row_weights, columns, column_weights, i, j) -> tuple[jax.Array, jax.Array]:
  """Returns index and weight of the pixel in row `i` and column `j` of each bin, `[R, b, b]`."""
  take = functools.partial(jax.lax.dynamic_index_in_dim, axis=2, keepdims=False)
  index = take(rows, i)[:, :, None] + take(columns, j)[:, None, :]
  return index, take(row_weights, i)[:, :, None] * take(column_weights, j)[:, None, :]


@own_gradient
def _pool(flat, rows, row_weights, columns, column_weights) -> jax.Array:
  """Returns the weighted sums of pixels `[P, C]` of each bin, `[R, bins, bins, C]`.

  One term after the other: all pixels of all bins together would be sixteen times the result.
  """
  total = jnp.zeros(())
  for i in range(rows.shape[-1]):
    for j in range(columns.shape[-1]):
      index, weight = _pixels(rows, row_weights, columns, column_weights, i, j)
      pixels = flat.at[index].get(mode='promise_in_bounds')
      total += weight[..., None] * pixels.astype(jnp.float32)
  return total.astype(flat.dtype)


def _pool_forward(flat, *taps):
  return _pool(flat, *taps), (flat, taps)


def _pool_backward(saved, gradient):
  """Adds to the pixels in a loop, whose one array stays where it is, in float32."""
  flat, (rows, row_weights, columns, column_weights) = saved
  terms = rows.shape[-1]
  gradient = gradient.astype(jnp.float32)

  def add(k, total):
    i, j = k // terms, k % terms
    index, weight = _pixels(rows, row_weights, columns, column_weights, i, j)
    return total.at[index].add(weight[..., None] * gradient, mode='promise_in_bounds')

  total = jnp.zeros(flat.shape, jnp.float32)
  total = jax.lax.fori_loop(0, terms * terms, add, total)
  return total.astype(flat.dtype), None, None, None, None


_pool.defvjp(_pool_forward, _pool_backward)
