"""Gather-excite without parameters (Hu et al. 2018, "Gather-Excite", section 3.1)."""

import jax

from senet_jax.layers.channel_gate import ChannelGate


class GatherExcite(ChannelGate):
  """Scales each channel by the sigmoid of its own mean over the whole map.

  The paper's GE-θ⁻ with global extent, the one that it recommends; it has nothing to learn. As
  timm's `GatherExcite(channels, use_mlp=False)`.
  """

  def gate(self, squeezed: jax.Array) -> jax.Array:
    """Returns the gate, float32, of the shape of `squeezed` `[N, 1, …, 1, C]` float32."""
    return jax.nn.sigmoid(squeezed)
