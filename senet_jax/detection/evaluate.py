"""Detections of a whole split: every photo once, on any number of devices, in shapes of a few."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from senet_jax import runtime
from senet_jax.detection import coordinates
from senet_jax.detection.annotations import Annotations
from senet_jax.detection.feeds import DetectionEvalFeed
from senet_jax.errors import UserError

# Digits that the detections of a file have: of pixels and of scores.
_PIXELS, _SCORES = 3, 6


def eval_program(
  model: nn.Module, feed: DetectionEvalFeed, mesh: Mesh, *, deterministic: bool = False
) -> jax.stages.Wrapped:
  """Compiles `(variables, inputs) -> detections` of a batch, which every process then has whole.

  Args:
    model: the detector.
    feed: the data; inputs of another shape are another program.
    mesh: the devices.
    deterministic: that of `runtime.data_parallel`.
  """

  def detect(variables: dict, inputs: dict) -> dict[str, jax.Array]:
    batch = feed.batch(inputs)
    apply: Callable[..., Any] = model.apply
    found = apply(variables, batch['images'], train=False, sizes=batch['sizes'])
    found |= {name: batch[name] for name in ('scales', 'index', 'mask')}
    gather: dict[str, Any] = {'axis_name': runtime.DATA_AXIS, 'tiled': True}
    return jax.tree.map(lambda x: jax.lax.all_gather(x, **gather), found)

  whole = PartitionSpec()
  specs = (whole, feed.input_spec)
  return runtime.data_parallel(detect, mesh, specs, whole, deterministic=deterministic)


@dataclasses.dataclass
class Programs:
  """The programs of `eval_program`, one for each shape of inputs, compiled before they are needed.

  Attributes:
    plain: from `eval_program`.
  """

  plain: jax.stages.Wrapped
  _compiled: dict[tuple, Callable] = dataclasses.field(default_factory=dict)

  def compile(self, variables: dict[str, Any], shapes: list[dict[str, Any]]) -> None:
    """Compiles all of them; `shapes` are those of `feed.shapes()`."""
    for inputs in shapes:
      self._compiled[_key(inputs)] = self.plain.lower(variables, inputs).compile()

  def __call__(self, variables: dict[str, Any], inputs: dict[str, Any]) -> dict[str, jax.Array]:
    """Returns the detections of a batch."""
    return self._compiled.get(_key(inputs), self.plain)(variables, inputs)


def _key(inputs: dict[str, Any]) -> tuple:
  return tuple(inputs['images'].shape)


def detect(
  program: Callable,
  variables: dict[str, Any],
  feed: DetectionEvalFeed,
  annotations: Annotations,
  box_offset: float,
  interrupted: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]] | None:
  """Returns the detections in a split as COCO's results: a row for each, image by image.

  Args:
    program: from `eval_program`.
    variables: `params` and `batch_stats`.
    feed: the data.
    annotations: of the split.
    box_offset: that of the detector's `DetectorSettings`.
    interrupted: asked before each batch; if it says yes, it is given up.

  Returns:
    Rows with `image_id`, `category_id`, `bbox` (x, y, width, height in pixels of the photo) and
    `score`, or None if it was given up.

  Raises:
    UserError: no photo could be read.
  """
  rows: dict[int, list[dict[str, Any]]] = {}
  ahead = None
  for step in range(len(feed)):
    if interrupted():
      return None
    found = program(variables, feed.inputs(step))
    # The device works on one batch while the host reads the detections of the one before.
    if ahead is not None:
      rows |= _rows(jax.device_get(ahead), annotations, box_offset)
    ahead = found
  if ahead is not None:
    rows |= _rows(jax.device_get(ahead), annotations, box_offset)
  if not rows:
    raise UserError(
      'none of the photos to evaluate on could be read; change the data or the split.'
    )
  return [row for index in sorted(rows) for row in rows[index]]


def _rows(
  found: dict[str, Any], annotations: Annotations, box_offset: float
) -> dict[int, list[dict[str, Any]]]:
  """Returns the detections of the photos of a batch, by the index of the photo."""
  rows = {}
  for place in found['mask'].nonzero()[0]:
    index, there = int(found['index'][place]), found['valid'][place]
    photo = coordinates.to_photo(found['boxes'][place][there], found['scales'][place], box_offset)
    rows[index] = [
      {
        'image_id': int(annotations.image_ids[index]),
        'category_id': annotations.category_ids[label],
        'bbox': [round(x, _PIXELS) for x in (x1, y1, x2 - x1, y2 - y1)],
        'score': round(score, _SCORES),
      }
      for (x1, y1, x2, y2), label, score in zip(
        photo.tolist(),
        found['classes'][place][there].tolist(),
        found['scores'][place][there].astype(float).tolist(),
        strict=True,
      )
    ]
  return rows
