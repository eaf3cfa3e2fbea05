"""Non-maximum suppression on the device: static shapes, exactly what the greedy algorithm keeps."""

import functools

import jax
import jax.numpy as jnp

from senet_jax.detection import boxes as box_lib

# Boxes that are decided together; a multiple of the lanes of a TPU.
_BLOCK = 256


def nms(
  boxes: jax.Array,
  valid: jax.Array,
  groups: jax.Array,
  threshold: float,
  most: int,
  offset: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Returns which boxes of an image greedy suppression keeps.

  Box after box is kept unless its IoU with one that is kept, of the same group, is above
  `threshold`. Blocks of boxes are decided one after the other: first by the boxes that are kept
  already, then by each other until nothing changes any more, which is what the greedy algorithm
  keeps, as each turn is right about one more box at least. The loop ends when `most` are kept or no
  block has a valid box.

  Args:
    boxes: `[K, 4]`, best first.
    valid: `[K]` bool; the others are neither kept nor suppress. The loop ends behind the last one.
    groups: `[K]` integers: classes or levels.
    threshold: on IoU.
    most: boxes that are kept.
    offset: of widths.

  Returns:
    Indices `[most]` into `boxes`, rising, and whether each is one, bool `[most]`.
  """
  count = boxes.shape[0]
  block = min(_BLOCK, count)
  more = -count % block
  # Empty boxes overlap nothing.
  boxes = jnp.pad(boxes.astype(jnp.float32), ((0, more), (0, 0)))
  valid, groups = jnp.pad(valid, (0, more)), jnp.pad(groups, (0, more))
  used = jnp.max(jnp.where(valid, jnp.arange(count + more) + 1, 0))
  decide = functools.partial(_decide_block, block, threshold, offset, boxes, valid, groups)

  def unfinished(state):
    i, kept = state
    return (i * block < used) & (kept[2] < most)

  kept = (jnp.zeros(most, jnp.int32), jnp.zeros((most, 4)), jnp.int32(0))
  kept_groups = jnp.zeros(most, groups.dtype)
  _, (indices, _, number, _) = jax.lax.while_loop(
    unfinished, lambda state: (state[0] + 1, decide(*state)), (jnp.int32(0), (*kept, kept_groups))
  )
  return indices, jnp.arange(most) < number


def _decide_block(block, threshold, offset, boxes, valid, groups, i, kept):
  """Adds to the indices, boxes, number and groups that are kept those of block `i`."""
  indices, kept_boxes, number, kept_groups = kept
  most, start = indices.shape[0], i * block
  take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=block)
  own, own_groups = take(boxes), take(groups)

  def overlaps(others, other_groups):
    above = box_lib.iou(others, own, offset) > threshold
    return above & (other_groups[:, None] == own_groups)

  before = jnp.arange(most)[:, None] < number
  alive = take(valid) & ~(overlaps(kept_boxes, kept_groups) & before).any(0)
  places = jnp.arange(block)
  within = overlaps(own, own_groups) & (places[:, None] < places)
  keep = _greedy(within, alive)
  target = jnp.where(keep, number + jnp.cumsum(keep) - 1, most)  # behind the end: left out
  put = lambda array, values: array.at[target].set(values, mode='drop')  # noqa: E731
  return (
    put(indices, start + places),
    put(kept_boxes, own),
    jnp.minimum(number + keep.sum(dtype=jnp.int32), most),
    put(kept_groups, own_groups),
  )


def _greedy(suppresses: jax.Array, alive: jax.Array) -> jax.Array:
  """Returns what is kept: that is alive, and that nothing kept suppresses, bool `[T]`."""

  def step(state):
    keep, _ = state
    new = alive & ~(suppresses & keep[:, None]).any(0)
    return new, (new != keep).any()

  return jax.lax.while_loop(lambda state: state[1], step, (alive, jnp.array(True)))[0]
