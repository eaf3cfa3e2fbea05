"""Names of the networks in other code bases: of weights, layouts and options, as tables.

A `Naming` turns the path of one of our variables into the name of the other code base; as our paths
are known, that is enough for both directions. Names are those of timm 1.0, torchvision 0.28,
Cadene's pretrained-models and the Caffe files that the authors of the paper released.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import numpy as np

from senet_jax import errors
from senet_jax.layers import HEAD, SEConfig
from senet_jax.models import model_info

TORCH, CAFFE = ('timm', 'torchvision', 'cadene'), ('caffe',)
SOURCES = (*TORCH, *CAFFE)

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
  """An order of axes.

  Attributes:
    export: takes our array to theirs.
    restore: takes theirs to ours.
  """

  export: Callable[[Array], Array]
  restore: Callable[[Array], Array]


SAME = Layout(lambda x: x, lambda x: x)
# [kh, kw, I / groups, O] to [O, I / groups, kh, kw].
CONV = Layout(lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0))
# The first convolution of a network that takes blue first; ours take red first.
CONV_OF_BGR = Layout(lambda x: CONV.export(x)[:, ::-1], lambda x: CONV.restore(x[:, ::-1]))
DENSE = Layout(lambda x: x.T, lambda x: x.T)
# A fully connected layer that is a 1x1 convolution there.
DENSE_AS_CONV = Layout(lambda x: x.T[:, :, None, None], lambda x: x[:, :, 0, 0].T)
# One that reads a whole 7x7 map: a 7x7 convolution there, or one that reads it channel by channel.
MAP_AS_CONV = Layout(
  lambda x: x.reshape(7, 7, -1, x.shape[-1]).transpose(3, 2, 0, 1),
  lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
)
MAP_BY_CHANNEL = Layout(
  lambda x: MAP_AS_CONV.export(x).reshape(x.shape[-1], -1),
  lambda x: MAP_AS_CONV.restore(x.reshape(x.shape[0], -1, 7, 7)),
)


@dataclasses.dataclass(frozen=True)
class Naming:
  """The names and layouts that a code base has for the variables of a family.

  Attributes:
    renames: (pattern, template), applied one after the other to the path of a module; a pattern
      matches whole parts of the path, `{1}` in a template is its first group and `{1-1}` that
      number less 1.
    separator: between the parts of a name.
    leaves: what the names end in: of the `kernel` and `bias` of a convolution or dense layer, and
      the `scale`, `shift`, `mean` and `var` of a normalisation.
    layouts: (pattern, layout) of the kernels of modules that differ from `CONV` and `DENSE`.
  """

  renames: tuple[tuple[str, str], ...]
  separator: str
  leaves: dict[str, str]
  layouts: tuple[tuple[str, Layout], ...] = ((r'.*se/fc[12]', DENSE_AS_CONV),)

  def name(self, module: str, kind: str) -> str:
    """Returns the name of a variable of the module at `module`, parts joined by `/`."""
    for pattern, template in self.renames:
      module = re.sub(
        rf'(?<![^/])(?:{pattern})(?![^/])', lambda match, t=template: _filled(t, match), module
      )
    return module.replace('/', self.separator) + self.leaves[kind]

  def layout(self, module: str, kind: str, rank: int) -> Layout:
    """Returns the layout of a variable with `rank` axes."""
    if kind != 'kernel':
      return SAME
    own = (layout for pattern, layout in self.layouts if re.fullmatch(pattern, module))
    return next(own, CONV if rank == 4 else DENSE)


def _filled(template: str, match: re.Match) -> str:
  def value(field: re.Match) -> str:
    text = match[int(field[1])]
    return str(int(text) + int(field[2])) if field[2] else text

  return re.sub(r'\{(\d)([+-]\d+)?\}', value, template)


def _torch(*renames: tuple[str, str], separator: str = '.', **options) -> Naming:
  leaves = {
    'kernel': '.weight',
    'bias': '.bias',
    'scale': '.weight',
    'shift': '.bias',
    'mean': '.running_mean',
    'var': '.running_var',
  }
  return Naming(renames, separator, leaves, **options)


def _caffe(*renames: tuple[str, str]) -> Naming:
  # Normalisation is two layers, of which the second, Scale, is named after the first.
  leaves = {
    'kernel': ' blob 0',
    'bias': ' blob 1',
    'scale': '/scale blob 0',
    'shift': '/scale blob 1',
    'mean': ' blob 0',
    'var': ' blob 1',
  }
  return Naming(renames, '/', leaves)


_UNITS = (
  (r'stage(\d)_block(\d+)', 'layer{1-1}.{2-1}'),
  ('proj_conv', 'downsample.0'),
  ('proj_bn', 'downsample.1'),
)
_RESNET = _torch(*_UNITS, ('stem_(conv|bn)', '{1}1'))
# Only at the beginning of a path: auxiliary heads keep theirs.
_LAST_LINEAR = (f'^{HEAD}', 'last_linear')
_CADENE_RESNET = _torch(*_RESNET.renames, _LAST_LINEAR)
_SENET = _torch(
  *_UNITS,
  *(('stem_conv1', 'conv1.0'), ('stem_conv2', 'conv1.3'), ('stem_conv3', 'conv1.6')),
  *(('stem_bn1', 'conv1.1'), ('stem_bn2', 'conv1.4'), ('stem_bn3', 'bn1')),
)
# Cadene's, which timm calls `legacy_`.
_LEGACY_SENET = _torch(
  *_UNITS,
  ('stem_(conv|bn)', 'layer0.{1}1'),
  (r'stem_(conv|bn)(\d)', 'layer0.{1}{2}'),
  ('se', 'se_module'),
  _LAST_LINEAR,
)
_CAFFE_SENET = _caffe(
  *(('conv1', '1x1_reduce'), ('conv2', '3x3'), ('conv3', '1x1_increase')),
  *(('bn1', '1x1_reduce/bn'), ('bn2', '3x3/bn'), ('bn3', '1x1_increase/bn')),
  *(('proj_conv', '1x1_proj'), ('proj_bn', '1x1_proj/bn')),
  *(('se/fc1', '1x1_down'), ('se/fc2', '1x1_up')),
  (r'stage(\d)_block(\d+)/(.+)', 'conv{1}_{2}_{3}'),
  *(('stem_conv', 'conv1/7x7_s2'), ('stem_bn', 'conv1/7x7_s2/bn')),
  *(('stem_conv1', 'conv1_1/3x3_s2'), ('stem_bn1', 'conv1_1/3x3_s2/bn')),
  *((r'stem_conv(\d)', 'conv1_{1}/3x3'), (r'stem_bn(\d)', 'conv1_{1}/3x3/bn')),
  (HEAD, 'classifier'),
)


def _vgg_units() -> Iterator[tuple[str, str]]:
  """Returns the layers of torch's one sequence: convolution, BN, ReLU; a pooling behind a stage."""
  index = 0
  for stage, depth in enumerate((2, 2, 3, 3, 3), start=1):
    for block in range(1, depth + 1):
      yield f'stage{stage}_block{block}/conv', f'features.{index}'
      yield f'stage{stage}_block{block}/bn', f'features.{index + 1}'
      index += 3
    index += 1


_VGG = _torch(
  *_vgg_units(),
  *(('fc6', 'classifier.0'), ('fc7', 'classifier.3'), (HEAD, 'classifier.6')),
  layouts=(('fc6', MAP_BY_CHANNEL),),
)
_VGG_OF_TIMM = _torch(
  *_vgg_units(),
  *(('fc6', 'pre_logits.fc1'), ('fc7', 'pre_logits.fc2'), (HEAD, 'head.fc')),
  layouts=(('fc6', MAP_AS_CONV), ('fc7', DENSE_AS_CONV)),
)
_MOBILENET = _torch(
  *(('stem_conv', 'conv_stem'), ('stem_bn', 'bn1'), (HEAD, 'classifier')),
  (r'stage(\d)_block(\d)', 'blocks.{1-1}.{2-1}'),
  *(('depthwise_conv', 'conv_dw'), ('depthwise_bn', 'bn1')),
  *(('pointwise_conv', 'conv_pw'), ('pointwise_bn', 'bn2')),
)


def _lettered(module: str, letters: dict[int, str]) -> Iterator[tuple[str, str]]:
  """Returns Inception modules called by a letter; `letters` are those of each of our stages."""
  for stage, of_stage in letters.items():
    for block, letter in enumerate(of_stage, start=1):
      yield f'stage{stage}_block{block}', module.format(stage, stage + 2) + letter


_INCEPTION_V3 = _torch(
  *(('stem_1', 'Conv2d_1a_3x3'), ('stem_2', 'Conv2d_2a_3x3'), ('stem_3', 'Conv2d_2b_3x3')),
  *(('stem_4', 'Conv2d_3b_1x1'), ('stem_5', 'Conv2d_4a_3x3')),
  (r'(stage3_block\d)/branch2(_\d)', '{1}/branch5x5{2}'),
  (r'(stage3_block\d)/branch3(_\d)', '{1}/branch3x3dbl{2}'),
  (r'(stage4_block1)/branch1', '{1}/branch3x3'),
  (r'(stage4_block1)/branch2(_\d)', '{1}/branch3x3dbl{2}'),
  (r'(stage4_block\d)/branch2(_\d)', '{1}/branch7x7{2}'),
  (r'(stage4_block\d)/branch3(_\d)', '{1}/branch7x7dbl{2}'),
  (r'(stage5_block1)/branch1(_\d)', '{1}/branch3x3{2}'),
  (r'(stage5_block1)/branch2(_\d)', '{1}/branch7x7x3{2}'),
  (r'(stage5_block\d)/branch2(_\d[ab]?)', '{1}/branch3x3{2}'),
  (r'(stage5_block\d)/branch3(_\d[ab]?)', '{1}/branch3x3dbl{2}'),
  *(('branch1', 'branch1x1'), ('branch4', 'branch_pool')),
  *_lettered('Mixed_{1}', {3: 'bcd', 4: 'abcde', 5: 'abc'}),
  *((r'aux/conv(\d)', 'AuxLogits/conv{1-1}'), ('aux', 'AuxLogits')),
)
_CADENE_INCEPTION_V3 = _torch(*_INCEPTION_V3.renames, _LAST_LINEAR)
_INCEPTION_RESNET = _torch(
  *(('stem_1', 'conv2d_1a'), ('stem_2', 'conv2d_2a'), ('stem_3', 'conv2d_2b')),
  *(('stem_4', 'conv2d_3b'), ('stem_5', 'conv2d_4a'), ('final', 'conv2d_7b')),
  ('branch4', 'branch3.1'),  # behind the pooling, which is 0
  *((r'branch(\d)', 'branch{1-1}'), (r'branch(\d)_(\d)', 'branch{1-1}.{2-1}')),
  *(('stage3_mixed', 'mixed_5b'), ('stage4_mixed', 'mixed_6a'), ('stage5_mixed', 'mixed_7a')),
  ('stage5_block10', 'block8'),
  *((r'stage3_block(\d+)', 'repeat.{1-1}'), (r'stage4_block(\d+)', 'repeat_1.{1-1}')),
  (r'stage5_block(\d+)', 'repeat_2.{1-1}'),
  *(('up', 'conv2d'), (HEAD, 'classif')),
)
_CADENE_INCEPTION_RESNET = _torch(*_INCEPTION_RESNET.renames, ('classif', 'last_linear'))
_CAFFE_BN_INCEPTION = _caffe(
  # Reductions have no 1x1 branch, so that theirs count from the next one.
  (r'(stage3_block3|stage4_block5)/branch([12])_(\d)', '{1}/branch{2+1}_{3}'),
  *(('branch1', '1x1'), ('branch2_1', '3x3_reduce'), ('branch2_2', '3x3')),
  *(('branch3_1', 'double3x3_reduce'), ('branch3_2', 'double3x3a')),
  *(('branch3_3', 'double3x3b'), ('branch4', 'pool_proj')),
  *_lettered('inception_{0}', {3: 'abc', 4: 'abcde', 5: 'ab'}),
  *(('(.+)/se/fc1', '{1}_1x1_down'), ('(.+)/se/fc2', '{1}_1x1_up')),
  *(('stem_1', 'conv1/7x7_s2'), ('stem_2', 'conv2/3x3_reduce'), ('stem_3', 'conv2/3x3')),
  *(('(.+)/conv', '{1}'), (HEAD, 'classifier')),
)
_CADENE_BN_INCEPTION = _torch(
  *_CAFFE_BN_INCEPTION.renames,
  *(('double3x3_reduce', 'double_3x3_reduce'), ('double3x3a', 'double_3x3_1')),
  *(('double3x3b', 'double_3x3_2'), ('classifier', 'last_linear')),
  separator='_',
  layouts=(('stem_1/conv', CONV_OF_BGR),),
)

_Statistics = tuple[float, float, float]
_IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
_CAFFE = ((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
_INCEPTION = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
_CADENE_CAFFE = ((128.0, 117.0, 104.0), (1.0, 1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Variant:
  """A network as another code base has it.

  Attributes:
    name: of the code base and of the network there: `timm:legacy_seresnet50`.
    model: our name.
    naming: of its variables.
    images: mean and standard deviation of RGB that it wants images normalised by, 0-255 scale.
    overrides: of `create_model`, under which ours computes the same function.
  """

  name: str
  model: str
  naming: Naming
  images: tuple[_Statistics, _Statistics] = _IMAGENET
  overrides: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def source(self) -> str:
    """The code base: `timm`, `torchvision`, `cadene` or `caffe`."""
    return self.name.partition(':')[0]


def _residual() -> Iterator[Variant]:
  for depth in (18, 34, 50, 101, 152):
    torch, legacy, rounded = {'pool_align': 'torch'}, {}, {}
    if depth >= 50:
      torch['stride_in'] = '3x3'
    else:
      legacy = {'branch_relu': True}
      rounded = {'se': SEConfig(hidden_divisor=8)}  # SE of 64 channels has 8 units for our 4
    plain, se = f'resnet{depth}', f'se_resnet{depth}'
    yield Variant(f'timm:resnet{depth}', plain, _RESNET, overrides=torch)
    yield Variant(f'torchvision:resnet{depth}', plain, _RESNET, overrides=torch)
    yield Variant(f'cadene:resnet{depth}', plain, _CADENE_RESNET, overrides=torch)
    yield Variant(f'timm:legacy_seresnet{depth}', se, _LEGACY_SENET, overrides=legacy)
    yield Variant(f'timm:seresnet{depth}', se, _RESNET, overrides={**torch, **rounded})
    if depth >= 50:
      yield Variant(f'cadene:se_resnet{depth}', se, _LEGACY_SENET)
      yield Variant(f'caffe:se_resnet{depth}', se, _CAFFE_SENET, _CAFFE)
  torch = {'pool_align': 'torch'}
  for depth in (50, 101):
    name = f'resnext{depth}_32x4d'
    plain, se = name, f'se_{name}'
    yield Variant(f'timm:{name}', plain, _RESNET, overrides=torch)
    if depth == 50:
      yield Variant(f'torchvision:{name}', plain, _RESNET, overrides=torch)
    yield Variant(f'timm:legacy_se{name}', se, _LEGACY_SENET)
    yield Variant(f'timm:se{name}', se, _RESNET, overrides=torch)
    yield Variant(f'cadene:se_{name}', se, _LEGACY_SENET)
    yield Variant(f'caffe:se_{name}', se, _CAFFE_SENET, _CAFFE)
  yield Variant(
    'timm:legacy_seresnext26_32x4d',
    'se_resnext50_32x4d',
    _LEGACY_SENET,
    overrides={'depths': (2, 2, 2, 2)},
  )
  yield Variant('timm:legacy_senet154', 'senet154', _LEGACY_SENET)
  yield Variant('timm:senet154', 'senet154', _SENET, overrides=torch)
  yield Variant('cadene:senet154', 'senet154', _LEGACY_SENET)
  yield Variant('caffe:senet154', 'senet154', _CAFFE_SENET, _CAFFE)


def _others() -> Iterator[Variant]:
  yield Variant('timm:vgg16_bn', 'vgg16_bn', _VGG_OF_TIMM, overrides={'head': 'sliding'})
  yield Variant('torchvision:vgg16_bn', 'vgg16_bn', _VGG)
  yield Variant(
    'timm:mobilenetv1_100', 'mobilenet_v1', _MOBILENET, _INCEPTION, {'activation': 'relu6'}
  )
  yield Variant('timm:inception_v3', 'inception_v3', _INCEPTION_V3, _INCEPTION, {'aux': False})
  yield Variant('torchvision:inception_v3', 'inception_v3', _INCEPTION_V3, _INCEPTION)
  yield Variant('cadene:inceptionv3', 'inception_v3', _CADENE_INCEPTION_V3, _INCEPTION)
  yield Variant('timm:inception_resnet_v2', 'inception_resnet_v2', _INCEPTION_RESNET, _INCEPTION)
  yield Variant(
    'cadene:inceptionresnetv2', 'inception_resnet_v2', _CADENE_INCEPTION_RESNET, _INCEPTION
  )
  yield Variant(
    'cadene:bninception', 'bn_inception', _CADENE_BN_INCEPTION, _CADENE_CAFFE, {'conv_bias': True}
  )
  yield Variant('caffe:se_bn_inception', 'se_bn_inception', _CAFFE_BN_INCEPTION, _CAFFE)


VARIANTS = {variant.name: variant for variant in (*_residual(), *_others())}


def variants_of(model_name: str, sources: Collection[str] = SOURCES) -> list[Variant]:
  """Returns the other code bases' forms of the network `model_name`, the usual one first.

  Raises:
    UserError: there is no such network, or none of `sources` has it.
  """
  model_info(model_name)
  found = [v for v in VARIANTS.values() if v.model == model_name and v.source in sources]
  if not found:
    known = list(dict.fromkeys(v.model for v in VARIANTS.values() if v.source in sources))
    raise errors.UserError(
      f'no weights of {", ".join(sources)} are known for {model_name}; they are for '
      f'{", ".join(errors.closest_first(model_name, known))}.'
    )
  return found


def variant_of(model_name: str, name: str, sources: Collection[str] = SOURCES) -> Variant:
  """Returns the variant `name` of the network `model_name`.

  Raises:
    UserError: as of `variants_of`, or it is none of them.
  """
  known = {variant.name: variant for variant in variants_of(model_name, sources)}
  errors.one_of(f'variant of {model_name}', name, known)
  return known[name]


def model_overrides(model_name: str, variant: str) -> dict[str, Any]:
  """Overrides of `create_model` under which a network computes what `variant` does.

  Args:
    model_name: our name.
    variant: the code base and its name of the network: `timm:seresnet50`, `caffe:se_resnet50`.

  Raises:
    UserError: there is no such network, or the variant is none of it.
  """
  return dict(variant_of(model_name, variant).overrides)
