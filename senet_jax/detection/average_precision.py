"""Average precision as COCO defines it, computed by COCO's own code, pycocotools."""

import contextlib
import dataclasses
import importlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from senet_jax.detection import detections as detections_lib
from senet_jax.detection.annotations import Annotations
from senet_jax.errors import UserError

# Where in pycocotools' arrays a size of objects is, and a number of detections of an image.
_AREAS = {'all': 0, 'small': 1, 'medium': 2, 'large': 3}
_MOST = {1: 0, 10: 1, 100: 2}
# Where in its thresholds of IoU, which are 0.5, 0.55, …, 0.95, these are.
IOU_50, IOU_75, IOU_90 = 0, 5, 8


@dataclasses.dataclass(frozen=True, eq=False)
class Precision:
  """The average precision and recall of detections.

  Attributes:
    results: in percent: `ap`, over IoU from 0.5 to 0.95, `ap50` and `ap75`; `ap_small`, `ap_medium`
      and `ap_large` of objects of up to 32² pixels, up to 96², and above; `ar_1`, `ar_10` and
      `ar_100`, the average recall of so many detections an image. A size that no object has is
      left out.
    per_class: `ap` of each class that has objects, by name.
    precision: `[10, 101, K]`, by threshold of IoU, recall in percent and class, from 0 to 1; -1 of
      classes without objects.
  """

  results: dict[str, float]
  per_class: dict[str, float]
  precision: np.ndarray


def average_precision(
  annotations: Annotations, detections: Sequence[dict[str, Any]]
) -> dict[str, float]:
  """Returns the results of `judge` alone."""
  return judge(annotations, detections).results


def judge(annotations: Annotations, detections: Sequence[dict[str, Any]]) -> Precision:
  """Compares detections with annotations.

  Args:
    annotations: of the images; all of them count, those without a detection too.
    detections: rows of COCO's results: `image_id`, `category_id`, `bbox` (x, y, width, height) and
      `score`. Of each image and class the 100 with the highest scores count.

  Raises:
    UserError: pycocotools is not installed, there is no object to be found, or a row is invalid.
  """
  annotations.check_objects('these photos')
  detections_lib.check(annotations, detections)
  found = _evaluated(annotations, detections)
  precision, recall = found['precision'], found['recall']
  of_all = precision[:, :, :, _AREAS['all'], _MOST[100]]
  means = {
    'ap': _percent(of_all),
    'ap50': _percent(of_all[IOU_50]),
    'ap75': _percent(of_all[IOU_75]),
    **{
      f'ap_{size}': _percent(precision[:, :, :, _AREAS[size], _MOST[100]])
      for size in ('small', 'medium', 'large')
    },
    **{f'ar_{most}': _percent(recall[:, :, _AREAS['all'], place]) for most, place in _MOST.items()},
  }
  classes = {name: _percent(of_all[:, :, k]) for k, name in enumerate(annotations.class_names)}
  return Precision(
    {name: mean for name, mean in means.items() if mean is not None},
    {name: mean for name, mean in classes.items() if mean is not None},
    of_all,
  )


def _percent(values: np.ndarray) -> float | None:
  """Returns the mean of what is there, in percent; None if nothing is."""
  there = values[values > -1]
  return 100 * float(there.mean()) if there.size else None


def _evaluated(annotations: Annotations, detections: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """Returns pycocotools' arrays: precision `[T, R, K, A, M]` and recall `[T, K, A, M]`."""
  coco, evaluation = _pycocotools('coco'), _pycocotools('cocoeval')
  with contextlib.redirect_stdout(io.StringIO()):  # it prints at every turn
    sets = []
    for rows in (_objects(annotations), _found(detections)):
      one = coco.COCO()
      one.dataset = {
        'images': [{'id': number} for number in annotations.image_ids.tolist()],
        'categories': [{'id': number} for number in annotations.category_ids],
        'annotations': list(rows),
      }
      one.createIndex()
      sets.append(one)
    run = evaluation.COCOeval(*sets, 'bbox')
    run.evaluate()
    run.accumulate()
  return run.eval


def _objects(annotations: Annotations) -> Iterator[dict[str, Any]]:
  # To pycocotools an object of id 0 is never found.
  images = np.repeat(annotations.image_ids, annotations.counts).tolist()
  sizes = annotations.boxes[:, 2:] - annotations.boxes[:, :2]
  boxes = np.concatenate([annotations.boxes[:, :2], sizes], 1).tolist()
  for i, (image, box) in enumerate(zip(images, boxes, strict=True)):
    yield {
      'id': i + 1,
      'image_id': image,
      'category_id': annotations.category_ids[annotations.classes[i]],
      'bbox': box,
      'area': float(annotations.areas[i]),
      'iscrowd': int(annotations.crowd[i]),
    }


def _found(detections: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
  for i, row in enumerate(detections):
    yield {**row, 'id': i + 1, 'area': row['bbox'][2] * row['bbox'][3], 'iscrowd': 0}


def check_installed() -> None:
  """Checks that pycocotools is there.

  Raises:
    UserError: it is not.
  """
  _pycocotools('cocoeval')


def _pycocotools(module: str):
  try:
    return importlib.import_module(f'pycocotools.{module}')
  except ImportError as error:
    raise UserError(
      'pycocotools is not installed, which is needed for average precision: '
      "pip install 'senet_jax[detection]'."
    ) from error
