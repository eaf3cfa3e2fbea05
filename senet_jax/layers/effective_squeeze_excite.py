"""Effective squeeze-and-excitation (Lee and Park 2020, "CenterMask", section 3.2)."""

import jax
from flax import linen as nn

from senet_jax.layers.channel_gate import ChannelGate


class EffectiveSqueezeExcite(ChannelGate):
  """Scales each channel by a gate computed from the means of all, with one layer and no reduction.

  The gate is `relu6(W m + b + 3) / 6`, with `m` the means. As timm's `EffectiveSEModule`.
  """

  @nn.compact
  def gate(self, squeezed: jax.Array) -> jax.Array:
    """Returns the gate, float32, of the shape of `squeezed` `[N, 1, …, 1, C]` float32."""
    return jax.nn.hard_sigmoid(nn.Dense(squeezed.shape[-1], name='fc')(squeezed))

  @nn.nowrap
  def estimated_weights(self, channels: int) -> float:
    """Returns C², the weights of one block without biases."""
    return float(channels**2)
