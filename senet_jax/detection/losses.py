"""Losses of detectors, element by element, in float32."""

import jax
import jax.numpy as jnp


def smooth_l1(error: jax.Array, beta: float) -> jax.Array:
  """Returns `e² / (2 beta)` where `|e| < beta`, or else `|e| - beta / 2`; `|e|` for `beta` 0."""
  size = jnp.abs(error)
  if beta == 0:
    return size
  return jnp.where(size < beta, 0.5 * error * error / beta, size - 0.5 * beta)


def masked_sum(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Returns the sum of `values` where `mask` is; what they are elsewhere has no gradient."""
  return jnp.where(mask, values, 0).sum()
