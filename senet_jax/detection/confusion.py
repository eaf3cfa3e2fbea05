"""Which objects a detector takes for which, finds nothing of, or sees where there is none."""

import collections
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from senet_jax.detection.annotations import Annotations

# Of an object and what was found of it, from which on they are one.
_OVERLAP = 0.5


def confusion(
  annotations: Annotations, detections: Iterable[Mapping[str, Any]], threshold: float = 0.5
) -> np.ndarray:
  """Counts what objects were taken for.

  The detections of an image, best first, each take the object with which they share most, if no
  other has taken it, whatever its class. Those that find none, but lie in a crowd, are not counted.

  Args:
    annotations: of a split.
    detections: rows of COCO's results: `image_id`, `category_id`, `bbox` (x, y, width, height) and
      `score`.
    threshold: lower scores are left out.

  Returns:
    Objects by class (rows) and by what they were taken for (columns), `[K + 1, K + 1]` int64; the
    last row is no object, the last column no detection.
  """
  by_image = collections.defaultdict(list)
  for row in detections:
    if row['score'] >= threshold:
      by_image[row['image_id']].append(row)
  classes = {category: i for i, category in enumerate(annotations.category_ids)}
  nothing = len(classes)
  counts = np.zeros((nothing + 1,) * 2, np.int64)
  for i, image_id in enumerate(annotations.image_ids.tolist()):
    own = annotations.of(i)
    boxes, labels, crowd = (
      values[own] for values in (annotations.boxes, annotations.classes, annotations.crowd)
    )
    rows = sorted(by_image[image_id], key=lambda row: -row['score'])
    free = ~crowd
    for row in rows:
      label, box = classes[row['category_id']], _corners(row['bbox'])
      overlap = np.where(free, _iou(box, boxes), 0)
      best = int(overlap.argmax()) if len(overlap) else -1
      if best >= 0 and overlap[best] >= _OVERLAP:
        free[best] = False
        counts[labels[best], label] += 1
      elif not (_share(box, boxes[crowd]) >= _OVERLAP).any():
        counts[nothing, label] += 1
    np.add.at(counts[:, nothing], labels[free], 1)
  return counts


def most_frequent(
  counts: np.ndarray, names: Iterable[str], most: int
) -> tuple[np.ndarray, list[str]]:
  """Returns the counts of the classes that come up most, and their names, `nothing` at the end.

  Args:
    counts: of `confusion`.
    names: of the classes.
    most: classes that are kept.
  """
  names, nothing = list(names), len(counts) - 1
  frequency = (counts.sum(0) + counts.sum(1))[:nothing]
  present = int((frequency > 0).sum())
  kept = np.sort(np.argsort(-frequency, kind='stable')[: min(most, present)])
  rows = [*kept.tolist(), nothing]
  return counts[np.ix_(rows, rows)], [*(names[i] for i in kept), 'nothing']


def _corners(bbox: list[float]) -> np.ndarray:
  x, y, width, height = bbox
  return np.array([x, y, x + width, y + height])


def _shared(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
  """Returns the areas that a box `[4]` shares with `boxes` `[m, 4]`, `[m]`."""
  sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
  return np.maximum(sides, 0).prod(1)


def _areas(boxes: np.ndarray) -> np.ndarray:
  return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _iou(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
  shared = _shared(box, boxes)
  return shared / np.maximum(_areas(box) + _areas(boxes) - shared, 1e-9)


def _share(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
  """Returns the share of a box that lies in each of `boxes`."""
  return _shared(box, boxes) / max(_areas(box), 1e-9)
