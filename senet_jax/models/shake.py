"""Shake-Shake and Shake-Even networks for CIFAR, with squeeze-and-excitation.

Sources: Gastaldi 2017 and its Torch code, which has a shortcut of two shifted paths that the paper
leaves out; the SENet paper, tables 4 and 5, which does not say where SE sits among two branches.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax import errors
from senet_jax.layers import (
  BatchNorm,
  BatchNormConfig,
  BlockAttention,
  SEConfig,
  classifier,
  conv,
  materialize,
  shake,
)
from senet_jax.layers.attention import block_attention, check_attention
from senet_jax.layers.shake import BACKWARDS
from senet_jax.models import common
from senet_jax.models.registry import Preprocessing, register_pair
from senet_jax.models.resnet import BlockOptions, ConvDef, ModuleDef, ResidualBlock


class _Branch(ResidualBlock):
  """The convolutions of a post-activation residual unit, gated, without its shortcut and ReLU."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
    return materialize(self._gated('standard', self._post_branch(x, train)))


@dataclasses.dataclass(frozen=True)
class ShakeOptions:
  """Options that all units of a network have in common.

  Attributes:
    groups: of the 3x3 convolution of a bottleneck.
    relu_first: a ReLU in front of the branches, and of the projection, instead of one behind the
      sum.
    shortcut: where shapes differ, `shifted` or `projection`, as of `ShakeNet`.
    backward: coefficients of the backward pass, as of `ShakeNet`.
    se_at: `branch` or `mix`, as of `ShakeNet`.
  """

  groups: int = 1
  relu_first: bool = True
  shortcut: str = 'shifted'
  backward: str = 'shake'
  se_at: str = 'branch'


class ShakeBlock(nn.Module):
  """A residual unit of two branches and their stochastic mix.

  Attributes:
    features: output channels.
    bottleneck: channels inside 1x1-3x3-1x1 branches; None for branches of two 3x3 convolutions.
    stride: of the unit.
    attention: what gates the branches or their mix; None: nothing does.
    options: what it shares with the other units.
    conv: makes convolutions, with the arguments of `layers.conv`.
    norm: makes normalisations, with those of `BatchNorm`.
  """

  features: int
  bottleneck: int | None
  stride: int
  attention: BlockAttention | None
  options: ShakeOptions
  conv: ConvDef
  norm: ModuleDef

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
    activated = nn.relu(x) if self.options.relu_first else x
    branch = functools.partial(
      _Branch,
      features=self.features,
      bottleneck=self.bottleneck,
      stride=self.stride,
      attention=self.attention if self.options.se_at == 'branch' else None,
      options=BlockOptions(groups=self.options.groups, stride_in='3x3'),
      conv=self.conv,
      norm=functools.partial(self.norm, deferred=True),
    )
    a, b = (branch(name=f'branch{i}')(activated, train) for i in (1, 2))
    y = shake(a, b, self.make_rng('shake') if train else None, train, self.options.backward)
    if self.attention is not None and self.options.se_at == 'mix':
      y = self.attention.block()(y)
    if x.shape[-1] != self.features or self.stride > 1:
      x = self._projection(activated, train)
    y = x + y
    return y if self.options.relu_first else nn.relu(y)

  def _projection(self, x: jax.Array, train: bool) -> jax.Array:
    project = functools.partial(self.conv, kernel=1, stride=self.stride)
    if self.options.shortcut == 'shifted':
      # The second half of the channels sees the image one pixel further down and to the right.
      shifted = jnp.pad(x, [(0, 0), (1, 0), (1, 0), (0, 0)])[:, :-1, :-1]
      paths = [
        project(self.features // 2, name=f'proj_conv{i}')(path)
        for i, path in enumerate((x, shifted), start=1)
      ]
      x = jnp.concatenate(paths, axis=-1)
    else:
      x = project(self.features, name='proj_conv')(x)
    return self.norm(name='proj_bn')(x, train)


class ShakeNet(nn.Module):
  """A network of `ShakeBlock`s; training needs the random numbers `shake`.

  Attributes:
    num_classes: outputs of the head.
    depths: units of each stage; stages are numbered from 2, as those of `ResNet`.
    bottleneck: 1x1-3x3-1x1 branches, four times as wide, instead of two 3x3 convolutions.
    width: channels of the first stage, before the bottleneck factor.
    stem_width: channels of the stem.
    groups: of the 3x3 convolutions of bottlenecks, as wide in the first stage as `width`.
    relu_first: ReLUs in front of the units and behind the last one instead of behind the stem and
      each unit.
    shortcut: where shapes differ, `shifted` (two 1x1 convolutions, half the channels each, the
      second of the image shifted by one pixel) or `projection` (one 1x1 convolution).
    backward: coefficients of the backward pass, `shake` (random) or `even` (0.5).
    se_at: SE on each `branch`, so that the gates come before the coefficients, or on their `mix`.
    attention: what gates the units, a name of `layers.register_attention`.
    se: options of the attention and where it is, or None for none.
    bn: normalisation.
    dtype: of the computation.

  Raises:
    UserError: an option is unknown, or this network has no place for it.
  """

  num_classes: int
  depths: tuple[int, ...]
  bottleneck: bool
  width: int
  stem_width: int
  groups: int = 1
  relu_first: bool = True
  shortcut: str = 'shifted'
  backward: str = 'shake'
  se_at: str = 'branch'
  attention: str = 'se'
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  def __post_init__(self):
    errors.one_of('model.shortcut', self.shortcut, ('shifted', 'projection'))
    errors.one_of('model.backward', self.backward, BACKWARDS)
    errors.one_of('model.se_at', self.se_at, ('branch', 'mix'))
    if self.shortcut == 'shifted' and self.width * (4 if self.bottleneck else 1) % 2:
      raise errors.UserError(
        f"model.width={self.width} must be even: model.shortcut='shifted' has two equal halves."
      )
    if self.se is None and self.se_at != 'branch':
      raise errors.UserError(f'model.se_at={self.se_at!r} has no effect on a network without SE.')
    check_attention(self.attention, self.se)
    common.check_se(self.se, ('standard',), len(self.depths) + 1)
    super().__post_init__()

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Classifies.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised.
      train: mix the branches at random, normalise by batch statistics and update the running ones.

    Returns:
      Logits `[N, num_classes]`, float32.
    """
    layers: dict[str, Any] = {
      'conv': functools.partial(conv, dtype=self.dtype),
      'norm': functools.partial(BatchNorm, self.bn, self.dtype),
    }
    shared: dict[str, Any] = {
      field.name: getattr(self, field.name) for field in dataclasses.fields(ShakeOptions)
    }
    unit = functools.partial(ShakeBlock, options=ShakeOptions(**shared), **layers)
    x = layers['conv'](self.stem_width, 3, name='stem_conv')(images.astype(self.dtype))
    x = layers['norm'](name='stem_bn')(x, train)
    if not self.relu_first:
      x = nn.relu(x)
    for stage, depth in enumerate(self.depths, start=2):
      for block in range(1, depth + 1):
        x = unit(**self._unit(stage, block), name=f'stage{stage}_block{block}')(x, train)
    if self.relu_first:
      x = nn.relu(x)
    return classifier(self.num_classes)(x.astype(jnp.float32).mean((1, 2)))

  def _unit(self, stage: int, block: int) -> dict[str, Any]:
    """Returns the fields of unit `block` (from 1) of `stage` that it does not share with others."""
    planes = self.width * 2 ** (stage - 2)
    return {
      'features': planes * (4 if self.bottleneck else 1),
      'bottleneck': planes * self.groups if self.bottleneck else None,
      'stride': 2 if block == 1 and stage > 2 else 1,
      'attention': block_attention(self.attention, self.se, stage, block),
    }


def _register() -> None:
  shake_shake = {'depths': (4, 4, 4), 'bottleneck': False, 'width': 96, 'stem_width': 16}
  shake_even = {
    'depths': (3, 3, 3),
    'bottleneck': True,
    'width': 64,
    'stem_width': 64,
    'groups': 4,
    'relu_first': False,
    'shortcut': 'projection',
    'backward': 'even',
  }
  rows = [
    ('shake_shake26_2x96d', shake_shake, ('groups',), 10, 'table_4', 2.56, 2.12,
     'table 4, Shake-Shake 26 2x96d + Cutout'),
    ('shake_even29_2x4x64d', shake_even, (), 100, 'table_5', 15.85, 15.41,
     'table 5, Shake-Even 29 2x4x64d + Cutout'),
  ]  # fmt: skip
  for name, arguments, unused, num_classes, table, error, se_error, paper in rows:
    register_pair(
      name,
      ShakeNet,
      arguments,
      unused=unused,
      family='shake',
      paper=paper,
      image_size=32,
      num_classes=num_classes,
      preprocessing=Preprocessing(),
      published={table: {'top1_error': error}},
      se_published={table: {'top1_error': se_error}},
    )


_register()
