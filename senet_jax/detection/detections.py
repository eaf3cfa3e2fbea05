"""Detections in COCO results format: rows that other programs read, and the JSON of them."""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from senet_jax.detection import coordinates
from senet_jax.detection.annotations import Annotations, is_box, is_number
from senet_jax.errors import UserError, shown
from senet_jax.storage import files

# Decimals of a pixel, and of a score; more say nothing.
_PIXEL, _SCORE = 3, 6


def rows(
  annotations: Annotations,
  batch: Mapping[str, np.ndarray],
  found: Mapping[str, np.ndarray],
  offset: float,
) -> Iterator[dict[str, Any]]:
  """Yields a row for each detection of a batch: `image_id`, `category_id`, `bbox`, `score`.

  Args:
    annotations: of the split.
    batch: of `DetectionEvalFeed.batch`: `index`, `mask` and `scales`.
    found: by the network: `boxes` `[n, D, 4]` in its pixels, `scores`, `classes` and `valid`
      `[n, D]`. Classes beyond those of the data are left out.
    offset: `DetectorSettings.box_offset`.
  """
  index, mask, scales = (np.asarray(batch[name]) for name in ('index', 'mask', 'scales'))
  found = {name: np.asarray(values) for name, values in found.items()}
  known = found['valid'] & (found['classes'] < len(annotations.category_ids))
  for i in np.flatnonzero(mask > 0):
    chosen = known[i]
    boxes = coordinates.to_photo(found['boxes'][i, chosen], scales[i], offset)
    boxes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).round(_PIXEL).tolist()
    scores = found['scores'][i, chosen].astype(np.float64).round(_SCORE).tolist()
    image = int(annotations.image_ids[index[i]])
    for box, score, number in zip(boxes, scores, found['classes'][i, chosen], strict=True):
      category = annotations.category_ids[number]
      yield {'image_id': image, 'category_id': category, 'bbox': box, 'score': score}


def check(annotations: Annotations, detections: Sequence[Any]) -> None:
  """Checks rows, which may be another program's.

  Raises:
    UserError: names the first that is invalid.
  """
  images, categories = set(annotations.image_ids.tolist()), set(annotations.category_ids)
  for place, row in enumerate(detections):
    if not isinstance(row, dict):
      why = 'it has no fields'
    elif not _is_in(row.get('image_id'), images):
      why = 'no such image is in the data'
    elif not _is_in(row.get('category_id'), categories):
      why = 'no such category is in the data'
    elif not is_box(row.get('bbox')) or min(row['bbox'][2:]) < 0:
      why = 'bbox must be x, y, width and height'
    elif not is_number(row.get('score')):
      why = 'score must be a finite number'
    else:
      continue
    raise UserError(f'detection {place} is invalid: {why}: {shown(row)}.')


def _is_in(value: Any, numbers: set[int]) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value in numbers


def write(path: str | os.PathLike, detections: Sequence[dict[str, Any]]) -> None:
  """Writes the JSON of COCO's results, a row a line; whole or not at all."""
  lines = ',\n'.join(json.dumps(row, allow_nan=False) for row in detections)
  files.write_text(path, f'[\n{lines}\n]\n')


def read(path: str | os.PathLike, annotations: Annotations) -> list[dict[str, Any]]:
  """Reads such a JSON, of this or another program.

  Raises:
    UserError: it cannot be read, is not such a JSON, or is of other data.
  """
  try:
    found = json.loads(pathlib.Path(path).read_bytes())
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is no JSON, or damaged ({error}).') from error
  if not isinstance(found, list):
    raise UserError(f'{path} is not a list of detections in COCO results format.')
  check(annotations, found)
  return found
