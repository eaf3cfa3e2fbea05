"""Names of the networks in other code bases: of weights, layouts and options, as tables.

A `Naming` turns the path of one of our variables into the name of the other code base; as our paths
are known, that is enough for both directions. Names are those of timm 1.0, torchvision 0.28,
Cadene's pretrained-models, Idelbayev's (akamaster) CIFAR networks, Keras 2 and 3, TensorFlow's
MobileNets, and the Caffe files that the authors of the paper released.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from senet_jax import errors
from senet_jax.layers import HEAD, BatchNormConfig, SEConfig
from senet_jax.models import model_info

TORCH = ('timm', 'torchvision', 'cadene', 'akamaster', 'detectron2')
CAFFE = ('caffe',)
KERAS, TFLITE = ('keras',), ('tflite',)
SOURCES = (*TORCH, *CAFFE, *KERAS, *TFLITE)

# The last layers of a detector.
CLASS_LOGITS, BOX_DELTAS = 'roi_head/class_logits', 'roi_head/box_deltas'

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
# Of detectron2, whose background is the last class, and has no deltas.
BACKGROUND_LAST = Layout(lambda x: _rolled(x.T, -1), lambda x: _rolled(x, 1).T)
NO_BACKGROUND = Layout(lambda x: x.T[4:], lambda x: np.pad(x, ((4, 0), (0, 0))).T)
BIAS_BACKGROUND_LAST = Layout(lambda x: _rolled(x, -1), lambda x: _rolled(x, 1))
BIAS_NO_BACKGROUND = Layout(lambda x: x[4:], lambda x: np.pad(x, (4, 0)))


# Of torchvision's files for COCO, whose labels are the ids of its 80 categories, of which these do
# not exist. Ours come behind the others, so that our labels are those of the data.
_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
_COCO_IDS = 90
_ROWS = np.array([*(i for i in range(1 + _COCO_IDS) if i not in _UNUSED_IDS), *_UNUSED_IDS])


def _by_row(x: Array, rows: np.ndarray, of_each: int) -> Array:
  """Returns `x` `[K · of_each, …]` with its K rows in another order, if they are those of COCO."""
  if x.shape[0] != len(rows) * of_each:
    return x
  return x.reshape(len(rows), of_each, -1)[rows].reshape(x.shape)


def _coco_rows(of_each: int, dense: bool) -> Layout:
  turned = (lambda x: x.T) if dense else (lambda x: x)
  return Layout(
    lambda x: _by_row(turned(x), np.argsort(_ROWS), of_each),
    lambda x: turned(_by_row(x, _ROWS, of_each)),
  )


def _rolled(x: Array, places: int) -> Array:
  return x.take(np.roll(np.arange(x.shape[0]), places), axis=0)


# Of Keras, whose kernels have the order of ours; [kh, kw, C, 1] of depthwise convolutions.
KERAS_DEPTHWISE = Layout(lambda x: x.transpose(0, 1, 3, 2), lambda x: x.transpose(0, 1, 3, 2))
KERAS_OF_BGR = Layout(lambda x: x[:, :, ::-1], lambda x: x[:, :, ::-1])
KERAS_DENSE_AS_CONV = Layout(lambda x: x[None, None], lambda x: x[0, 0])
# [O, kh, kw, I], and [1, kh, kw, C] of depthwise convolutions.
TFLITE_CONV = Layout(lambda x: x.transpose(3, 0, 1, 2), lambda x: x.transpose(1, 2, 3, 0))
TFLITE_DEPTHWISE = Layout(lambda x: x.transpose(2, 0, 1, 3), lambda x: x.transpose(1, 2, 0, 3))
TFLITE_DENSE_AS_CONV = Layout(lambda x: x.T[:, None, None], lambda x: x[:, 0, 0].T)


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
    layouts: (pattern, layout) of the kernels of modules that differ from the two below.
    conv: layout of convolutions.
    dense: layout of fully connected layers.
    bias_layouts: (pattern, layout) of biases that are not as they are here.
  """

  renames: tuple[tuple[str, str], ...]
  separator: str
  leaves: dict[str, str]
  layouts: tuple[tuple[str, Layout], ...] = ((r'.*se/fc[12]', DENSE_AS_CONV),)
  conv: Layout = CONV
  dense: Layout = DENSE
  bias_layouts: tuple[tuple[str, Layout], ...] = ()

  def name(self, module: str, kind: str) -> str:
    """Returns the name of a variable of the module at `module`, parts joined by `/`."""
    for pattern, template in self.renames:
      module = re.sub(
        rf'(?<![^/])(?:{pattern})(?![^/])', functools.partial(_filled, template), module
      )
    return module.replace('/', self.separator) + self.leaves[kind]

  def layout(self, module: str, kind: str, rank: int) -> Layout:
    """Returns the layout of a variable with `rank` axes."""
    others = {'kernel': self.layouts, 'bias': self.bias_layouts}.get(kind, ())
    own = (layout for pattern, layout in others if re.fullmatch(pattern, module))
    usual = self.conv if rank == 4 else self.dense
    return next(own, usual if kind == 'kernel' else SAME)


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

# With the names of the original paper's CIFAR networks in torch.
_AKAMASTER = _torch(*_RESNET.renames, (HEAD, 'linear'))


def _keras(*renames: tuple[str, str], **options) -> Naming:
  leaves = {
    'kernel': '/kernel',
    'bias': '/bias',
    'scale': '/gamma',
    'shift': '/beta',
    'mean': '/moving_mean',
    'var': '/moving_variance',
  }
  return Naming(renames, '/', leaves, conv=SAME, dense=SAME, **{'layouts': (), **options})


# Units of our MobileNet, (stage, block), in the order of theirs.
_MOBILE_UNITS = [(s, b) for s, n in enumerate((1, 2, 2, 6, 2), start=1) for b in range(1, n + 1)]
_KERAS_MOBILENET = _keras(
  *((f'stage{s}_block{b}', f'{i}') for i, (s, b) in enumerate(_MOBILE_UNITS, start=1)),
  *((r'(\d+)/depthwise_conv', 'conv_dw_{1}'), (r'(\d+)/depthwise_bn', 'conv_dw_{1}_bn')),
  *((r'(\d+)/pointwise_conv', 'conv_pw_{1}'), (r'(\d+)/pointwise_bn', 'conv_pw_{1}_bn')),
  *(('stem_conv', 'conv1'), ('stem_bn', 'conv1_bn'), (HEAD, 'conv_preds')),
  layouts=(('.*depthwise_conv', KERAS_DEPTHWISE), (HEAD, KERAS_DENSE_AS_CONV)),
)
_KERAS_RESNET = _keras(
  *((r'conv(\d)', '{1}_conv'), (r'bn(\d)', '{1}_bn'), ('proj_(conv|bn)', '0_{1}')),
  (r'stage(\d)_block(\d+)/(.+)', 'conv{1}_block{2}_{3}'),
  *(('stem_(conv|bn)', 'conv1_{1}'), (HEAD, 'predictions')),
  layouts=(('stem_conv', KERAS_OF_BGR),),
)
_INCEPTION_A = ('branch1', 'branch2_1', 'branch2_2', 'branch3_1', 'branch3_2', 'branch3_3')


def _numbered(modules: Iterable[str]) -> Iterator[tuple[str, str]]:
  """Layers that Keras numbers in the order in which they are made; `modules` are ours in it."""
  for i, module in enumerate(modules):
    yield f'{module}/conv', f'conv2d_{i}'
    yield f'{module}/bn', f'batch_normalization_{i}'


def _v3_modules() -> Iterator[str]:
  yield from (f'stem_{i}' for i in range(1, 6))
  for block in (1, 2, 3):
    yield from (f'stage3_block{block}/{unit}' for unit in (*_INCEPTION_A, 'branch4'))
  yield from (f'stage4_block1/{unit}' for unit in ('branch1', *_units(2, 3)))
  for block in (2, 3, 4, 5):
    units = ('branch1', *_units(2, 3), *_units(3, 5), 'branch4')
    yield from (f'stage4_block{block}/{unit}' for unit in units)
  yield from (f'stage5_block1/{unit}' for unit in (*_units(1, 2), *_units(2, 4)))
  pairs = (f'branch{i}_{end}' for i, ends in ((2, '1 2a 2b'), (3, '1 2 3a 3b'))
           for end in ends.split())  # fmt: skip
  units = ('branch1', *pairs, 'branch4')
  yield from (f'stage5_block{block}/{unit}' for block in (2, 3) for unit in units)


def _inception_resnet_modules() -> Iterator[str]:
  yield from (f'stem_{i}' for i in range(1, 6))
  mixed = {3: (*_INCEPTION_A, 'branch4'), 4: ('branch1', *_units(2, 3)),
           5: (*_units(1, 2), *_units(2, 2), *_units(3, 3))}  # fmt: skip
  blocks = {3: (10, _INCEPTION_A), 4: (20, ('branch1', *_units(2, 3))),
            5: (10, ('branch1', *_units(2, 3)))}  # fmt: skip
  for stage, (depth, units) in blocks.items():
    yield from (f'stage{stage}_mixed/{unit}' for unit in mixed[stage])
    yield from (f'stage{stage}_block{b}/{unit}' for b in range(1, depth + 1) for unit in units)


def _units(branch: int, count: int) -> list[str]:
  return [f'branch{branch}_{i}' for i in range(1, count + 1)]


_KERAS_INCEPTION_V3 = _keras(*_numbered(_v3_modules()), (HEAD, 'predictions'))
_KERAS_INCEPTION_RESNET = _keras(
  *_numbered(_inception_resnet_modules()),
  *(('final/conv', 'conv_7b'), ('final/bn', 'conv_7b_bn'), (HEAD, 'predictions')),
  *((f'stage{s}_block(\\d+)/up', f'block{n}_{{1}}_conv') for s, n in ((3, 35), (4, 17), (5, 8))),
)
# The MobileNets that TensorFlow trained, whose normalisation is in the convolutions; `tflite.read`
# gives it back.
_TFLITE_MOBILENET = Naming(
  (
    *((f'stage{s}_block{b}', f'Conv2d_{i}') for i, (s, b) in enumerate(_MOBILE_UNITS, start=1)),
    (r'(Conv2d_\d+)/(depthwise|pointwise)_(conv|bn)', '{1}_{2}'),
    *(('stem_(conv|bn)', 'Conv2d_0'), (HEAD, 'Logits/Conv2d_1c_1x1')),
  ),
  '/',
  {'kernel': '/weights', 'bias': '/biases', 'scale': '/gamma', 'shift': '/beta',
   'mean': '/moving_mean', 'var': '/moving_variance'},
  layouts=(('.*depthwise_conv', TFLITE_DEPTHWISE), (HEAD, TFLITE_DENSE_AS_CONV)),
  conv=TFLITE_CONV,
)  # fmt: skip
# Detectors.
_TORCHVISION_FASTER_RCNN = _torch(
  *_RESNET.renames,
  *(('backbone', 'backbone.body'), (r'fpn/lateral(\d)', 'backbone.fpn.inner_blocks.{1-2}.0')),
  *((r'fpn/output(\d)', 'backbone.fpn.layer_blocks.{1-2}.0'), ('rpn/conv', 'rpn.head.conv.0.0')),
  *(('rpn/objectness', 'rpn.head.cls_logits'), ('rpn/deltas', 'rpn.head.bbox_pred')),
  ('roi_head/(fc[67])', 'roi_heads.box_head.{1}'),
  (f'{CLASS_LOGITS}', 'roi_heads.box_predictor.cls_score'),
  (f'{BOX_DELTAS}', 'roi_heads.box_predictor.bbox_pred'),
  layouts=(
    ('roi_head/fc6', MAP_BY_CHANNEL),
    *((CLASS_LOGITS, _coco_rows(1, dense=True)), (BOX_DELTAS, _coco_rows(4, dense=True))),
  ),
  bias_layouts=(
    *((CLASS_LOGITS, _coco_rows(1, dense=False)), (BOX_DELTAS, _coco_rows(4, dense=False))),
  ),
)
_DETECTRON2 = _torch(
  *((r'stage(\d)_block(\d+)', 'res{1}.{2-1}'), (r'bn(\d)', 'conv{1}.norm')),
  *(('proj_conv', 'shortcut'), ('proj_bn', 'shortcut.norm')),
  *(('stem_conv', 'stem.conv1'), ('stem_bn', 'stem.conv1.norm')),
  *(('backbone', 'backbone.bottom_up'), (r'fpn/(lateral|output)(\d)', 'backbone.fpn_{1}{2}')),
  *(('rpn/conv', 'proposal_generator.rpn_head.conv'),),
  ('rpn/objectness', 'proposal_generator.rpn_head.objectness_logits'),
  ('rpn/deltas', 'proposal_generator.rpn_head.anchor_deltas'),
  *(('roi_head/fc6', 'roi_heads.box_head.fc1'), ('roi_head/fc7', 'roi_heads.box_head.fc2')),
  (f'{CLASS_LOGITS}', 'roi_heads.box_predictor.cls_score'),
  (f'{BOX_DELTAS}', 'roi_heads.box_predictor.bbox_pred'),
  layouts=(
    *(('backbone/stem_conv', CONV_OF_BGR), ('roi_head/fc6', MAP_BY_CHANNEL)),
    *((CLASS_LOGITS, BACKGROUND_LAST), (BOX_DELTAS, NO_BACKGROUND)),
  ),
  bias_layouts=((CLASS_LOGITS, BIAS_BACKGROUND_LAST), (BOX_DELTAS, BIAS_NO_BACKGROUND)),
)

_Statistics = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Images:
  """The images that published weights want, as in the evaluations of their published errors.

  Attributes:
    mean: of RGB, subtracted, 0-255 scale.
    std: of RGB, divided by, 0-255 scale.
    size: side of the crop in the middle, in pixels.
    resize: the shorter side before it, in pixels.
    interpolation: of the resizing: `bilinear` or `bicubic`.
  """

  mean: _Statistics = (123.675, 116.28, 103.53)
  std: _Statistics = (58.395, 57.12, 57.375)
  size: int = 224
  resize: int = 256
  interpolation: str = 'bilinear'


_IMAGENET = Images()
# Of timm: 95 % of the shorter side, or 87.5 %.
_CROP_95 = Images(resize=235, interpolation='bicubic')
_CROP_87 = Images(interpolation='bicubic')
_CAFFE = Images((123.0, 117.0, 104.0), (1.0, 1.0, 1.0))
_KERAS_CAFFE = Images((123.68, 116.779, 103.939), (1.0, 1.0, 1.0))
_CADENE_CAFFE = Images((128.0, 117.0, 104.0), (1.0, 1.0, 1.0))
_HALVES = ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
_CIFAR = Images(size=32, resize=32)
# Of detectors the shorter side, and nothing is cut off.
_COCO = Images(size=800, resize=800)
_COCO_CAFFE = Images((123.675, 116.28, 103.53), (1.0, 1.0, 1.0), 800, 800)


@dataclasses.dataclass(frozen=True)
class Variant:
  """A network as another code base has it.

  Attributes:
    name: of the code base and of the network there: `timm:legacy_seresnet50`.
    model: our name.
    naming: of its variables.
    images: what it wants of them.
    overrides: of `create_model`, under which ours computes the same function.
    dataset: that it was trained on, as in `config.data.name`.
    heads: modules whose outputs are classes; the first has one output for each, and `background`.
    background: outputs of it for what is no object.
  """

  name: str
  model: str
  naming: Naming
  images: Images = _IMAGENET
  overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
  dataset: str = 'imagenet2012'
  heads: tuple[str, ...] = (HEAD,)
  background: int = 0

  @property
  def source(self) -> str:
    """The code base: one of `SOURCES`."""
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
    yield Variant(f'timm:resnet{depth}', plain, _RESNET, _CROP_95, torch)
    yield Variant(f'torchvision:resnet{depth}', plain, _RESNET, overrides=torch)
    yield Variant(f'cadene:resnet{depth}', plain, _CADENE_RESNET, overrides=torch)
    images = _CROP_87 if depth == 18 else _IMAGENET
    yield Variant(f'timm:legacy_seresnet{depth}', se, _LEGACY_SENET, images, legacy)
    images = _CROP_95 if depth == 50 else _CROP_87
    yield Variant(f'timm:seresnet{depth}', se, _RESNET, images, {**torch, **rounded})
    if depth >= 50:
      yield Variant(f'cadene:se_resnet{depth}', se, _LEGACY_SENET)
      yield Variant(f'caffe:se_resnet{depth}', se, _CAFFE_SENET, _CAFFE)
  torch = {'pool_align': 'torch'}
  for depth in (50, 101):
    name = f'resnext{depth}_32x4d'
    plain, se = name, f'se_{name}'
    images = _CROP_95 if depth == 50 else _IMAGENET
    yield Variant(f'timm:{name}', plain, _RESNET, images, torch)
    if depth == 50:
      yield Variant(f'torchvision:{name}', plain, _RESNET, overrides=torch)
    yield Variant(f'timm:legacy_se{name}', se, _LEGACY_SENET)
    yield Variant(f'timm:se{name}', se, _RESNET, _CROP_87, torch)
    yield Variant(f'cadene:se_{name}', se, _LEGACY_SENET)
    yield Variant(f'caffe:se_{name}', se, _CAFFE_SENET, _CAFFE)
  yield Variant(
    'timm:legacy_seresnext26_32x4d',
    'se_resnext50_32x4d',
    _LEGACY_SENET,
    _CROP_87,
    {'depths': (2, 2, 2, 2)},
  )
  yield Variant('timm:legacy_senet154', 'senet154', _LEGACY_SENET)
  yield Variant('timm:senet154', 'senet154', _SENET, _CROP_87, torch)
  yield Variant('cadene:senet154', 'senet154', _LEGACY_SENET)
  yield Variant('caffe:senet154', 'senet154', _CAFFE_SENET, _CAFFE)


def _others() -> Iterator[Variant]:
  yield Variant('timm:vgg16_bn', 'vgg16_bn', _VGG_OF_TIMM, overrides={'head': 'sliding'})
  yield Variant('torchvision:vgg16_bn', 'vgg16_bn', _VGG)
  yield Variant(
    'timm:mobilenetv1_100',
    'mobilenet_v1',
    _MOBILENET,
    Images(*_HALVES, interpolation='bicubic'),
    {'activation': 'relu6'},
  )
  bicubic = Images(*_HALVES, 299, 341, 'bicubic')
  yield Variant('timm:inception_v3', 'inception_v3', _INCEPTION_V3, bicubic, {'aux': False})
  images = Images(*_HALVES, 299, 342)
  yield Variant('torchvision:inception_v3', 'inception_v3', _INCEPTION_V3, images)
  bilinear = Images(*_HALVES, 299, 341)
  yield Variant('cadene:inceptionv3', 'inception_v3', _CADENE_INCEPTION_V3, bilinear)
  name, images = 'inception_resnet_v2', dataclasses.replace(bicubic, resize=333)
  yield Variant(f'timm:{name}', name, _INCEPTION_RESNET, images)
  yield Variant('cadene:inceptionresnetv2', name, _CADENE_INCEPTION_RESNET, bilinear)
  yield Variant(
    'cadene:bninception', 'bn_inception', _CADENE_BN_INCEPTION, _CADENE_CAFFE, {'conv_bias': True}
  )
  yield Variant('caffe:se_bn_inception', 'se_bn_inception', _CAFFE_BN_INCEPTION, _CAFFE)
  for depth in (20, 32, 44, 56, 110):
    options = {'preact': False, 'shortcut': 'pad_both'}
    model = f'resnet{depth}_cifar' if depth == 110 else 'resnet20_cifar'
    if depth not in (20, 110):
      options['depths'] = ((depth - 2) // 6,) * 3
    yield Variant(f'akamaster:resnet{depth}', model, _AKAMASTER, _CIFAR, options, 'cifar10')


def _of_tensorflow() -> Iterator[Variant]:
  mobile = {'activation': 'relu6', 'padding': 'SAME', 'bn': BatchNormConfig(epsilon=1e-3)}
  for name, width in (('', 32), ('_0.75', 24), ('_0.5', 16), ('_0.25', 8)):
    options = mobile if width == 32 else {**mobile, 'width': width}
    yield Variant(
      f'keras:mobilenet{name}', 'mobilenet_v1', _KERAS_MOBILENET, Images(*_HALVES), options
    )
    yield Variant(
      f'tflite:mobilenet_v1{name}', 'mobilenet_v1', _TFLITE_MOBILENET, Images(*_HALVES), options
    )
  resnet = {'pool_align': 'torch', 'bn': BatchNormConfig(epsilon=1.001e-5)}
  for depth in (50, 101, 152):
    yield Variant(f'keras:resnet{depth}', f'resnet{depth}', _KERAS_RESNET, _KERAS_CAFFE, resnet)
  images = Images(*_HALVES, 299, 341)
  options = {'aux': False, 'count_padding': False}
  yield Variant('keras:inception_v3', 'inception_v3', _KERAS_INCEPTION_V3, images, options)
  name = 'inception_resnet_v2'
  yield Variant(f'keras:{name}', name, _KERAS_INCEPTION_RESNET, images)


def _detectors() -> Iterator[Variant]:
  detector = functools.partial(
    Variant, dataset='coco', heads=(CLASS_LOGITS, BOX_DELTAS), background=1
  )
  options = {'settings': 'torchvision', 'stride_in': '3x3'}
  name = 'torchvision:fasterrcnn_resnet50_fpn'
  # The published weights are for normalisations whose epsilon is 0.
  published = {**options, 'bn': BatchNormConfig(epsilon=0.0)}
  ours, naming = 'faster_rcnn_r50_fpn', _TORCHVISION_FASTER_RCNN
  yield detector(f'{name}_coco', ours, naming, _COCO, published)
  yield detector(name, ours, naming, _COCO, options)
  for depth in (50, 101):
    yield detector(
      f'detectron2:faster_rcnn_R_{depth}_FPN',
      f'faster_rcnn_r{depth}_fpn',
      _DETECTRON2,
      _COCO_CAFFE,
      {'settings': 'detectron2'},
    )


VARIANTS = {
  variant.name: variant for variant in (*_residual(), *_others(), *_of_tensorflow(), *_detectors())
}


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
  errors.one_of(f'{model_name}: the variant', name, known)
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
