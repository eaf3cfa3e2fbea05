"""Residual networks of one path, with channel attention at any position.

ResNet, ResNeXt, SENet-154, wide and pre-activation networks; `resnet_table` has the published ones.
Sources: He et al. 2015 (ImageNet), He et al. 2016 "Identity Mappings" (pre-activation), Xie et al.
2017 (ResNeXt), Zagoruyko and Komodakis 2016 (wide), the SENet paper, table 1, section 6.5 and
appendix, the released models of each, and the code of its student reproduction.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax import errors
from senet_jax.layers import (
  BatchNorm,
  BatchNormConfig,
  BlockAttention,
  DeferredAffine,
  DropPath,
  SEConfig,
  classifier,
  conv,
  materialize,
  max_pool,
)
from senet_jax.layers.attention import block_attention, check_attention
from senet_jax.layers.conv import pointwise_mean
from senet_jax.layers.pooling import ALIGNMENTS
from senet_jax.layers.squeeze_excite import POSITIONS, block_name
from senet_jax.models import common, pruned

# Convolutions of each stem, as kernel size, stride and channels in units of the stem's width, and
# whether a pooling follows.
_STEMS = {
  'imagenet': ([(7, 2, 1)], True),
  'deep': ([(3, 2, 1), (3, 1, 1), (3, 1, 2)], True),
  'small': ([(3, 2, 1)], True),
  'cifar': ([(3, 1, 1)], False),
}
_SHORTCUTS = ('projection', 'pad', 'pad_both', 'strided_3x3', 'like_last')

# What Keras does where nothing else is said.
_KERAS: dict[str, Any] = {
  'use_bias': True,
  'padding': 'SAME',
  'kernel_init': nn.initializers.glorot_uniform(),
}


# What makes a layer: a partial of its class or function, which takes the rest and `name`.
ModuleDef = Callable[..., nn.Module]
ConvDef = Callable[..., nn.Conv]
_DEFERRED_NORM = functools.partial(BatchNorm, deferred=True)


@dataclasses.dataclass(frozen=True)
class BlockOptions:
  """Options that all residual units of a network have in common.

  Attributes:
    groups: of the 3x3 convolution of a bottleneck.
    halve_first: half the channels between the first two convolutions of a bottleneck.
    stride_in: the convolution of a bottleneck that has the stride, `1x1` (the first) or `3x3`.
    preact: BN and ReLU in front of each convolution instead of behind it.
    branch_relu: a ReLU behind the last BN of a post-activation branch too, in front of SE.
    zero_init_last_bn: start post-activation units as identities.
  """

  groups: int = 1
  halve_first: bool = False
  stride_in: str = '1x1'
  preact: bool = False
  branch_relu: bool = False
  zero_init_last_bn: bool = False


class ResidualBlock(nn.Module):
  """One residual unit, post- or pre-activation.

  Attributes:
    features: output channels.
    bottleneck: channels inside a 1x1-3x3-1x1 unit; None for a unit of two 3x3 convolutions.
    stride: of the unit.
    share_preact: pre-activation only: the shortcut too starts from the first BN and ReLU, and
      SE at position `pre` gates what comes behind them.
    shortcut: where shapes differ, `projection` (1x1 convolution), `strided_3x3` (3x3 where
      strided, or else 1x1), `pad` (subsample, zero channels behind; shortcut A) or `pad_both` (as
      many of them in front); or everywhere `like_last` (convolution with the kernel size of the
      last one of the branch).
    kept: output channels that the branch has, rising; None: all. The others are the shortcut's.
    attention: what gates the branch, the shortcut or the sum, and where; None: nothing does.
    drop_path: share of the images that skip the branch in training.
    options: what it shares with the other units.
    conv: makes convolutions, with the arguments of `layers.conv`.
    norm: makes normalisations, with those of `BatchNorm`, that return a `DeferredAffine`.
  """

  features: int
  bottleneck: int | None = None
  stride: int = 1
  share_preact: bool = False
  shortcut: str = 'projection'
  kept: tuple[int, ...] | None = None
  attention: BlockAttention | None = None
  drop_path: float = 0.0
  options: BlockOptions = BlockOptions()
  conv: ConvDef = conv
  norm: ModuleDef = _DEFERRED_NORM

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
    if self.options.preact and self.share_preact:
      x = materialize(self.norm(name='bn1')(x, train), relu=True)
    shortcut = materialize(self._gated('identity', self._shortcut(x, train)))
    branch = self._pre_branch if self.options.preact else self._post_branch
    y = self._gated('standard', branch(self._gated('pre', x), train))
    if self.kept is not None:
      y = pruned.spread(materialize(y), self.kept, self.features)
    if self.drop_path:
      y = DropPath(self.drop_path, name='drop_path')(y, train)
    return self._gated('post', materialize(y, shortcut, relu=not self.options.preact))

  @nn.nowrap
  def gates(self) -> dict[str, str]:
    """Returns the names of the modules that gate, by their positions in the unit."""
    return {self.attention.position: self.attention.kind} if self.attention else {}

  @overload
  def _gated(self, position: str, x: jax.Array) -> jax.Array: ...

  @overload
  def _gated(self, position: str, x: DeferredAffine) -> jax.Array | DeferredAffine: ...

  def _gated(self, position: str, x: jax.Array | DeferredAffine) -> jax.Array | DeferredAffine:
    """Gates `x` `[N, H, W, C]` if `position` is where this unit has its attention."""
    if self.attention is None or position != self.attention.position:
      return x
    return self.attention.block(self.features if position == 'standard' else None)(x)

  @nn.nowrap
  def _gives_image_means(self, position: str) -> bool:
    """Returns whether the BN that `position` directly follows has to take means of images."""
    attention = self.attention
    return attention is not None and position == attention.position and attention.uses_image_means

  def _convolutions(self) -> list[tuple[int, int, int, int]]:
    """Returns features, kernel size, stride and groups of each convolution of the branch."""
    last = self.features if self.kept is None else len(self.kept)
    if self.bottleneck is None:
      return [(self.features, 3, self.stride, 1), (last, 3, 1, 1)]
    first, second = (self.stride, 1) if self.options.stride_in == '1x1' else (1, self.stride)
    return [
      (self.bottleneck // 2 if self.options.halve_first else self.bottleneck, 1, first, 1),
      (self.bottleneck, 3, second, self.options.groups),
      (last, 1, 1, 1),
    ]

  def _post_branch(self, x: jax.Array, train: bool) -> jax.Array | DeferredAffine:
    """Returns the branch of a post-activation unit, `[N, H / stride, W / stride, features]`."""
    convolutions = self._convolutions()
    for i, spec in enumerate(convolutions, start=1):
      convolution, inputs = self.conv(*spec, name=f'conv{i}'), x
      x = convolution(inputs)
      last = i == len(convolutions)
      zero = last and self.options.zero_init_last_bn
      init = nn.initializers.zeros if zero else nn.initializers.ones
      means = last and not self.options.branch_relu and self._gives_image_means('standard')
      pointwise = spec[1:] == (1, 1, 1)
      mean = functools.partial(pointwise_mean, convolution, inputs) if pointwise else None
      x = self.norm(name=f'bn{i}', image_means=means, scale_init=init)(x, train, mean)
      if not last or self.options.branch_relu:
        x = materialize(x, relu=True)
      if i == 2 and not last:
        x = self._gated('conv3x3', x)
    return x

  def _pre_branch(self, x: jax.Array, train: bool) -> jax.Array:
    """Returns the branch of a pre-activation unit, `[N, H / stride, W / stride, features]`."""
    for i, spec in enumerate(self._convolutions(), start=1):
      if i > 1 or not self.share_preact:
        x = materialize(self.norm(name=f'bn{i}')(x, train), relu=True)
      if i == 3:
        x = self._gated('conv3x3', x)
      x = self.conv(*spec, name=f'conv{i}')(x)
    return x

  def _shortcut(self, x: jax.Array, train: bool) -> jax.Array | DeferredAffine:
    """Returns what is added to the branch, `[N, H / stride, W / stride, features]`."""
    alike = x.shape[-1] == self.features and self.stride == 1
    if alike and self.shortcut != 'like_last':
      return x
    if self.shortcut in ('pad', 'pad_both'):
      x = x[:, :: self.stride, :: self.stride]
      more = self.features - x.shape[-1]
      front = more // 2 if self.shortcut == 'pad_both' else 0
      return jnp.pad(x, [(0, 0)] * 3 + [(front, more - front)])
    kernel = 3 if self.shortcut == 'strided_3x3' and self.stride > 1 else 1
    if self.shortcut == 'like_last':
      _, kernel, *_ = self._convolutions()[-1]
    x = self.conv(self.features, kernel, self.stride, name='proj_conv')(x)
    # Pre-activation keeps the shortcut free of normalisation (He et al. 2016, equation 5).
    if self.options.preact:
      return x
    return self.norm(name='proj_bn', image_means=self._gives_image_means('identity'))(x, train)


class ResNet(nn.Module):
  """A residual network; the registry's arguments make each of the published ones.

  Attributes:
    num_classes: outputs of the head.
    depths: residual units of each stage; stages are numbered from 2, as in the paper.
    bottleneck: 1x1-3x3-1x1 units, four times as wide, instead of units of two 3x3 convolutions;
      for all stages, or one value a stage.
    width: channels of the first stage, before the bottleneck factor.
    stem_width: channels of the stem; None: `width`.
    groups: groups of the 3x3 convolutions (the cardinality of ResNeXt).
    group_width: channels of a group in the first stage at `width` 64; `width` means no groups.
    halve_first: half the channels between the first two convolutions of a bottleneck.
    stem: `imagenet` (7x7/2 and max pooling), `deep` (3x3/2, 3x3, 3x3 with twice the channels, and
      max pooling), `small` (3x3/2 and max pooling) or `cifar` (3x3).
    preact: pre-activation units (He et al. 2016).
    stride_in: convolution of a bottleneck with the stride, `1x1` or `3x3`.
    pool_align: alignment of the stem's pooling, `caffe`, `torch` or `tensorflow`.
    shortcut: `projection` (shortcut B), `pad` (A), `pad_both` (A with half of the zero channels in
      front, as in many torch codes), `strided_3x3` (B, but 3x3 where strided) or `like_last` (in
      the first unit of every stage, a convolution with the kernel size of the last one of the
      branch).
    keras: convolutions as Keras makes them: with biases, with TensorFlow's padding, which for a
      stride on an even size has more pixels behind than in front, with Glorot initialisation.
    dropout: share of the features that training drops in front of the classifier; above 0 it needs
      the random numbers `dropout`.
    drop_path: share of the images that skip the branch of the last unit in training, in proportion
      less in front of it and none at the first (stochastic depth); it needs the random numbers
      `drop_path`.
    remat: stages whose units are computed again in the backward pass, instead of kept.
    branch_relu: a ReLU behind the last BN of a branch too, in front of SE, as in timm's
      legacy_seresnet18 and 34; post-activation only.
    zero_init_last_bn: start units as identities; post-activation only.
    kept_channels: for each pruned unit, the output channels that its branch has, as
      `pruned.as_text` writes them; of networks with SE, or without attention.
    attention: what gates the units, a name of `layers.register_attention`.
    se: options of the attention and where it is, or None for none.
    bn: normalisation.
    dtype: of the computation.

  Raises:
    UserError: an option is unknown, or this network has no place for it.
  """

  num_classes: int
  depths: tuple[int, ...]
  bottleneck: bool | tuple[bool, ...]
  width: int = 64
  stem_width: int | None = None
  groups: int = 1
  group_width: int = 64
  halve_first: bool = False
  stem: str = 'imagenet'
  preact: bool = False
  stride_in: str = '1x1'
  pool_align: str = 'caffe'
  shortcut: str = 'projection'
  keras: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  remat: tuple[int, ...] = ()
  branch_relu: bool = False
  zero_init_last_bn: bool = False
  kept_channels: tuple[str, ...] = ()
  attention: str = 'se'
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  def __post_init__(self):
    errors.one_of('model.stem', self.stem, _STEMS)
    errors.one_of('model.stride_in', self.stride_in, ('1x1', '3x3'))
    errors.one_of('model.pool_align', self.pool_align, ALIGNMENTS)
    errors.one_of('model.shortcut', self.shortcut, _SHORTCUTS)
    channels = self.width * self.group_width // 64
    if not channels:
      raise errors.UserError(
        f'model.width={self.width} leaves no channel in groups of {self.group_width} per 64; '
        f'use at least {-(-64 // self.group_width)}.'
      )
    if self.halve_first and channels % 2:
      raise errors.UserError(
        f'model.halve_first=True: groups of {channels} channels cannot be halved; change '
        f'model.width={self.width} or model.group_width={self.group_width}.'
      )
    if isinstance(self.bottleneck, tuple) and len(self.bottleneck) != len(self.depths):
      raise errors.UserError(
        f'model.bottleneck={self.bottleneck} must be one value, or one for each of the '
        f'{len(self.depths)} stages of model.depths={self.depths}.'
      )
    common.check_dropout(self.dropout)
    common.check_dropout(self.drop_path, 'drop_path')
    for stage in self.remat:
      errors.one_of('model.remat', stage, range(2, len(self.depths) + 2), 'These are its stages.')
    for field in ('zero_init_last_bn', 'branch_relu'):
      if self.preact and getattr(self, field):
        raise errors.UserError(
          f'model.{field}=True: the units of a pre-activation network end in a convolution, there '
          'is no last BN; set it to False.'
        )
    check_attention(self.attention, self.se)
    if self.se is not None:
      self._check_se(self.se)
    if self.kept_channels and self.attention != 'se':
      raise errors.UserError(
        f'model.attention={self.attention!r} has no pruned form: model.kept_channels is for '
        'networks with SE or without attention; leave one of them out.'
      )
    self._kept()
    super().__post_init__()

  def _check_se(self, se: SEConfig) -> None:
    common.check_se(se, POSITIONS, len(self.depths) + 1)
    gated = [stage for stage in range(2, len(self.depths) + 2) if se.in_stage(stage)]
    if se.position == 'conv3x3' and not all(map(self._has_bottlenecks, gated)):
      raise errors.UserError(
        "model.se.position='conv3x3' needs 1x1-3x3-1x1 units and this network has units of two "
        '3x3 convolutions; use standard, pre, post or identity.'
      )
    there = [name for stage in gated for name in self._names(stage)]
    for name in se.without:
      errors.one_of('model.se.without', name, there)

  def _names(self, stage: int) -> list[str]:
    """Returns the names of the SE blocks of the units of `stage`."""
    return [block_name(stage, block) for block in range(1, self.depths[stage - 2] + 1)]

  def _features(self, stage: int) -> int:
    """Returns the output channels of the units of `stage`."""
    return self.width * 2 ** (stage - 2) * (4 if self._has_bottlenecks(stage) else 1)

  def _kept(self) -> dict[str, tuple[int, ...]]:
    """Returns the channels of `kept_channels` by the names of the units' SE blocks."""
    if not self.kept_channels:
      return {}
    stages = range(2, len(self.depths) + 2)
    widths = {name: self._features(stage) for stage in stages for name in self._names(stage)}
    return pruned.from_texts(self.kept_channels, widths)

  def _has_bottlenecks(self, stage: int) -> bool:
    return self.bottleneck[stage - 2] if isinstance(self.bottleneck, tuple) else self.bottleneck

  @nn.compact
  def __call__(
    self, images: jax.Array, train: bool, maps: bool = False
  ) -> jax.Array | dict[int, jax.Array]:
    """Classifies.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised.
      train: normalise by batch statistics and update the running ones.
      maps: return the outputs of the stages; there is no head then.

    Returns:
      Logits `[N, num_classes]`, float32; with `maps`, `[N, H', W', C]` by the number of the stage.
    """
    layers: dict[str, Any] = {
      'conv': functools.partial(conv, dtype=self.dtype, **(_KERAS if self.keras else {})),
      'norm': functools.partial(BatchNorm, self.bn, self.dtype, deferred=True),
    }
    options: dict[str, Any] = {
      field.name: getattr(self, field.name) for field in dataclasses.fields(BlockOptions)
    }
    shared: dict[str, Any] = {'options': BlockOptions(**options), **layers}
    x = self._stem(images.astype(self.dtype), train, **layers)
    outputs = {}
    for stage, depth in enumerate(self.depths, start=2):
      again = stage in self.remat
      kind = nn.remat(ResidualBlock, static_argnums=(2,)) if again else ResidualBlock
      unit = functools.partial(kind, **shared)
      for block in range(1, depth + 1):
        x = unit(**self._unit(stage, block), name=f'stage{stage}_block{block}')(x, train)
      outputs[stage] = x
    if maps:
      return outputs
    if self.preact:
      x = materialize(layers['norm'](name='final_bn')(x, train), relu=True)
    x = x.astype(jnp.float32).mean((1, 2))
    if self.dropout:
      x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
    return classifier(self.num_classes)(x)

  def _stem(self, x: jax.Array, train: bool, conv: ModuleDef, norm: ModuleDef) -> jax.Array:
    convolutions, pooled = _STEMS[self.stem]
    for i, (kernel, stride, widths) in enumerate(convolutions, start=1):
      number, last = ('', True) if len(convolutions) == 1 else (i, i == len(convolutions))
      features = widths * (self.stem_width or self.width)
      x = conv(features, kernel, stride, name=f'stem_conv{number}')(x)
      if not (self.preact and last):
        x = materialize(norm(name=f'stem_bn{number}')(x, train), relu=True)
    return max_pool(x, self.pool_align) if pooled else x

  def _unit(self, stage: int, block: int) -> dict[str, Any]:
    """Returns the fields of unit `block` (from 1) of `stage` that it does not share with others."""
    planes, bottleneck = self.width * 2 ** (stage - 2), self._has_bottlenecks(stage)
    return {
      'features': self._features(stage),
      # The width rule of ResNeXt; for one group of 64 it gives `planes`.
      'bottleneck': planes * self.group_width // 64 * self.groups if bottleneck else None,
      'stride': 2 if block == 1 and stage > 2 else 1,
      # He et al. 2016, appendix, for the first unit; their public code for each stage's.
      'share_preact': block == 1,
      'shortcut': self.shortcut if block == 1 else 'projection',  # only the first may need one
      'kept': self._kept().get(block_name(stage, block)),
      'attention': block_attention(self.attention, self.se, stage, block),
      'drop_path': self.drop_path * self._unit_number(stage, block) / max(sum(self.depths) - 1, 1),
    }

  def _unit_number(self, stage: int, block: int) -> int:
    """Returns how many units are in front of unit `block` (from 1) of `stage`."""
    return sum(self.depths[: stage - 2]) + block - 1
