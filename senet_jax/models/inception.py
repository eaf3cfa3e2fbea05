"""Inception networks, with squeeze-and-excitation on the output of every module.

Sources: Ioffe and Szegedy 2015 (BN-Inception) with the Caffe model that the SENet paper's authors
released, Szegedy et al. 2015 (Inception-v3) with torchvision's definition, the SENet paper, tables
2 and 8, and the code of its student reproduction, which has Inception-v3 in Keras.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax import errors
from senet_jax.layers import (
  BatchNorm,
  BatchNormConfig,
  SEConfig,
  avg_pool,
  classifier,
  conv,
  materialize,
  max_pool,
)
from senet_jax.models.common import (
  IMAGENET,
  check_dropout,
  check_se,
  figures,
  gated,
  se_of_stage,
)
from senet_jax.models.registry import Preprocessing, register_pair


class ConvSpec(NamedTuple):
  """A row of a table: a convolution with BN and ReLU behind it; fields as of `layers.conv`."""

  features: int
  kernel: int | tuple[int, int] = 1
  stride: int = 1
  padding: str = 'symmetric'


# Of a sequence of layers: a convolution, the name of a pooling, or two convolutions side by side
# whose outputs are concatenated.
Step = ConvSpec | str | tuple[ConvSpec, ConvSpec]
Steps = tuple[Step, ...]
# Of a module; the last branch is the one with the pooling.
Branches = tuple[Steps, ...]

# The stages by the resolution of their maps, as in residual networks: an eighth of the image's, …
STAGES = (3, 4, 5)
# The auxiliary head reads the output of this one.
_AUX_STAGE = 4
# Side of that output for images of 299x299.
_AUX_SIDE = 17


@dataclasses.dataclass(frozen=True)
class Layers:
  """Makes the layers that a table names; to be used inside the module that is to own them.

  Attributes:
    bn: normalisation.
    dtype: of the computation.
    keras: layers as Keras makes them: Glorot initialisation, its auxiliary head.
    conv_bias: biases in the convolutions with BN behind them.
    count_padding: average pooling counts the zeros around the map.
  """

  bn: BatchNormConfig
  dtype: DTypeLike
  keras: bool
  conv_bias: bool
  count_padding: bool

  def sequence(self, steps: Steps, x: jax.Array, train: bool, name: str) -> jax.Array:
    """Runs `x` `[N, H, W, C]` through `steps`, `[N, H', W', C']`.

    A single convolution is called `name`, several `name_1`, `name_2`, … without counting poolings,
    and two side by side `name_2a` and `name_2b`.
    """
    single = sum(not isinstance(step, str) for step in steps) == 1
    number = 0
    for step in steps:
      if isinstance(step, str):
        x = self._pool(step, x)
        continue
      number += 1
      label = name if single else f'{name}_{number}'
      if isinstance(step, ConvSpec):
        x = ConvUnit(step, self, name=label)(x, train)
      else:
        pair = [
          ConvUnit(c, self, name=label + s)(x, train) for c, s in zip(step, 'ab', strict=True)
        ]
        x = jnp.concatenate(pair, -1)
    return x

  def branches(self, branches: Branches, x: jax.Array, train: bool) -> jax.Array:
    """Runs `x` through each of `branches`, called `branch1`, …, and concatenates the outputs."""
    outputs = [
      self.sequence(steps, x, train, f'branch{i}') for i, steps in enumerate(branches, start=1)
    ]
    return jnp.concatenate(outputs, -1)

  def _pool(self, kind: str, x: jax.Array) -> jax.Array:
    """Pools by a 3x3 window."""
    if kind == 'avg':
      return avg_pool(x, count_padding=self.count_padding)
    if kind == 'max':
      return nn.max_pool(x, (3, 3), padding='SAME')
    if kind == 'max/2':
      return nn.max_pool(x, (3, 3), strides=(2, 2))
    return max_pool(x, kind.removeprefix('max/2 '))


class ConvUnit(nn.Module):
  """A convolution, BN and ReLU.

  Attributes:
    spec: of the convolution.
    layers: what it shares with the others of the network.
  """

  spec: ConvSpec
  layers: Layers

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H', W', features]`."""
    features, kernel, stride, padding = self.spec
    layers = self.layers
    options: dict[str, Any] = {
      'dtype': layers.dtype,
      'padding': padding,
      'use_bias': layers.conv_bias,
    }
    if layers.keras:
      options['kernel_init'] = nn.initializers.glorot_uniform()
    x = conv(features, kernel, stride, name='conv', **options)(x)
    return materialize(BatchNorm(layers.bn, layers.dtype, name='bn')(x, train), relu=True)


class InceptionModule(nn.Module):
  """Parallel branches, concatenated, and SE.

  Attributes:
    branches: of the module.
    layers: what it shares with the others of the network.
    se: squeeze-and-excitation, or None.
  """

  branches: Branches
  layers: Layers
  se: SEConfig | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to `[N, H', W', C']`, `C'` that of all branches."""
    return gated(self.se, 'standard', self.layers.branches(self.branches, x, train))


class AuxHead(nn.Module):
  """A second classifier, which helps to train what lies in front of it.

  Maps smaller than those of 299x299 images are padded with zeros to the size of those, so that
  images of any size can train it; that of Keras flattens its map, which binds its weights to the
  size of the images.

  Attributes:
    num_classes: outputs.
    layers: what it shares with the others of the network.
  """

  num_classes: int
  layers: Layers

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps `[N, H, W, C]` to logits `[N, num_classes]`, float32."""
    if self.layers.keras:
      x = avg_pool(x, 5, 3, count_padding=self.layers.count_padding)
    else:
      missing = [max(_AUX_SIDE - size, 0) for size in x.shape[1:3]]
      x = jnp.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)])
      x = avg_pool(x, 5, 3, 'VALID')
    padding = 'SAME' if self.layers.keras else 'VALID'
    x = ConvUnit(ConvSpec(128), self.layers, name='conv1')(x, train)
    x = ConvUnit(ConvSpec(768, 5, padding=padding), self.layers, name='conv2')(x, train)
    x = x.astype(jnp.float32)
    x = x.reshape(x.shape[0], -1) if self.layers.keras else x.mean((1, 2))
    return classifier(self.num_classes)(x)


class Inception(nn.Module):
  """Modules of parallel branches behind a plain stem; the registry's tables make the published.

  Stages are numbered by the resolution of their maps, 3 to 5, a reduction being of the stage whose
  letter it has in its paper. SE is on the output of a module, at `se.position='standard'`.

  Attributes:
    num_classes: outputs of the head.
    stem: layers in front of the first module.
    stages: modules of stages 3, 4 and 5.
    final: layers behind the last module.
    count_padding: average pooling counts the zeros around the map, as Caffe's and torch's, instead
      of averaging what lies inside, as TensorFlow's.
    keras: Glorot initialisation and Keras' auxiliary head, as in the student report.
    conv_bias: biases in the convolutions, as in Keras and in Cadene's BN-Inception; BN makes them
      superfluous.
    aux: an auxiliary head behind stage 4, run only in training; its logits `[N, num_classes]`
      float32 are sown as `intermediates/aux_logits`.
    dropout: share of the features that training drops in front of the classifier; above 0 it needs
      the random numbers `dropout`.
    se: squeeze-and-excitation, or None.
    bn: normalisation.
    dtype: of the computation.

  Raises:
    UserError: an option is unknown, or this network has no place for it.
  """

  num_classes: int
  stem: Steps
  stages: tuple[tuple[Branches, ...], ...]
  final: Steps = ()
  count_padding: bool = True
  keras: bool = False
  conv_bias: bool = False
  aux: bool = False
  dropout: float = 0.0
  se: SEConfig | None = None
  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32

  def __post_init__(self):
    check_dropout(self.dropout)
    self._check_se()
    super().__post_init__()

  def _check_se(self) -> None:
    check_se(self.se, ('standard',), STAGES[-1], STAGES[0])

  @nn.compact
  def __call__(self, images: jax.Array, train: bool) -> jax.Array:
    """Classifies.

    Args:
      images: `[N, H, W, 3]`, any float dtype, normalised.
      train: drop features, normalise by batch statistics and update the running ones.

    Returns:
      Logits `[N, num_classes]`, float32.

    Raises:
      UserError: the images are too small.
    """
    self._check_size(*images.shape[1:3])
    layers = self._layers()
    x = layers.sequence(self.stem, images.astype(self.dtype), train, 'stem')
    for stage in STAGES:
      for module in self._modules(stage, layers):
        x = module(x, train)
      if stage == _AUX_STAGE and self.aux and (train or self.is_initializing()):
        head = AuxHead(self.num_classes, layers, name='aux')
        self.sow('intermediates', 'aux_logits', head(x, train))
    x = layers.sequence(self.final, x, train, 'final')
    x = x.astype(jnp.float32).mean((1, 2))
    if self.dropout:
      x = nn.Dropout(self.dropout, deterministic=not train, name='dropout')(x)
    return classifier(self.num_classes)(x)

  def _layers(self) -> Layers:
    return Layers(self.bn, self.dtype, self.keras, self.conv_bias, self.count_padding)

  def _modules(self, stage: int, layers: Layers) -> list[nn.Module]:
    se = se_of_stage(self.se, stage)
    return [
      InceptionModule(branches, layers, se, name=f'stage{stage}_block{block}')
      for block, branches in enumerate(self.stages[stage - STAGES[0]], start=1)
    ]

  def _check_size(self, height: int, width: int) -> None:
    # Whatever a branch does to the size of a map, that with the pooling does too.
    steps = (*self.stem, *(step for stage in self.stages for m in stage for step in m[-1]))
    least = 1
    for step in reversed(steps):
      if step == 'max/2':
        least = 2 * least + 1
      elif isinstance(step, ConvSpec) and step.padding == 'VALID':
        side = step.kernel if isinstance(step.kernel, int) else max(step.kernel)
        least = (least - 1) * step.stride + side
    if min(height, width) < least:
      raise errors.UserError(
        f'images of {height}x{width} pixels leave nothing behind the last stage; use at least '
        f'{least}x{least}.'
      )


def strided(features: int) -> ConvSpec:
  """Returns the 3x3/2 convolution, without padding, of Inception-v3's reductions."""
  return ConvSpec(features, 3, 2, 'VALID')


def inception_a(first: int, projection: int) -> Branches:
  """Returns the module of Inception-v3 for maps of 35x35.

  Args:
    first: channels of the first branch.
    projection: channels behind the pooling.
  """
  return (
    (ConvSpec(first),),
    (ConvSpec(48), ConvSpec(64, 5)),
    (ConvSpec(64), ConvSpec(96, 3), ConvSpec(96, 3)),
    ('avg', ConvSpec(projection)),
  )


def v3_stem(padding: str = 'symmetric') -> Steps:
  """Returns the stem of Inception-v3; `padding` is that of its third convolution."""
  return (
    strided(32),
    ConvSpec(32, 3, 1, 'VALID'),
    ConvSpec(64, 3, 1, padding),
    'max/2',
    ConvSpec(80),
    ConvSpec(192, 3, 1, 'VALID'),
    'max/2',
  )


def _v3_b(width: int) -> Branches:
  wide, high = (1, 7), (7, 1)
  return (
    (ConvSpec(192),),
    (ConvSpec(width), ConvSpec(width, wide), ConvSpec(192, high)),
    (
      ConvSpec(width),
      ConvSpec(width, high),
      ConvSpec(width, wide),
      ConvSpec(width, high),
      ConvSpec(192, wide),
    ),
    ('avg', ConvSpec(192)),
  )


def _v3_stages() -> tuple[tuple[Branches, ...], ...]:
  cross = (ConvSpec(384, (1, 3)), ConvSpec(384, (3, 1)))
  reduction_a = (
    (strided(384),),
    (ConvSpec(64), ConvSpec(96, 3), strided(96)),
    ('max/2',),
  )
  reduction_b = (
    (ConvSpec(192), strided(320)),
    (ConvSpec(192), ConvSpec(192, (1, 7)), ConvSpec(192, (7, 1)), strided(192)),
    ('max/2',),
  )
  module_c = (
    (ConvSpec(320),),
    (ConvSpec(384), cross),
    (ConvSpec(448), ConvSpec(384, 3), cross),
    ('avg', ConvSpec(192)),
  )
  return (
    (inception_a(64, 32), inception_a(64, 64), inception_a(64, 64)),
    (reduction_a, *map(_v3_b, (128, 160, 160, 192))),
    (reduction_b, module_c, module_c),
  )


def bn_inception_stages(projection: int = 128) -> tuple[tuple[Branches, ...], ...]:
  """Returns the modules of BN-Inception.

  Args:
    projection: channels behind the pooling of modules 4c and 4d; 128 in the Caffe model of the
      SENet paper's authors, 96 in the BN-Inception paper.
  """

  def module(one, reduce, three, double_reduce, double, pool, pooled) -> Branches:
    return (
      (ConvSpec(one),),
      (ConvSpec(reduce), ConvSpec(three, 3)),
      (ConvSpec(double_reduce), ConvSpec(double, 3), ConvSpec(double, 3)),
      (pool, ConvSpec(pooled)),
    )

  def reduction(reduce, three, double_reduce, double) -> Branches:
    return (
      (ConvSpec(reduce), ConvSpec(three, 3, 2)),
      (ConvSpec(double_reduce), ConvSpec(double, 3), ConvSpec(double, 3, 2)),
      # As Caffe's for even sizes; for odd ones, where that does not fit the convolutions, it does.
      ('max/2 tensorflow',),
    )

  return (
    (
      module(64, 64, 64, 64, 96, 'avg', 32),
      module(64, 64, 96, 64, 96, 'avg', 64),
      reduction(128, 160, 64, 96),
    ),
    (
      module(224, 64, 96, 96, 128, 'avg', 128),
      module(192, 96, 128, 96, 128, 'avg', 128),
      module(160, 128, 160, 128, 160, 'avg', projection),
      module(96, 128, 192, 160, 192, 'avg', projection),
      reduction(128, 192, 192, 256),
    ),
    (
      module(352, 192, 320, 160, 224, 'avg', 128),
      module(352, 192, 320, 192, 224, 'max', 128),
    ),
  )


register_pair(
  'bn_inception',
  Inception,
  {
    'stem': (ConvSpec(64, 7, 2), 'max/2 caffe', ConvSpec(64), ConvSpec(192, 3), 'max/2 caffe'),
    'stages': bn_inception_stages(),
  },
  unused=('aux', 'keras'),
  family='inception',
  paper='table 2, BN-Inception',
  published=figures('table_2', 25.38, 7.89, gflops=2.03),
  se_published=figures('table_2', 24.23, 7.14, gflops=2.04),
  **IMAGENET,
)

register_pair(
  'inception_v3',
  Inception,
  {'stem': v3_stem(), 'stages': _v3_stages(), 'aux': True, 'dropout': 0.5},
  unused=('keras',),
  family='inception',
  paper='table 8, Inception-v3, without SE',
  image_size=299,
  num_classes=1000,
  # Pixels from -1 to 1, as in its paper's code and for torchvision's weights.
  preprocessing=Preprocessing(mean=(127.5,) * 3, std=(127.5,) * 3, resize=352),
  published=figures('table_8', 21.2, 5.6),
  se_published={},
  bn_epsilon=1e-3,
)

register_pair(
  'inception_v3_cifar',
  Inception,
  {
    'stem': v3_stem('VALID'),
    'stages': _v3_stages(),
    'count_padding': False,
    'keras': True,
    'conv_bias': True,
    'aux': True,
    'dropout': 0.2,
  },
  family='inception_cifar',
  paper='student report, figure 25',
  image_size=200,
  num_classes=10,
  # Pixels as they are, from 0 to 255, of images made larger.
  preprocessing=Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, resize=200),
  published=figures('report_figure_25', 16.25, 3.54, 0.80),
  se_published=figures('report_figure_25', 22.75, 5.29, 1.59),
  bn_epsilon=1e-3,
)
