"""The feature pyramid (Lin et al. 2017, "Feature Pyramid Networks for Object Detection")."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax.layers.conv import conv

# Uniform, variance 1 / fan_in: Caffe2's XavierFill.
XAVIER = nn.initializers.variance_scaling(1.0, 'fan_in', 'uniform')


class FPN(nn.Module):
  """Maps of equal channels for all scales, the coarse ones added to the fine ones.

  Attributes:
    first: number of the finest level, that of the first map.
    channels: of all levels.
    dtype: of the computation.
  """

  first: int = 2
  channels: int = 256
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
    """Returns the levels of a pyramid, finest first.

    Args:
      maps: `[N, H, W, C]` of the trunk's stages, each of half the size of the one before.

    Returns:
      As many maps of `channels` channels and the same sizes, and one more, which has each second
      row and column of the last.
    """
    layer = functools.partial(conv, use_bias=True, kernel_init=XAVIER, dtype=self.dtype)
    levels, above = [], None
    for level, x in reversed(list(enumerate(maps, start=self.first))):
      x = layer(self.channels, 1, name=f'lateral{level}')(x)
      above = x if above is None else x + _doubled(above)
      levels.append(layer(self.channels, 3, name=f'output{level}')(above))
    levels.reverse()
    return [*levels, levels[-1][:, ::2, ::2]]


def _doubled(x: jax.Array) -> jax.Array:
  """Returns `x` `[N, H, W, C]` with each pixel four times, `[N, 2H, 2W, C]`."""
  n, height, width, channels = x.shape
  x = jnp.broadcast_to(x[:, :, None, :, None], (n, height, 2, width, 2, channels))
  return x.reshape(n, 2 * height, 2 * width, channels)
