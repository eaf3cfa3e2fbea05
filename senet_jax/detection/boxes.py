"""Boxes `x1, y1, x2, y2` in pixels: sizes, overlap, coding against references, clipping.

`offset` is 1 where both ends are pixels of a box, so that a width is `x2 - x1 + 1`, and 0 where
they are real numbers; see `DetectorSettings.box_offset`. All arithmetic is float32.
"""

import math

import jax
import jax.numpy as jnp

# A step of the coding multiplies a side by at most 1000 / 16, from the smallest anchor to an image.
LARGEST_LOG = math.log(1000 / 16)
# Sides are at least this long where logarithms of them are taken.
_SMALLEST = 1e-6


def sides(boxes: jax.Array, offset: float = 0.0) -> tuple[jax.Array, jax.Array]:
  """Returns widths and heights of `boxes` `[..., 4]`, each `[...]`."""
  return boxes[..., 2] - boxes[..., 0] + offset, boxes[..., 3] - boxes[..., 1] + offset


def area(boxes: jax.Array, offset: float = 0.0) -> jax.Array:
  """Returns the areas of `boxes` `[..., 4]`, `[...]`; 0 where an end is before a beginning."""
  width, height = sides(boxes, offset)
  return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def intersection(a: jax.Array, b: jax.Array, offset: float = 0.0) -> jax.Array:
  """Returns the areas that each of `a` `[..., M, 4]` shares with each of `b` `[..., N, 4]`."""
  # Coordinate by coordinate: an axis of two would be padded to 128 on a TPU.
  a, b = a[..., :, None, :], b[..., None, :, :]
  width = jnp.minimum(a[..., 2], b[..., 2]) - jnp.maximum(a[..., 0], b[..., 0]) + offset
  height = jnp.minimum(a[..., 3], b[..., 3]) - jnp.maximum(a[..., 1], b[..., 1]) + offset
  return jnp.maximum(width, 0) * jnp.maximum(height, 0)


def iou(a: jax.Array, b: jax.Array, offset: float = 0.0) -> jax.Array:
  """Returns intersection over union of `a` `[..., M, 4]` and `b` `[..., N, 4]`, `[..., M, N]`.

  It is 0 where both areas are.
  """
  shared = intersection(a, b, offset)
  union = area(a, offset)[..., :, None] + area(b, offset)[..., None, :] - shared
  return jnp.where(union > 0, shared / jnp.where(union > 0, union, 1), 0)


def encode(
  boxes: jax.Array, references: jax.Array, weights: tuple[float, ...], offset: float = 0.0
) -> jax.Array:
  """Returns the deltas that take `references` to `boxes` (Girshick 2015, "Fast R-CNN").

  Args:
    boxes: `[..., 4]`.
    references: `[..., 4]`, anchors or proposals.
    weights: of dx, dy, dw, dh, which they multiply.
    offset: of widths.

  Returns:
    dx, dy, dw, dh, `[..., 4]`: shifts of centres in sides of the reference, logarithms of ratios of
    sides.
  """
  box, reference = _center_form(boxes, offset), _center_form(references, offset)
  deltas = (
    (box[0] - reference[0]) / reference[2],
    (box[1] - reference[1]) / reference[3],
    jnp.log(box[2] / reference[2]),
    jnp.log(box[3] / reference[3]),
  )
  return jnp.stack([w * delta for w, delta in zip(weights, deltas, strict=True)], -1)


def decode(
  deltas: jax.Array, references: jax.Array, weights: tuple[float, ...], offset: float = 0.0
) -> jax.Array:
  """Returns the boxes that `deltas` make of `references`, the inverse of `encode`.

  Args:
    deltas: `[..., 4]`; sides grow by at most 62.5 times.
    references: of a shape that broadcasts to that.
    weights: as of `encode`.
    offset: of widths.
  """
  width, height = sides(references, offset)
  dx, dy, dw, dh = (deltas[..., i] / weights[i] for i in range(4))
  x = references[..., 0] + 0.5 * width + dx * width
  y = references[..., 1] + 0.5 * height + dy * height
  half_width = 0.5 * width * jnp.exp(jnp.minimum(dw, LARGEST_LOG))
  half_height = 0.5 * height * jnp.exp(jnp.minimum(dh, LARGEST_LOG))
  ends = (x + half_width - offset, y + half_height - offset)
  return jnp.stack([x - half_width, y - half_height, *ends], -1)


def clip(boxes: jax.Array, sizes: jax.Array, offset: float = 0.0) -> jax.Array:
  """Returns `boxes` `[N, ..., 4]` cut off at the borders of images.

  Args:
    boxes: of N images.
    sizes: height and width of each, `[N, 2]`, in pixels.
    offset: the last pixel of an axis is its size less this.
  """
  size = sizes.astype(boxes.dtype).reshape(-1, *[1] * (boxes.ndim - 2), 2)
  last = jnp.stack([size[..., 1], size[..., 0]] * 2, -1) - offset
  return jnp.clip(boxes, 0, last)


def are_large(boxes: jax.Array, smallest: float, offset: float = 0.0) -> jax.Array:
  """Returns whether both sides of `boxes` `[..., 4]` are at least `smallest`, bool `[...]`."""
  width, height = sides(boxes, offset)
  return (width >= smallest) & (height >= smallest)


def _center_form(boxes: jax.Array, offset: float) -> tuple[jax.Array, ...]:
  """Returns the coordinates of centres, and sides above 0."""
  width, height = (jnp.maximum(side, _SMALLEST) for side in sides(boxes, offset))
  return boxes[..., 0] + 0.5 * width, boxes[..., 1] + 0.5 * height, width, height
