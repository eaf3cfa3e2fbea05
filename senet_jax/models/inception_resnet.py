"""Inception-ResNet-v2, with squeeze-and-excitation on its residual branches.

Sources: Szegedy et al. 2016, in the form of TensorFlow's slim library (10, 20 and 10 blocks), whose
weights timm has; the SENet paper, table 2. That table's 11.75 GFLOPs are those of no public
definition: this one has 13.16.
"""

import dataclasses

import jax
from flax import linen as nn

from senet_jax import errors
from senet_jax.layers import SEConfig, conv
from senet_jax.models.common import IMAGENET, check_se, figures, gated, se_of_stage
from senet_jax.models.inception import (
  STAGES,
  Branches,
  ConvSpec,
  Inception,
  InceptionModule,
  Layers,
  inception_a,
  strided,
  v3_stem,
)
from senet_jax.models.registry import register_pair

# Branches of the residual blocks of a stage, and the scale of what they add.
_BLOCKS: dict[int, tuple[Branches, float]] = {
  3: (
    (
      (ConvSpec(32),),
      (ConvSpec(32), ConvSpec(32, 3)),
      (ConvSpec(32), ConvSpec(48, 3), ConvSpec(64, 3)),
    ),
    0.17,
  ),
  4: (((ConvSpec(192),), (ConvSpec(128), ConvSpec(160, (1, 7)), ConvSpec(192, (7, 1)))), 0.10),
  5: (((ConvSpec(192),), (ConvSpec(192), ConvSpec(224, (1, 3)), ConvSpec(256, (3, 1)))), 0.20),
}


class ResidualBlock(nn.Module):
  """Parallel branches, concatenated, a 1x1 convolution without BN, SE, and a scaled addition.

  The scale comes behind SE, so that the gate sees what the convolution gives.

  Attributes:
    branches: of the block.
    layers: what it shares with the others of the network.
    scale: of what is added.
    activate: end in a ReLU.
    se: squeeze-and-excitation, or None.
  """

  branches: Branches
  layers: Layers
  scale: float
  activate: bool
  se: SEConfig | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to the same shape."""
    y = self.layers.branches(self.branches, gated(self.se, 'pre', x), train)
    y = conv(x.shape[-1], 1, use_bias=True, dtype=self.layers.dtype, name='up')(y)
    y = gated(self.se, 'identity', x) + self.scale * gated(self.se, 'standard', y)
    return gated(self.se, 'post', nn.relu(y) if self.activate else y)


class InceptionResNet(Inception):
  """Inception modules, one a stage, with residual blocks behind each.

  SE is in the residual blocks, at any position but `conv3x3`.

  Attributes:
    depths: residual blocks of stages 3, 4 and 5.
    se_mixed: SE also on the output of the modules in front of them (Mixed_5b, 6a and 7a); only at
      `se.position='standard'`.
    others: as of `Inception`.

  Raises:
    UserError: as of `Inception`.
  """

  depths: tuple[int, ...] = (10, 20, 10)
  se_mixed: bool = False

  def _check_se(self) -> None:
    check_se(self.se, ('standard', 'pre', 'post', 'identity'), STAGES[-1], STAGES[0])
    if self.se_mixed and (self.se is None or self.se.position != 'standard'):
      raise errors.UserError(
        "model.se_mixed=True needs squeeze-and-excitation at model.se.position='standard'; change "
        'one of them.'
      )

  def _modules(self, stage: int, layers: Layers) -> list[nn.Module]:
    se, name = se_of_stage(self.se, stage), f'stage{stage}'
    i = stage - STAGES[0]
    (mixed,), depth = self.stages[i], self.depths[i]
    branches, scale = _BLOCKS[stage]
    modules: list[nn.Module] = [
      InceptionModule(mixed, layers, se if self.se_mixed else None, name=f'{name}_mixed')
    ]
    for block in range(1, depth + 1):
      # The very last block adds all of its branch, and its output may be negative.
      last = stage == STAGES[-1] and block == depth
      modules.append(
        ResidualBlock(
          branches, layers, 1.0 if last else scale, not last, se, name=f'{name}_block{block}'
        )
      )
    return modules


register_pair(
  'inception_resnet_v2',
  InceptionResNet,
  {
    'stem': v3_stem(),
    'stages': (
      (inception_a(96, 64),),
      (((strided(384),), (ConvSpec(256), ConvSpec(256, 3), strided(384)), ('max/2',)),),
      (
        (
          (ConvSpec(256), strided(384)),
          (ConvSpec(256), strided(288)),
          (ConvSpec(256), ConvSpec(288, 3), strided(320)),
          ('max/2',),
        ),
      ),
    ),
    'final': (ConvSpec(1536),),
    'count_padding': False,
    'dropout': 0.2,
  },
  unused=('keras',),
  family='inception_resnet',
  paper='tables 2 and 8, Inception-ResNet-v2',
  published={**figures('table_2', 20.37, 5.21, gflops=11.75), **figures('table_8', 19.9, 4.9)},
  se_published=figures('table_2', 19.80, 4.79, gflops=11.76),
  **{
    **IMAGENET,
    'image_size': 299,
    'preprocessing': dataclasses.replace(IMAGENET['preprocessing'], resize=352),
  },
  bn_epsilon=1e-3,
)
