"""MobileNet v1, with squeeze-and-excitation in every unit.

Sources: Howard et al. 2017, its public Caffe port and timm (symmetric padding), TensorFlow's
weights (`SAME` padding), the SENet paper, table 3.
"""

import functools

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
  depthwise_conv,
  materialize,
)
from senet_jax.models.common import IMAGENET, check_se, figures, gated, se_of_stage
from senet_jax.models.registry import register_pair

_ACTIVATIONS = {'relu': nn.relu, 'relu6': nn.relu6}


class SeparableUnit(nn.Module):
  """A 3x3 depthwise and a 1x1 pointwise convolution, each with BN and nonlinearity.

  Attributes:
    features: output channels.
    stride: of the depthwise convolution.
    activation: `relu` or `relu6`.
    padding: of the depthwise convolution, as of `layers.conv`.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.
  """

  features: int
  stride: int = 1
  activation: str = 'relu'
  padding: str = 'symmetric'
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
    activate = _ACTIVATIONS[self.activation]
    norm = functools.partial(BatchNorm, self.bn, self.dtype)
    x = depthwise_conv(
      x.shape[-1], self.stride, padding=self.padding, dtype=self.dtype, name='depthwise_conv'
    )(x)
    x = materialize(norm(name='depthwise_bn')(x, train))
    x = gated(self.se, 'conv3x3', activate(x))
    x = conv(self.features, 1, dtype=self.dtype, name='pointwise_conv')(x)
    x = materialize(norm(name='pointwise_bn')(x, train))
    return gated(self.se, 'standard', activate(x))


class MobileNet(nn.Module):
  """Depthwise separable units behind a 3x3/2 convolution.

  Its stages, 1 to 5, are the units of one resolution (half of the image's to a thirty-second);
  `se.stages` can choose 2 to 5, the first has SE if all have. SE is at `se.position='standard'`,
  behind the pointwise convolution's nonlinearity (the paper's, by its parameters), or at
  `conv3x3`, behind the depthwise one's.

  Attributes:
    num_classes: outputs of the head.
    depths: units of each stage.
    width: channels of the stem, 32 times the width multiplier; stage s has 2^s as many.
    activation: `relu`, or `relu6` (TensorFlow's and timm's).
    padding: of the 3x3 convolutions, `symmetric`, or `SAME` (TensorFlow's), which pads a strided
      one on an even size only behind.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.

  Raises:
    UserError: an option is unknown, or this network has no place for it.
  """

  num_classes: int
  depths: tuple[int, ...] = (1, 2, 2, 6, 2)
  width: int = 32
  activation: str = 'relu'
  padding: str = 'symmetric'
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  def __post_init__(self):
    errors.one_of('model.activation', self.activation, _ACTIVATIONS)
    errors.one_of('model.padding', self.padding, ('symmetric', 'SAME'))
    check_se(self.se, ('standard', 'conv3x3'), len(self.depths))
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Classifies.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised.
      train: normalise by batch statistics and update the running ones.

    Returns:
      Logits `[N, num_classes]`, float32.
    """
    stem = conv(self.width, 3, 2, padding=self.padding, dtype=self.dtype, name='stem_conv')
    x = stem(images.astype(self.dtype))
    x = materialize(BatchNorm(self.bn, self.dtype, name='stem_bn')(x, train))
    x = _ACTIVATIONS[self.activation](x)
    for stage, depth in enumerate(self.depths, start=1):
      for block in range(1, depth + 1):
        x = self._unit(stage, block)(x, train)
    return classifier(self.num_classes)(x.astype(jnp.float32).mean((1, 2)))

  def _unit(self, stage: int, block: int) -> SeparableUnit:
    return SeparableUnit(
      features=self.width * 2**stage,
      stride=2 if block == 1 and stage > 1 else 1,
      activation=self.activation,
      padding=self.padding,
      se=se_of_stage(self.se, stage),
      bn=self.bn,
      dtype=self.dtype,
      name=f'stage{stage}_block{block}',
    )


register_pair(
  'mobilenet_v1',
  MobileNet,
  {},
  family='mobilenet',
  paper='table 3, MobileNet',
  published=figures('table_3', 28.4, 9.4, gflops=0.569, params=4.2e6),
  se_published=figures('table_3', 25.3, 7.7, gflops=0.572, params=4.7e6),
  **IMAGENET,
)
