"""The loss of a detector, and which of its variables training leaves as they are."""

from typing import Any

import jax
from flax import linen as nn, traverse_util

from senet_jax.models.common import named_by

# The stages of the trunk that are frozen, from the stem on, as Detectron's and detectron2's
# FREEZE_AT.
FREEZE_AT = 2
STAGES = 5


def frozen(freeze_at: int = FREEZE_AT) -> tuple[str, ...]:
  """Returns the beginnings of the paths of all variables that training leaves, as of `named_by`.

  They are those of the first `freeze_at` stages of the trunk, of which the stem is the first, and
  of all its normalisations, which are a fixed affine map.
  """
  stages = ('stem', *(f'stage{stage}_' for stage in range(2, STAGES + 1)))
  return tuple(f'backbone/{name}' for name in (*stages[:freeze_at], '*bn*/'))


def is_frozen(path: tuple[str, ...], freeze_at: int = FREEZE_AT) -> bool:
  """Returns whether training leaves the parameter at `path`, from the detector on; see `frozen`."""
  return named_by(path, frozen(freeze_at))


def _constant_where(patterns: tuple[str, ...], params: dict[str, Any]) -> dict[str, Any]:
  """Returns `params` with gradients of exactly 0 where `named_by` is; the way back ends there."""
  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict(
    {path: jax.lax.stop_gradient(x) if named_by(path, patterns) else x for path, x in flat.items()}
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
  detector: Any = model
  constant = _constant_where(detector.frozen, params)
  losses: Any = model.apply(
    {'params': constant, 'batch_stats': batch_stats},
    batch['images'],
    True,
    batch['sizes'],
    batch['targets'],
    batch.get('priorities'),
    rngs=rngs,
  )
  return sum(losses.values()), losses
