"""ResNet-50 as Flax's ImageNet example writes it, for comparison; with SE written out behind BN."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike


class _Block(nn.Module):
  filters: int
  stride: int
  se: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    conv = functools.partial(nn.Conv, use_bias=False, dtype=self.dtype)
    norm = functools.partial(
      nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype
    )
    stride = (self.stride, self.stride)
    y = nn.relu(norm()(conv(self.filters, (1, 1))(x)))
    y = nn.relu(norm()(conv(self.filters, (3, 3), stride)(y)))
    y = norm(scale_init=nn.initializers.zeros_init())(conv(4 * self.filters, (1, 1))(y))
    if self.se:
      gate = nn.relu(nn.Dense(self.filters // 4)(y.astype(jnp.float32).mean((1, 2))))
      gate = jax.nn.sigmoid(nn.Dense(4 * self.filters)(gate))
      y *= gate[:, None, None].astype(y.dtype)
    if x.shape != y.shape:
      x = norm()(conv(4 * self.filters, (1, 1), stride)(x))
    return nn.relu(x + y)


class TextbookResNet50(nn.Module):
  """The network of github.com/google/flax, examples/imagenet/models.py.

  Attributes:
    num_classes: outputs.
    se: squeeze-and-excitation with ratio 16 behind the last BN of each unit, in front of the sum.
    dtype: of the computation.
  """

  num_classes: int = 1000
  se: bool = False
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Returns logits `[N, num_classes]` float32 for images `[N, H, W, 3]`."""
    x = images.astype(self.dtype)
    x = nn.Conv(64, (7, 7), 2, [(3, 3), (3, 3)], use_bias=False, dtype=self.dtype)(x)
    norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
    x = nn.max_pool(nn.relu(norm(x)), (3, 3), (2, 2), 'SAME')
    for stage, depth in enumerate((3, 4, 6, 3)):
      for block in range(depth):
        stride = 2 if stage and not block else 1
        x = _Block(64 * 2**stage, stride, self.se, self.dtype)(x, train)
    return nn.Dense(self.num_classes, dtype=self.dtype)(x.mean((1, 2))).astype(jnp.float32)
