"""ShuffleNet v1, with squeeze-and-excitation at any position.

Sources: Zhang et al. 2018, its authors' and a Caffe definition, the SENet paper, table 3.
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
  max_pool,
)
from senet_jax.layers.pooling import ALIGNMENTS
from senet_jax.layers.squeeze_excite import POSITIONS
from senet_jax.models.common import IMAGENET, check_se, figures, gated, se_of_stage
from senet_jax.models.registry import register_pair


class ShuffleUnit(nn.Module):
  """One unit: 1x1 convolution in groups, channel shuffle, 3x3 depthwise, 1x1 in groups.

  The branch is added to the input or, in a strided unit, its channels are put behind those of the
  averaged input.

  Attributes:
    features: output channels.
    bottleneck: channels of the depthwise convolution.
    stride: of the unit, 1 or 2.
    groups: of the 1x1 convolutions.
    first_groups: of the first of them.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.
  """

  features: int
  bottleneck: int
  stride: int
  groups: int
  first_groups: int
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
    norm = functools.partial(BatchNorm, self.bn, self.dtype)
    shortcut, branch = x, self.features
    if self.stride == 2:
      branch -= x.shape[-1]
      shortcut = nn.avg_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])
    y = gated(self.se, 'pre', x)
    y = conv(self.bottleneck, 1, groups=self.first_groups, dtype=self.dtype, name='conv1')(y)
    y = channel_shuffle(materialize(norm(name='bn1')(y, train), relu=True), self.groups)
    y = depthwise_conv(self.bottleneck, self.stride, dtype=self.dtype, name='conv2')(y)
    y = gated(self.se, 'conv3x3', materialize(norm(name='bn2')(y, train)))
    y = conv(branch, 1, groups=self.groups, dtype=self.dtype, name='conv3')(y)
    y = gated(self.se, 'standard', materialize(norm(name='bn3')(y, train)))
    shortcut = gated(self.se, 'identity', shortcut)
    y = shortcut + y if self.stride == 1 else jnp.concatenate([shortcut, y], -1)
    return gated(self.se, 'post', nn.relu(y))


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
  """Reorders the channels of `x` `[N, H, W, C]` so that each new group has some of every old one.

  `groups` must divide C.
  """
  *shape, channels = x.shape
  return x.reshape(*shape, groups, channels // groups).swapaxes(-1, -2).reshape(x.shape)


class ShuffleNet(nn.Module):
  """Shuffle units behind a 3x3/2 convolution and a pooling; stages 2 to 4, as in its paper.

  SE is on the branch before the addition or concatenation at `se.position='standard'`, and on the
  unit's output at `post`; `conv3x3` is behind the depthwise convolution's BN.

  Attributes:
    num_classes: outputs of the head.
    depths: units of each stage.
    width: channels of stage 2; they double from stage to stage.
    stem_width: channels of the stem.
    groups: of the 1x1 convolutions, except for the very first one, which has none.
    bottleneck_of: what the bottleneck is a quarter of: the `unit`'s output (the ShuffleNet paper)
      or the `branch`'s, which is narrower in strided units (a public Caffe definition).
    pool_align: alignment of the stem's pooling.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.

  Raises:
    UserError: an option is unknown, or the groups do not divide the channels.
  """

  num_classes: int
  depths: tuple[int, ...] = (4, 8, 4)
  width: int = 240
  stem_width: int = 24
  groups: int = 3
  bottleneck_of: str = 'unit'
  pool_align: str = 'torch'
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  def __post_init__(self):
    errors.one_of('model.bottleneck_of', self.bottleneck_of, ('unit', 'branch'))
    errors.one_of('model.pool_align', self.pool_align, ALIGNMENTS)
    check_se(self.se, POSITIONS, len(self.depths) + 1)
    branch = self.width - self.stem_width
    widths = (self.width, branch, self._bottleneck(self.width, branch))
    if min(self.groups, *widths) < 1 or any(width % self.groups for width in widths):
      raise errors.UserError(
        f'model.groups={self.groups} must divide the channels of a unit, its branch and its '
        f'bottleneck, {widths} in the first unit; change it, model.width or model.stem_width.'
      )
    super().__post_init__()

  def _bottleneck(self, unit: int, branch: int) -> int:
    return (unit if self.bottleneck_of == 'unit' else branch) // 4

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Classifies.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised.
      train: normalise by batch statistics and update the running ones.

    Returns:
      Logits `[N, num_classes]`, float32.
    """
    x = conv(self.stem_width, 3, 2, dtype=self.dtype, name='stem_conv')(images.astype(self.dtype))
    x = materialize(BatchNorm(self.bn, self.dtype, name='stem_bn')(x, train), relu=True)
    x = max_pool(x, self.pool_align)
    for stage, depth in enumerate(self.depths, start=2):
      for block in range(1, depth + 1):
        x = self._unit(stage, block, x.shape[-1])(x, train)
    return classifier(self.num_classes)(x.astype(jnp.float32).mean((1, 2)))

  def _unit(self, stage: int, block: int, inputs: int) -> ShuffleUnit:
    features = self.width * 2 ** (stage - 2)
    return ShuffleUnit(
      features=features,
      bottleneck=self._bottleneck(features, features - inputs if block == 1 else features),
      stride=2 if block == 1 else 1,
      groups=self.groups,
      # The stem is too narrow for groups (ShuffleNet paper, section 3.2).
      first_groups=1 if (stage, block) == (2, 1) else self.groups,
      se=se_of_stage(self.se, stage),
      bn=self.bn,
      dtype=self.dtype,
      name=f'stage{stage}_block{block}',
    )


register_pair(
  'shufflenet_v1_g3',
  ShuffleNet,
  {},
  family='shufflenet',
  paper='table 3, ShuffleNet',
  # The complexities are nominal: the ShuffleNet paper has 137 million.
  published=figures('table_3', 32.6, 12.5, gflops=0.140, params=1.8e6),
  se_published=figures('table_3', 31.0, 11.1, gflops=0.142, params=2.4e6),
  **IMAGENET,
)
