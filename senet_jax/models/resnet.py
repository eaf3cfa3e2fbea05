"""ResNet and ResNeXt, for ImageNet and CIFAR, with squeeze-and-excitation at any position.

Sources: He et al. 2015 (ImageNet), He et al. 2016 "Identity Mappings" (pre-activation), Xie et al.
2017 (ResNeXt), the SENet paper, table 1 and section 6.5, and the released models of each.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax import errors
from senet_jax.layers import (
  BatchNorm,
  BatchNormConfig,
  SEConfig,
  SqueezeExcite,
  classifier,
  conv,
  max_pool,
)
from senet_jax.layers.pooling import ALIGNMENTS
from senet_jax.models.registry import Preprocessing, register_pair

# Options of units with a 3x3 convolution between two 1x1.
_OF_BOTTLENECKS = ('stride_in', 'groups', 'group_width')


class ResidualBlock(nn.Module):
  """One residual unit, post- or pre-activation.

  Attributes:
    features: output channels.
    bottleneck: channels inside a 1x1-3x3-1x1 unit; None for a unit of two 3x3 convolutions.
    stride: of the unit.
    groups: of the 3x3 convolution of a bottleneck.
    stride_in: the convolution of a bottleneck that has the stride, `1x1` (the first) or `3x3`.
    preact: BN and ReLU in front of each convolution instead of behind it.
    share_preact: pre-activation only: the shortcut too starts from the first BN and ReLU, and
      SE at position `pre` gates what comes behind them.
    shortcut: where shapes differ, `projection` (1x1 convolution) or `pad` (subsample, zero
      channels; shortcut A).
    zero_init_last_bn: start post-activation units as identities.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.
  """

  features: int
  bottleneck: int | None = None
  stride: int = 1
  groups: int = 1
  stride_in: str = '1x1'
  preact: bool = False
  share_preact: bool = False
  shortcut: str = 'projection'
  zero_init_last_bn: bool = False
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
    norm = functools.partial(BatchNorm, self.bn, self.dtype)
    if self.preact and self.share_preact:
      x = nn.relu(norm(name='bn1')(x, train))
    shortcut = self._se('identity', self._shortcut(x, norm, train))
    branch = self._pre_branch if self.preact else self._post_branch
    y = shortcut + self._se('standard', branch(self._se('pre', x), norm, train))
    return self._se('post', y if self.preact else nn.relu(y))

  def _se(self, position: str, x: jax.Array) -> jax.Array:
    """Gates `x` if `position` is where this unit has its SE block."""
    if self.se is None or self.se.position != position:
      return x
    return SqueezeExcite(self.se, name='se')(x)

  def _convolutions(self) -> list[tuple[int, int, int, int]]:
    """Features, kernel size, stride and groups of each convolution of the branch."""
    if self.bottleneck is None:
      return [(self.features, 3, self.stride, 1), (self.features, 3, 1, 1)]
    first, second = (self.stride, 1) if self.stride_in == '1x1' else (1, self.stride)
    return [
      (self.bottleneck, 1, first, 1),
      (self.bottleneck, 3, second, self.groups),
      (self.features, 1, 1, 1),
    ]

  def _post_branch(self, x, norm, train: bool) -> jax.Array:
    convolutions = self._convolutions()
    for i, spec in enumerate(convolutions, start=1):
      x = conv(*spec, dtype=self.dtype, name=f'conv{i}')(x)
      last = i == len(convolutions)
      zero = last and self.zero_init_last_bn
      init = nn.initializers.zeros if zero else nn.initializers.ones
      x = norm(scale_init=init, name=f'bn{i}')(x, train)
      if not last:
        x = nn.relu(x)
        if i == 2:
          x = self._se('conv3x3', x)
    return x

  def _pre_branch(self, x, norm, train: bool) -> jax.Array:
    for i, spec in enumerate(self._convolutions(), start=1):
      if i > 1 or not self.share_preact:
        x = nn.relu(norm(name=f'bn{i}')(x, train))
      if i == 3:
        x = self._se('conv3x3', x)
      x = conv(*spec, dtype=self.dtype, name=f'conv{i}')(x)
    return x

  def _shortcut(self, x, norm, train: bool) -> jax.Array:
    if x.shape[-1] == self.features and self.stride == 1:
      return x
    if self.shortcut == 'pad':
      x = x[:, :: self.stride, :: self.stride]
      return jnp.pad(x, [(0, 0)] * 3 + [(0, self.features - x.shape[-1])])
    x = conv(self.features, 1, self.stride, dtype=self.dtype, name='proj_conv')(x)
    # Pre-activation keeps the shortcut free of normalisation (He et al. 2016, equation 5).
    return x if self.preact else norm(name='proj_bn')(x, train)


class ResNet(nn.Module):
  """A residual network; the registry's arguments make each of the published ones.

  Attributes:
    num_classes: outputs of the head.
    depths: residual units of each stage; stages are numbered from 2, as in the paper.
    bottleneck: 1x1-3x3-1x1 units, four times as wide, instead of units of two 3x3 convolutions.
    width: channels of the stem and, before the bottleneck factor, of the first stage.
    groups: groups of the 3x3 convolutions (the cardinality of ResNeXt).
    group_width: channels of a group in the first stage at `width` 64; `width` means no groups.
    stem: `imagenet` (7x7/2 and max pooling) or `cifar` (3x3).
    preact: pre-activation units (He et al. 2016).
    stride_in: convolution of a bottleneck with the stride, `1x1` or `3x3`.
    pool_align: alignment of the stem's pooling, `caffe` or `torch`.
    shortcut: `projection` (shortcut B) or `pad` (A).
    zero_init_last_bn: start units as identities; post-activation only.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.

  Raises:
    UserError: an option is unknown, or this network has no place for it.
  """

  num_classes: int
  depths: tuple[int, ...]
  bottleneck: bool
  width: int = 64
  groups: int = 1
  group_width: int = 64
  stem: str = 'imagenet'
  preact: bool = False
  stride_in: str = '1x1'
  pool_align: str = 'caffe'
  shortcut: str = 'projection'
  zero_init_last_bn: bool = False
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: jnp.dtype = jnp.float32

  def __post_init__(self):
    errors.one_of('model.stem', self.stem, ('imagenet', 'cifar'))
    errors.one_of('model.stride_in', self.stride_in, ('1x1', '3x3'))
    errors.one_of('model.pool_align', self.pool_align, ALIGNMENTS)
    errors.one_of('model.shortcut', self.shortcut, ('projection', 'pad'))
    if self.width * self.group_width < 64:
      raise errors.UserError(
        f'model.width={self.width} leaves no channel in groups of {self.group_width} per 64; '
        f'use at least {-(-64 // self.group_width)}.'
      )
    if self.preact and self.zero_init_last_bn:
      raise errors.UserError(
        'model.zero_init_last_bn=True: the units of a pre-activation network end in a '
        'convolution, there is no last BN; set it to False.'
      )
    if self.se is not None:
      self._check_se(self.se)
    super().__post_init__()

  def _check_se(self, se: SEConfig) -> None:
    if se.position == 'conv3x3' and not self.bottleneck:
      raise errors.UserError(
        "model.se.position='conv3x3' needs 1x1-3x3-1x1 units and this network has units of two "
        '3x3 convolutions; use standard, pre, post or identity.'
      )
    last = len(self.depths) + 1
    if se.stages != 'all' and max(se.stages, default=0) > last:
      raise errors.UserError(
        f'model.se.stages={se.stages}: the stages of this network are 2 to {last}.'
      )

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Classifies.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised.
      train: normalise by batch statistics and update the running ones.

    Returns:
      Logits `[N, num_classes]`, float32.
    """
    x = self._stem(images.astype(self.dtype), train)
    for stage, depth in enumerate(self.depths, start=2):
      for block in range(1, depth + 1):
        x = self._block(stage, block)(x, train)
    if self.preact:
      x = nn.relu(BatchNorm(self.bn, self.dtype, name='final_bn')(x, train))
    x = x.astype(jnp.float32).mean((1, 2))
    return classifier(self.num_classes)(x)

  def _stem(self, x: jax.Array, train: bool) -> jax.Array:
    imagenet = self.stem == 'imagenet'
    kernel, stride = (7, 2) if imagenet else (3, 1)
    x = conv(self.width, kernel, stride, dtype=self.dtype, name='stem_conv')(x)
    if not self.preact:
      x = nn.relu(BatchNorm(self.bn, self.dtype, name='stem_bn')(x, train))
    return max_pool(x, self.pool_align) if imagenet else x

  def _block(self, stage: int, block: int) -> ResidualBlock:
    planes = self.width * 2 ** (stage - 2)
    return ResidualBlock(
      features=planes * (4 if self.bottleneck else 1),
      # The width rule of ResNeXt; for one group of 64 it gives `planes`.
      bottleneck=planes * self.group_width // 64 * self.groups if self.bottleneck else None,
      stride=2 if block == 1 and stage > 2 else 1,
      groups=self.groups,
      stride_in=self.stride_in,
      preact=self.preact,
      # He et al. 2016, appendix, for the first unit; their public code for each stage's.
      share_preact=block == 1,
      shortcut=self.shortcut,
      zero_init_last_bn=self.zero_init_last_bn,
      se=self.se if self.se is not None and self.se.in_stage(stage) else None,
      bn=self.bn,
      dtype=self.dtype,
      name=f'stage{stage}_block{block}',
    )


def _errors(top1: float, top5: float, gflops: float) -> dict:
  return {'table_2': {'top1_error': top1, 'top5_error': top5}, 'gflops': gflops}


def _register_imagenet() -> None:
  shape_50, shape_101, shape_152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
  resnext = {'groups': 32, 'group_width': 4, 'stride_in': '3x3'}
  rows = [
    ('resnet18', False, (2, 2, 2, 2), {}, {}, {}, 'not in the paper'),
    ('resnet34', False, shape_50, {}, {}, {}, 'not in the paper'),
    ('resnet50', True, shape_50, {}, _errors(24.80, 7.48, 3.86), _errors(23.29, 6.62, 3.87),
     'table 2, ResNet-50; tables 10-16'),
    ('resnet101', True, shape_101, {}, _errors(23.17, 6.52, 7.58), _errors(22.38, 6.07, 7.60),
     'table 2, ResNet-101'),
    ('resnet152', True, shape_152, {}, _errors(22.42, 6.34, 11.30), _errors(21.57, 5.73, 11.32),
     'table 2, ResNet-152; table 6'),
    ('resnext50_32x4d', True, shape_50, resnext, _errors(22.11, 5.90, 4.24),
     _errors(21.10, 5.49, 4.25), 'table 2, ResNeXt-50 (32x4d)'),
    ('resnext101_32x4d', True, shape_101, resnext, _errors(21.18, 5.57, 7.99),
     _errors(20.70, 5.01, 8.00), 'table 2, ResNeXt-101 (32x4d)'),
  ]  # fmt: skip
  for name, bottleneck, depths, options, published, se_published, paper in rows:
    register_pair(
      name,
      ResNet,
      {'depths': depths, 'bottleneck': bottleneck, **options},
      unused=() if bottleneck else _OF_BOTTLENECKS,
      family='resnext' if options else 'resnet',
      paper=paper,
      image_size=224,
      num_classes=1000,
      # Section 5.1: mean subtraction only; the released models' means, as RGB.
      preprocessing=Preprocessing(mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0), resize=256),
      published=published,
      se_published=se_published,
    )


def _register_cifar() -> None:
  cifar = {'stem': 'cifar', 'preact': True, 'width': 16}
  rows = [
    ('resnet20_cifar', False, 3, 'pad', {}, {}, 'not in the paper'),
    ('resnet110_cifar', False, 18, 'pad', {'table_4': 6.37, 'table_5': 26.88},
     {'table_4': 5.21, 'table_5': 23.85}, 'tables 4 and 5, ResNet-110'),
    ('resnet164_cifar', True, 18, 'projection', {'table_4': 5.46, 'table_5': 24.33},
     {'table_4': 4.39, 'table_5': 21.31}, 'tables 4 and 5, ResNet-164'),
  ]  # fmt: skip
  for name, bottleneck, depth, shortcut, published, se_published, paper in rows:
    register_pair(
      name,
      ResNet,
      {'depths': (depth,) * 3, 'bottleneck': bottleneck, 'shortcut': shortcut, **cifar},
      unused=('pool_align', *(() if bottleneck else _OF_BOTTLENECKS)),
      family='resnet_cifar',
      paper=paper,
      image_size=32,
      num_classes=10,
      preprocessing=Preprocessing(),
      published={k: {'top1_error': v} for k, v in published.items()},
      se_published={k: {'top1_error': v} for k, v in se_published.items()},
    )


_register_imagenet()
_register_cifar()
