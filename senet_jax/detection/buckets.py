"""Resized images of all sizes are padded to a few shapes; this module computes both.

The shorter side becomes `shorter`, unless the longer one would exceed `longer`. What results fits
into one of a few shapes of sides that are multiples of 32, each of which is one compiled program.
"""

import numpy as np

from senet_jax.detection.faster_rcnn import SIDE_MULTIPLE

# Width over height of most photos.
_USUAL_ASPECT = 4 / 3


def resized(sizes: np.ndarray, shorter: int, longer: int) -> np.ndarray:
  """Returns height and width of images after resizing, as Detectron rounds them.

  Args:
    sizes: heights and widths, `[n, 2]`.
    shorter: the shorter side is resized to it.
    longer: the longer side is at most this.

  Returns:
    `[n, 2]` int32, at least 1.
  """
  sizes = np.asarray(sizes, np.float64)
  low, high = sizes.min(1), sizes.max(1)
  scale = shorter / low
  scale = np.where(np.round(scale * high) > longer, longer / high, scale)
  return np.maximum(np.round(sizes * scale[:, None]), 1).astype(np.int32)


def shapes(shorter: int, longer: int) -> list[tuple[int, int]]:
  """Returns the padded shapes: for 800 and 1333 those of 800 x 1088 and 800 x 1344, both ways."""
  usual = min(round(shorter * _USUAL_ASPECT), longer)
  landscape = {(_up(shorter), _up(width)) for width in (usual, longer)}
  return sorted(landscape | {(width, height) for height, width in landscape}, key=_by_area)


def _by_area(shape: tuple[int, int]) -> tuple[int, int]:
  return shape[0] * shape[1], shape[0]


def _up(side: int) -> int:
  return -(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE


def assign(sizes: np.ndarray, among: list[tuple[int, int]]) -> np.ndarray:
  """Returns the first shape of `among` that images of `sizes` `[n, 2]` fit into, `[n]` int32.

  Those of `resized` fit into one of `shapes`: both sides are at most the longer one, and one of
  them at most the shorter.
  """
  fits = np.all(sizes[:, None] <= np.asarray(among), axis=-1)
  assert fits.any(axis=1).all()
  return fits.argmax(1).astype(np.int32)
