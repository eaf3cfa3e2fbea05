"""The head for regions of interest (Girshick 2015, "Fast R-CNN"): scores, losses, detections."""

import math

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax.detection import boxes as box_lib, losses, matching
from senet_jax.detection.fpn import XAVIER
from senet_jax.detection.nms import nms
from senet_jax.detection.rpn import Proposals
from senet_jax.detection.settings import DetectorSettings


class RoIHead(nn.Module):
  """Two fully connected layers, and one each for classes and boxes.

  Attributes:
    num_classes: without the background, whose score is the first.
    features: of the hidden layers.
    dtype: of these.
  """

  num_classes: int
  features: int = 1024
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, pooled: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Scores regions.

    Args:
      pooled: `[N, R, bins, bins, C]`.

    Returns:
      Logits `[N, R, 1 + num_classes]` and deltas `[N, R, 1 + num_classes, 4]`, float32; those of
      the background are never used.
    """
    x = pooled.reshape(*pooled.shape[:2], -1)
    for name in ('fc6', 'fc7'):
      x = nn.relu(nn.Dense(self.features, kernel_init=XAVIER, dtype=self.dtype, name=name)(x))
    x, outputs = x.astype(jnp.float32), 1 + self.num_classes
    logits = nn.Dense(outputs, kernel_init=nn.initializers.normal(0.01), name='class_logits')(x)
    deltas = nn.Dense(4 * outputs, kernel_init=nn.initializers.normal(0.001), name='box_deltas')(x)
    return logits, deltas.reshape(*x.shape[:2], outputs, 4)


def sample_rois(
  proposals: Proposals,
  targets: dict[str, jax.Array],
  priority: jax.Array,
  options: DetectorSettings,
) -> dict[str, jax.Array]:
  """Draws the boxes that are in the loss, from proposals and the true boxes.

  Args:
    proposals: `[N, P]`.
    targets: as of `FasterRCNN`, with M boxes an image.
    priority: random numbers that decide on the sample, `[N, P + M]`; see `matching.sample`.
    options: conventions.

  Returns:
    `boxes` `[N, R, 4]`, `labels` int32 `[N, R]`, 0 for background, `deltas` that the boxes should
    have `[N, R, 4]`, and `valid` bool `[N, R]`.
  """

  def of_image(boxes, valid, goals, classes, real, crowd, priority):
    count = boxes.shape[0]
    boxes = jnp.concatenate([boxes, goals])
    usable = jnp.concatenate([valid, real])
    quality = matching.overlaps(boxes, goals, real, options.box_offset)
    target, positive, negative = matching.match_proposals(quality, usable, options.roi_positive)
    if options.crowd_threshold is not None:
      share = matching.in_crowd(boxes, goals, crowd, options.box_offset)
      crowded = (share > options.crowd_threshold) & (jnp.arange(boxes.shape[0]) < count)
      positive, negative = positive & ~crowded, negative & ~crowded
    index, is_positive, there = matching.sample(
      priority, positive, negative, options.roi_batch, options.roi_fraction
    )
    boxes, target = boxes[index], target[index]
    goal = box_lib.encode(goals[target], boxes, options.roi_weights, options.box_offset)
    return {
      'boxes': boxes,
      'labels': jnp.where(is_positive, classes[target] + 1, 0),
      'deltas': goal,
      'valid': there,
    }

  crowd = targets['valid'] & targets['crowd']
  real = targets['valid'] & ~targets['crowd']
  return jax.lax.stop_gradient(
    jax.vmap(of_image)(
      proposals.boxes,
      proposals.valid,
      targets['boxes'],
      targets['classes'],
      real,
      crowd,
      priority,
    )
  )


def roi_losses(
  logits: jax.Array, deltas: jax.Array, rois: dict[str, jax.Array], options: DetectorSettings
) -> tuple[jax.Array, jax.Array]:
  """Returns the losses of classes and of boxes, both means over the boxes of a sample.

  Args:
    logits: `[N, R, 1 + K]`.
    deltas: `[N, R, 1 + K, 4]`.
    rois: as `sample_rois` gives them.
    options: conventions.
  """
  labels, valid = rois['labels'], rois['valid']
  number = jnp.maximum(valid.sum(), 1)
  classes = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  own = jnp.take_along_axis(deltas, labels[..., None, None], 2, mode='clip')[:, :, 0]
  shift = losses.smooth_l1(own - rois['deltas'], options.roi_beta).sum(-1)
  return (
    losses.masked_sum(classes, valid) / number,
    losses.masked_sum(shift, valid & (labels > 0)) / number,
  )


def detect(
  logits: jax.Array,
  deltas: jax.Array,
  proposals: Proposals,
  sizes: jax.Array,
  options: DetectorSettings,
) -> dict[str, jax.Array]:
  """Returns the detections of images, each class suppressed by itself, best first.

  Args:
    logits: of the proposals, `[N, P, 1 + K]`.
    deltas: of the proposals, `[N, P, 1 + K, 4]`.
    proposals: `[N, P]`.
    sizes: height and width of each image without padding, `[N, 2]`.
    options: conventions.

  Returns:
    `boxes` `[N, D, 4]`, `scores` `[N, D]`, `classes` int32 `[N, D]` from 0, and `valid` bool
    `[N, D]`; D is `options.detections`, and what is not valid is zeros.
  """
  probabilities = jax.nn.softmax(logits)[..., 1:]
  images, count, classes = probabilities.shape
  boxes = box_lib.decode(
    deltas[:, :, 1:], proposals.boxes[:, :, None], options.roi_weights, options.box_offset
  )
  boxes = box_lib.clip(boxes, sizes, options.box_offset)
  good = proposals.valid[..., None] & (probabilities > options.score_threshold)
  good &= box_lib.are_large(boxes, options.min_detection, options.box_offset)
  scores = jnp.where(good, probabilities, -1).reshape(images, -1)
  # No proposal has more classes above the threshold, as their probabilities sum to 1.
  each = min(classes, math.floor(1 / max(options.score_threshold, 1 / classes)))
  scores, order = jax.lax.top_k(scores, count * each)

  def keep(scores, order, boxes):
    boxes, labels = boxes.reshape(-1, 4)[order], order % classes
    index, there = nms(
      boxes,
      scores > 0,
      labels,
      options.box_nms_threshold,
      options.detections,
      options.box_offset,
    )
    return {
      'boxes': jnp.where(there[:, None], boxes[index], 0),
      'scores': jnp.where(there, scores[index], 0),
      'classes': jnp.where(there, labels[index], 0).astype(jnp.int32),
      'valid': there,
    }

  return jax.vmap(keep)(scores, order, boxes)
