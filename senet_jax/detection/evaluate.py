"""Detections of a whole split: every photo once, on any number of devices, in shapes of a few."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from senet_jax import runtime
from senet_jax.detection import detections, inference
from senet_jax.detection.annotations import Annotations
from senet_jax.detection.feeds import DetectionEvalFeed
from senet_jax.errors import UserError


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
    found = inference.detect(model, variables, batch['images'], batch['sizes'])
    found |= {name: batch[name] for name in ('scales', 'index', 'mask')}
    gather: dict[str, Any] = {'axis_name': runtime.DATA_AXIS, 'tiled': True}
    return jax.tree.map(lambda x: jax.lax.all_gather(x, **gather), found)

  whole = PartitionSpec()
  specs = (whole, feed.input_spec)
  return runtime.data_parallel(detect, mesh, specs, whole, deterministic=deterministic)


@dataclasses.dataclass(frozen=True)
class Found:
  """The detections in a split.

  Attributes:
    rows: of COCO's results, see `detections.rows`.
    unreadable: photos that could not be read, whose objects count as missed.
    finite: whether the network computed numbers for all others.
  """

  rows: list[dict[str, Any]]
  unreadable: int
  finite: bool


def detect(
  program: Callable,
  variables: dict[str, Any],
  feed: DetectionEvalFeed,
  annotations: Annotations,
  box_offset: float,
  interrupted: Callable[[], bool] = lambda: False,
) -> Found | None:
  """Returns the detections in a split, image by image.

  Args:
    program: from `eval_program`.
    variables: `params` and `batch_stats`.
    feed: the data.
    annotations: of the split.
    box_offset: that of the detector's `DetectorSettings`.
    interrupted: asked before each batch; if it says yes, it is given up.

  Returns:
    What was found, or None if it was given up.

  Raises:
    UserError: no photo could be read.
  """
  rows: list[dict[str, Any]] = []
  ahead, photos, finite = None, 0, True
  for step in range(len(feed) + 1):
    if interrupted():
      return None
    found = program(variables, feed.inputs(step)) if step < len(feed) else None
    # The device works on one batch while the host reads the detections of the one before.
    if ahead is not None:
      here = jax.device_get(ahead)
      finite &= bool(here['finite'][here['mask'] > 0].all())
      photos += int(here['mask'].sum())
      rows += detections.rows(annotations, here, here, box_offset)
    ahead = found
  if not photos:
    raise UserError(
      'none of the photos to evaluate on could be read; change the data or the split.'
    )
  rows.sort(key=lambda row: row['image_id'])
  return Found(rows, len(annotations) - photos, finite)
