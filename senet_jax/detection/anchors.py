"""Anchors: boxes of fixed sizes and shapes at each place of each level of the pyramid."""

import jax
import jax.numpy as jnp
import numpy as np


def cell_anchors(size: int, stride: int, ratios: tuple[float, ...], style: str) -> np.ndarray:
  """Returns the anchors of the first place of a level, `[ratios, 4]` float32.

  Args:
    size: the side of the square one, in pixels.
    stride: of the level, in pixels.
    ratios: height over width of each.
    style: `detectron` rounds the sides on a window of one stride, whose centre is theirs, and then
      multiplies, so that ratios are not exact; `torchvision` rounds the ends around 0;
      `detectron2` does not round.
  """
  shapes = np.asarray(ratios, np.float64)
  if style == 'detectron':
    widths = np.round(np.sqrt(stride * stride / shapes))
    heights = np.round(widths * shapes)
    center, scale = 0.5 * (stride - 1), size / stride
    halves = np.stack([0.5 * (widths * scale - 1), 0.5 * (heights * scale - 1)], -1)
    anchors = center + np.concatenate([-halves, halves], -1)
  else:
    halves = np.stack([size / np.sqrt(shapes), size * np.sqrt(shapes)], -1) / 2
    anchors = np.concatenate([-halves, halves], -1)
    if style == 'torchvision':
      anchors = np.round(anchors)
  return anchors.astype(np.float32)


def level_anchors(
  image: tuple[int, ...],
  level: tuple[int, ...],
  size: int,
  stride: int,
  ratios: tuple[float, ...],
  style: str,
) -> jax.Array:
  """Returns the anchors of a level, `[H·W·ratios, 4]` float32, row by row.

  They are computed where they are needed: as a constant they would be megabytes of a program.

  Args:
    image: height and width of the padded images, in pixels.
    level: height and width of the level, in places.
    size: the side of the square anchors, in pixels.
    stride: of the level, in pixels.
    ratios: height over width of each.
    style: as of `cell_anchors`; `torchvision` divides the image by the level for the stride, which
      is less than `stride` where the coarsest level is rounded up.
  """
  cell = cell_anchors(size, stride, ratios, style)
  rows, columns = stride, stride
  if style == 'torchvision':
    rows, columns = image[0] // level[0], image[1] // level[1]
  y = jnp.arange(level[0], dtype=jnp.float32)[:, None, None] * rows
  x = jnp.arange(level[1], dtype=jnp.float32)[None, :, None] * columns
  shape = (*level, len(ratios))
  ends = [jnp.broadcast_to(x if i % 2 == 0 else y, shape) + cell[:, i] for i in range(4)]
  return jnp.stack(ends, -1).reshape(-1, 4)
