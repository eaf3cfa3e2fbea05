"""The region proposal network (Ren et al. 2015, "Faster R-CNN"): head, proposals, losses."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax.detection import anchors as anchor_lib, boxes as box_lib, losses, matching
from senet_jax.detection.nms import nms
from senet_jax.detection.settings import DetectorSettings
from senet_jax.layers.conv import conv

# Deltas of anchors are not multiplied.
_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
_GAUSSIAN = nn.initializers.normal(0.01)


class Proposals(NamedTuple):
  """Boxes of images that may be objects, best first, `[N, P]` of each; the rest is padding.

  Attributes:
    boxes: `[N, P, 4]`.
    scores: logits, `[N, P]`.
    valid: bool `[N, P]`.
  """

  boxes: jax.Array
  scores: jax.Array
  valid: jax.Array


class RPNHead(nn.Module):
  """The convolutions that all levels share.

  Attributes:
    ratios: anchors of a place.
    dtype: of the computation.
  """

  ratios: int = 3
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, levels: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    """Returns logits and deltas of the anchors of each level.

    Args:
      levels: `[N, H, W, C]` of each.

    Returns:
      Of each level the logits `[N, H·W·ratios]` and the deltas `[N, H·W·ratios, 4]`, float32.
    """
    layer = functools.partial(conv, use_bias=True, kernel_init=_GAUSSIAN, dtype=self.dtype)
    hidden = layer(levels[0].shape[-1], 3, name='conv')
    objectness = layer(self.ratios, 1, name='objectness')
    deltas = layer(4 * self.ratios, 1, name='deltas')
    hiddens = [nn.relu(hidden(x)) for x in levels]
    n = levels[0].shape[0]
    return (
      [objectness(x).astype(jnp.float32).reshape(n, -1) for x in hiddens],
      [deltas(x).astype(jnp.float32).reshape(n, -1, 4) for x in hiddens],
    )


def anchors(
  image: tuple[int, ...], levels: Sequence[jax.Array], first_stride: int, options: DetectorSettings
) -> list[jax.Array]:
  """Returns the anchors of each level, `[H·W·ratios, 4]` float32.

  Args:
    image: height and width of the padded images.
    levels: `[N, H, W, C]` of each.
    first_stride: of the first level; each next one has twice as much.
    options: conventions.
  """
  return [
    anchor_lib.level_anchors(
      image,
      level.shape[1:3],
      size,
      first_stride * 2**i,
      options.aspect_ratios,
      options.anchor_style,
    )
    for i, (level, size) in enumerate(zip(levels, options.anchor_sizes, strict=True))
  ]


def propose(
  logits: Sequence[jax.Array],
  deltas: Sequence[jax.Array],
  level_anchors: Sequence[jax.Array],
  sizes: jax.Array,
  options: DetectorSettings,
  train: bool,
) -> Proposals:
  """Returns the best boxes of each image after suppression level by level; without gradients.

  Args:
    logits: of each level, `[N, A]`.
    deltas: of each level, `[N, A, 4]`.
    level_anchors: of each level, `[A, 4]`.
    sizes: height and width of each image without padding, `[N, 2]`.
    options: conventions.
    train: as many as training has.
  """
  before, most = options.pre_nms[not train], options.post_nms[not train]
  found: tuple[list[jax.Array], ...] = ([], [], [])
  for level, arrays in enumerate(zip(logits, deltas, level_anchors, strict=True)):
    level_logits, level_deltas, references = map(jax.lax.stop_gradient, arrays)
    scores, index = jax.lax.top_k(level_logits, min(before, level_logits.shape[1]))
    best = jnp.take_along_axis(level_deltas, index[..., None], 1, mode='clip')
    boxes = box_lib.decode(best, references[index], _WEIGHTS, options.box_offset)
    groups = jnp.full(scores.shape, level, jnp.int32)
    for array, values in zip(found, (scores, boxes, groups), strict=True):
      array.append(values)
  scores, boxes, groups = (jnp.concatenate(array, 1) for array in found)
  boxes = box_lib.clip(boxes, sizes, options.box_offset)
  valid = box_lib.are_large(boxes, options.min_proposal, options.box_offset)
  scores, order = jax.lax.top_k(jnp.where(valid, scores, -jnp.inf), scores.shape[1])

  def keep(scores, order, boxes, valid, groups):
    boxes = boxes[order]
    most_here = min(most, boxes.shape[0])
    index, there = nms(
      boxes, valid[order], groups[order], options.nms_threshold, most_here, options.box_offset
    )
    return jnp.where(there[:, None], boxes[index], 0), scores[index], there

  proposals = Proposals(*jax.vmap(keep)(scores, order, boxes, valid, groups))
  return best_of_batch(proposals, most) if train and options.proposals_of_batch else proposals


def best_of_batch(proposals: Proposals, most: int) -> Proposals:
  """Returns `proposals` of which only the `most` best of all images together are valid."""
  scores = jnp.where(proposals.valid, proposals.scores, -jnp.inf).reshape(-1)
  _, index = jax.lax.top_k(scores, min(most, scores.shape[0]))
  best = jnp.zeros(scores.shape, bool).at[index].set(True).reshape(proposals.valid.shape)
  return proposals._replace(valid=proposals.valid & best)


def rpn_losses(
  logits: jax.Array,
  deltas: jax.Array,
  all_anchors: jax.Array,
  sizes: jax.Array,
  targets: dict[str, jax.Array],
  priority: jax.Array,
  options: DetectorSettings,
) -> tuple[jax.Array, jax.Array]:
  """Returns the losses of objectness and of deltas, over a sample of the anchors of each image.

  Args:
    logits: of all levels, `[N, A]`.
    deltas: of all levels, `[N, A, 4]`.
    all_anchors: of all levels, `[A, 4]`.
    sizes: height and width of each image without padding, `[N, 2]`.
    targets: as of `FasterRCNN`.
    priority: random numbers that decide on the sample, `[N, A]`; see `matching.sample`.
    options: conventions.
  """

  def of_image(logits, deltas, size, boxes, valid, priority):
    index, is_positive, there, goal = _anchor_sample(
      all_anchors, size, boxes, valid, priority, options
    )
    objectness = optax.sigmoid_binary_cross_entropy(logits[index], is_positive)
    shift = losses.smooth_l1(deltas[index] - goal, options.rpn_beta).sum(-1)
    return (
      losses.masked_sum(objectness, there),
      losses.masked_sum(shift, is_positive & there),
      there.sum(),
    )

  real = targets['valid'] & ~targets['crowd']
  sums = jax.vmap(of_image)(logits, deltas, sizes, targets['boxes'], real, priority)
  objectness, shift, number = (values.sum() for values in sums)
  if options.rpn_fixed_norm:
    number = logits.shape[0] * options.rpn_batch
  return objectness / jnp.maximum(number, 1), shift / jnp.maximum(number, 1)


def _anchor_sample(all_anchors, size, boxes, valid, priority, options: DetectorSettings):
  """Returns what `matching.sample` does, and the deltas that the anchors should have, `[S, 4]`."""
  usable = jnp.ones(all_anchors.shape[0], bool)
  if options.rpn_straddle is not None:
    reach = options.rpn_straddle
    height, width = size.astype(jnp.float32)
    x1, y1, x2, y2 = (all_anchors[:, i] for i in range(4))
    usable = (x1 >= -reach) & (y1 >= -reach) & (x2 < width + reach) & (y2 < height + reach)
  quality = matching.overlaps(all_anchors, boxes, valid, options.box_offset)
  target, positive, negative = matching.match_anchors(
    quality, usable, options.rpn_positive, options.rpn_negative
  )
  index, is_positive, there = matching.sample(
    priority, positive, negative, options.rpn_batch, options.rpn_fraction
  )
  goal = box_lib.encode(boxes[target[index]], all_anchors[index], _WEIGHTS, options.box_offset)
  return index, is_positive, there, goal
