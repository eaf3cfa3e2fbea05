"""VGG-16 with batch normalisation, with squeeze-and-excitation after every convolution.

Sources: Simonyan and Zisserman 2015 (configuration D), torchvision (biases beside the
normalisation, pooling to 7x7), the SENet paper, sections 3.3 and 5.1.
"""

import itertools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax import errors
from senet_jax.layers import (
  BatchNorm,
  BatchNormConfig,
  SEConfig,
  classifier,
  conv,
  materialize,
)
from senet_jax.models.common import IMAGENET, check_dropout, check_se, figures, gated, se_of_stage
from senet_jax.models.registry import register_pair

# Side of the map that the first fully connected layer reads.
_MAP = 7
_HEADS = ('adaptive', 'sliding')


class ConvUnit(nn.Module):
  """A 3x3 convolution, BN, ReLU and SE.

  Attributes:
    features: output channels.
    use_bias: a bias in the convolution.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.
  """

  features: int
  use_bias: bool = True
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H, W, features]`."""
    x = conv(self.features, 3, use_bias=self.use_bias, dtype=self.dtype, name='conv')(x)
    x = materialize(BatchNorm(self.bn, self.dtype, name='bn')(x, train), relu=True)
    return gated(self.se, 'standard', x)


class VGG(nn.Module):
  """A plain network of 3x3 convolutions; SE only at `se.position='standard'`.

  Its stages are the groups of convolutions between poolings, 1 to 5; `se.stages` can choose 2 to 5,
  the first has SE if all have.

  Attributes:
    num_classes: outputs of the head.
    depths: convolutions of each stage.
    width: channels of the first stage; they double from stage to stage, up to eightfold.
    fc_width: units of each of the two hidden fully connected layers.
    conv_bias: biases in the convolutions, as in torchvision; BN makes them superfluous.
    head: what becomes of a last map other than 7x7: `adaptive` averages it down, or repeats it up,
      to 7x7, as torchvision; `sliding`, as timm, repeats up what is smaller, slides the hidden
      fully connected layers over what is larger, and averages what they give.
    dropout: share of the units that training drops behind each hidden fully connected layer; above
      0 it needs the random numbers `dropout`.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.

  Raises:
    UserError: an option is unknown, or this network has no place for it.
  """

  num_classes: int
  depths: tuple[int, ...] = (2, 2, 3, 3, 3)
  width: int = 64
  fc_width: int = 4096
  conv_bias: bool = True
  head: str = 'adaptive'
  dropout: float = 0.5
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  def __post_init__(self):
    errors.one_of('model.head', self.head, _HEADS)
    check_dropout(self.dropout)
    check_se(self.se, ('standard',), len(self.depths))
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Classifies.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised; at least 32 pixels high and wide.
      train: drop units, normalise by batch statistics and update the running ones.

    Returns:
      Logits `[N, num_classes]`, float32.

    Raises:
      UserError: the images are too small.
    """
    height, width = images.shape[1:3]
    least = 2 ** len(self.depths)
    if min(height, width) < least:
      raise errors.UserError(
        f'images of {height}x{width} pixels leave nothing behind {len(self.depths)} poolings; '
        f'use at least {least}x{least}.'
      )
    x = images.astype(self.dtype)
    for stage, depth in enumerate(self.depths, start=1):
      for block in range(1, depth + 1):
        x = self._unit(stage, block)(x, train)
      x = nn.max_pool(x, (2, 2), strides=(2, 2))
    for axis in (1, 2):
      bins = _MAP if self.head == 'adaptive' else max(_MAP, x.shape[axis])
      x = adaptive_mean(x, axis, bins)
    x = self._hidden('fc6', _windows(x))
    x = nn.Dropout(self.dropout, deterministic=not train, name='fc6_dropout')(x)
    x = self._hidden('fc7', x).mean((1, 2))
    x = nn.Dropout(self.dropout, deterministic=not train, name='fc7_dropout')(x)
    return classifier(self.num_classes)(x.astype(jnp.float32))

  def _hidden(self, name: str, x: jax.Array) -> jax.Array:
    init = nn.initializers.he_normal()
    return nn.relu(nn.Dense(self.fc_width, dtype=self.dtype, kernel_init=init, name=name)(x))

  def _unit(self, stage: int, block: int) -> ConvUnit:
    return ConvUnit(
      features=self.width * min(2 ** (stage - 1), 8),
      use_bias=self.conv_bias,
      se=se_of_stage(self.se, stage),
      bn=self.bn,
      dtype=self.dtype,
      name=f'stage{stage}_block{block}',
    )


def adaptive_mean(x: jax.Array, axis: int, bins: int) -> jax.Array:
  """Averages `axis` down, or repeats it up, to `bins`, as torch's adaptive average pooling."""
  size = x.shape[axis]
  if size == bins:
    return x
  ends = [(i * size // bins, -(-(i + 1) * size // bins)) for i in range(bins)]
  means = [jax.lax.slice_in_dim(x, *end, axis=axis).mean(axis, keepdims=True) for end in ends]
  return jnp.concatenate(means, axis)


def _windows(x: jax.Array) -> jax.Array:
  """Returns all windows of 7x7 in `x` `[N, H, W, C]`, flattened: `[N, H - 6, W - 6, 49 C]`."""
  height, width = (size - _MAP + 1 for size in x.shape[1:3])
  shifts = itertools.product(range(_MAP), repeat=2)
  return jnp.concatenate([x[:, i : i + height, j : j + width] for i, j in shifts], -1)


register_pair(
  'vgg16_bn',
  VGG,
  {},
  family='vgg',
  paper='table 2, VGG-16',
  published=figures('table_2', 27.02, 8.81, gflops=15.47),
  se_published=figures('table_2', 25.22, 7.70, gflops=15.48),
  **IMAGENET,
)
