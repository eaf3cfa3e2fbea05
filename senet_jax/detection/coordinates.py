"""The way of boxes from a photo to what the network sees of it, and back; in NumPy, on the host.

In a photo a box is `x1, y1, x2, y2` with `x2 - x1` its width. Where the network counts both ends as
pixels of a box (`DetectorSettings.box_offset` 1), its x2 is 1 less; as in Detectron that is done in
the photo, and what results is scaled.
"""

import numpy as np


def to_network(
  boxes: np.ndarray,
  size: np.ndarray,
  resized: np.ndarray,
  flip: bool = False,
  offset: float = 0.0,
) -> np.ndarray:
  """Returns boxes of a photo as boxes of the resized one.

  Args:
    boxes: `[m, 4]`; what is outside the photo is cut off.
    size: height and width of the photo.
    resized: those that it is resized to.
    flip: mirror them left and right.
    offset: `DetectorSettings.box_offset`.

  Returns:
    `[m, 4]` float32; a box of which nothing is left has no positive side.
  """
  height, width = map(float, size)
  limits = np.array([width, height, width, height])
  boxes = np.clip(boxes, 0, limits) - np.array([0, 0, offset, offset])
  if flip:
    x1, y1, x2, y2 = boxes.T
    boxes = np.stack([width - offset - x2, y1, width - offset - x1, y2], 1)
  return (boxes * _scale(size, resized)).astype(np.float32)


def to_photo(boxes: np.ndarray, scale: np.ndarray, offset: float = 0.0) -> np.ndarray:
  """Returns boxes of a resized photo as `x1, y1, x2, y2` of the photo, the way back.

  Args:
    boxes: `[m, 4]`.
    scale: of the resizing, down and across: `[2]`.
    offset: `DetectorSettings.box_offset`.
  """
  down, across = np.asarray(scale, np.float64)
  photo = np.asarray(boxes, np.float64) / np.array([across, down, across, down])
  return photo + np.array([0, 0, offset, offset])


def scales(sizes: np.ndarray, resized: np.ndarray) -> np.ndarray:
  """Returns by what resizing multiplies, down and across, `[n, 2]` float32."""
  return (resized / sizes).astype(np.float32)


def _scale(size: np.ndarray, resized: np.ndarray) -> np.ndarray:
  down, across = np.asarray(resized, np.float64) / np.asarray(size)
  return np.array([across, down, across, down])
