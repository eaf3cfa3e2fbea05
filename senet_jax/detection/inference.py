"""Detections of a batch, and whether the network computes numbers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

# Whose scores tell a network that computes no numbers from one that finds nothing.
_HEAD = 'roi_head'


def detect(
  model: nn.Module, variables: dict, images: jax.Array, sizes: jax.Array
) -> dict[str, jax.Array]:
  """Returns what a detector finds, see `FasterRCNN`, and `finite` `[N]` bool, of the scores."""
  found, state = model.apply(
    variables,
    images,
    train=False,
    sizes=sizes,
    capture_intermediates=lambda module, _: module.name == _HEAD,
    mutable=['intermediates'],
  )
  outputs: Any = found
  logits = state['intermediates'][_HEAD]['__call__'][0][0]
  return {**outputs, 'finite': jnp.isfinite(logits).all((1, 2))}
