"""The loss of a detector, and which of its parameters training leaves as they are."""

from typing import Any

import jax
from flax import linen as nn, traverse_util

# Of the trunk, as Detectron's FREEZE_AT = 2.
_FROZEN_MODULES = ('stem', 'stage2_')


def is_frozen(path: tuple[str, ...]) -> bool:
  """Returns whether training leaves the parameter at `path`, from the detector on, as it is.

  It does so with the trunk's stem and second stage, and with the scales and shifts of all its
  normalisations, which are a fixed affine map.
  """
  if path[0] != 'backbone':
    return False
  return path[1].startswith(_FROZEN_MODULES) or any('bn' in part for part in path[1:-1])


def constant_where_frozen(params: dict[str, Any]) -> dict[str, Any]:
  """Returns `params` with gradients of exactly 0 where `is_frozen` is; the way back ends there."""
  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict(
    {path: jax.lax.stop_gradient(x) if is_frozen(path) else x for path, x in flat.items()}
  )


def loss_fn(
  params,
  batch_stats,
  batch: dict[str, Any],
  *,
  model: nn.Module,
  rngs: dict[str, jax.Array] | None = None,
):
  """Returns the loss of a batch; pure, without collectives.

  Args:
    params: of the detector.
    batch_stats: statistics of the trunk, which stay as they are.
    batch: `images` `[N, H, W, 3]`, `sizes` `[N, 2]` and `targets`, as of `FasterRCNN`; and
      `priorities`, if the samples are given.
    model: the detector.
    rngs: the key `sampling`.

  Returns:
    The sum of the losses, float32, and the losses by name.
  """
  losses: Any = model.apply(
    {'params': constant_where_frozen(params), 'batch_stats': batch_stats},
    batch['images'],
    True,
    batch['sizes'],
    batch['targets'],
    batch.get('priorities'),
    rngs=rngs,
  )
  return sum(losses.values()), losses
