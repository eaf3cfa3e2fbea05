"""Which boxes are objects in training: matching by overlap, and samples of both kinds."""

import jax
import jax.numpy as jnp

from senet_jax.detection import boxes as box_lib


def overlaps(
  boxes: jax.Array, targets: jax.Array, valid: jax.Array, offset: float = 0.0
) -> jax.Array:
  """Returns IoU of `boxes` `[A, 4]` and `targets` `[M, 4]`, -1 with targets not `valid` `[M]`."""
  return jnp.where(valid, box_lib.iou(boxes, targets, offset), -1)


def match_anchors(
  quality: jax.Array, usable: jax.Array, positive: float, negative: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Matches anchors with targets (Ren et al. 2015, "Faster R-CNN", section 3.1.2).

  An anchor is positive from the overlap `positive` on, and if no anchor overlaps some target more,
  ties included; it belongs to the target that it overlaps most, the first of equal ones. It is
  negative below the overlap `negative`. The rest are neither.

  Args:
    quality: `[A, M]`, as of `overlaps`.
    usable: `[A]` bool; the others are neither, and the best for no target.
    positive: IoU.
    negative: IoU.

  Returns:
    The target of each anchor, int32 `[A]`, whether it is positive and whether negative, bool `[A]`.
  """
  # Lest it is computed twice, and rounded in two ways: ties are equal to the last bit.
  quality = jax.lax.optimization_barrier(jnp.where(usable[:, None], quality, -1))
  best, target = quality.max(1), quality.argmax(1).astype(jnp.int32)
  best_of_target = quality.max(0)
  ties = ((quality == best_of_target) & (best_of_target > 0)).any(1)
  is_positive = usable & (ties | (best >= positive))
  return target, is_positive, usable & ~is_positive & (best < negative)


def match_proposals(
  quality: jax.Array, usable: jax.Array, positive: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Matches proposals with targets: foreground from the overlap `positive` on, or else background.

  Args:
    quality: `[P, M]`, as of `overlaps`.
    usable: `[P]` bool; the others are neither.
    positive: IoU.

  Returns:
    As `match_anchors`.
  """
  best, target = quality.max(1), quality.argmax(1).astype(jnp.int32)
  return target, usable & (best >= positive), usable & (best < positive)


def in_crowd(
  boxes: jax.Array, crowds: jax.Array, valid: jax.Array, offset: float = 0.0
) -> jax.Array:
  """Returns the largest share of each of `boxes` `[P, 4]` in one of `crowds` `[M, 4]`, `[P]`.

  Crowds that are not `valid` `[M]` count for nothing.
  """
  share = box_lib.intersection(boxes, crowds, offset)
  share /= jnp.maximum(box_lib.area(boxes, offset), 1e-6)[:, None]
  return jnp.where(valid, share, 0).max(1)


def sample(
  priority: jax.Array, positive: jax.Array, negative: jax.Array, size: int, fraction: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws positive and negative boxes: those with the highest priorities of either kind.

  Args:
    priority: `[A]` float32 in [0, 1), random and independent: every sample is equally likely then.
    positive: `[A]` bool.
    negative: `[A]` bool.
    size: boxes that are drawn, if there are as many.
    fraction: of them that are positive, at most; negative ones take what is left.

  Returns:
    Indices `[size]`, the positive ones first, whether each is positive and whether it is one at
    all, bool `[size]`.
  """
  most_positive = int(size * fraction)
  positives = _first(priority, positive, most_positive)
  negatives = _first(priority, negative, size)
  number = jnp.minimum(positive.sum(), most_positive)
  slot = jnp.arange(size)
  from_negatives = jnp.clip(slot - number, 0, negatives.shape[0] - 1)
  is_positive = slot < number
  index = negatives[from_negatives]
  if most_positive:
    from_positives = jnp.minimum(slot, positives.shape[0] - 1)
    index = jnp.where(is_positive, positives[from_positives], index)
  return index, is_positive, slot < number + jnp.minimum(negative.sum(), size - number)


def _first(priority: jax.Array, mask: jax.Array, count: int) -> jax.Array:
  """Returns the indices of the highest priorities in `mask`, and of others behind them."""
  count = min(count, priority.shape[0])
  return jax.lax.top_k(jnp.where(mask, priority, -1), count)[1]
