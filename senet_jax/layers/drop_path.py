"""Stochastic depth (Huang et al. 2016): images that skip the branch of a residual unit."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax import runtime
from senet_jax.layers.normalization import DeferredAffine


class DropPath(nn.Module):
  """Makes the branch zero for a share of the images of a training step, and the others larger.

  Which ones depends on the key `drop_path` and on their places in the batch of all devices, so that
  the number of devices, which all have the same key, changes nothing. As timm's `DropPath`.

  Attributes:
    rate: the share, below 1.
  """

  rate: float

  @nn.compact
  def __call__(self, y: jax.Array | DeferredAffine, train: bool) -> jax.Array | DeferredAffine:
    """Returns the branch `[N, H, W, C]`, divided by `1 - rate` or zero for each image."""
    if not train or not self.rate or self.is_initializing():
      return y
    count = (y.x if isinstance(y, DeferredAffine) else y).shape[0]
    places, total = runtime.places_of(count)
    kept = jax.random.bernoulli(self.make_rng('drop_path'), 1 - self.rate, (total,))[places]
    gate = (kept / (1 - self.rate)).astype(jnp.float32)[:, None, None, None]
    return y.times(gate) if isinstance(y, DeferredAffine) else y * gate.astype(y.dtype)
