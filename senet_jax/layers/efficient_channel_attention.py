"""Efficient channel attention (Wang et al. 2020, "ECA-Net", section 3, algorithm of figure 3)."""

import math

import jax
from flax import linen as nn

from senet_jax.layers.channel_gate import ChannelGate

# As torch.nn.Conv1d, which the authors' code leaves alone: uniform, variance 1/(3 fan_in).
_INIT = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')


def kernel_size(channels: int) -> int:
  """Returns |log2(C) / 2 + 1 / 2|_odd, equation 12, rounded as in the authors' code; 3 at least."""
  size = int(abs(math.log2(channels) + 1) / 2)
  return max(size if size % 2 else size + 1, 3)


class EfficientChannelAttention(ChannelGate):
  """Scales each channel by a gate computed from its own mean and those of its neighbours.

  The gate is `sigmoid(w * m)`, with `m` the means and `w` one kernel of `kernel_size(C)` weights
  that slides over the channels, zeros beyond both ends. As timm's `EcaModule`.
  """

  @nn.compact
  def gate(self, squeezed: jax.Array) -> jax.Array:
    """Returns the gate, float32, of the shape of `squeezed` `[N, 1, …, 1, C]` float32."""
    channels = squeezed.shape[-1]
    size = kernel_size(channels)
    convolve = nn.Conv(
      1, (size,), padding=size // 2, use_bias=False, kernel_init=_INIT, name='conv'
    )
    return jax.nn.sigmoid(convolve(squeezed.reshape(-1, channels, 1))).reshape(squeezed.shape)
