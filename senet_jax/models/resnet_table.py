"""The published residual networks of one path, as arguments of `ResNet`.

Those for ImageNet and CIFAR are the SENet paper's (tables 2, 4, 5 and 8, and its appendix); the
others are its student reproduction's, whose report has errors that differ from its notebooks in a
few places: these are the report's.
"""

from typing import Any

from senet_jax.models.common import IMAGENET, figures, top_errors
from senet_jax.models.registry import Preprocessing, register, register_pair
from senet_jax.models.resnet import ResNet

# Options of units with a 3x3 convolution between two 1x1.
_OF_BOTTLENECKS = ('stride_in', 'groups', 'group_width', 'halve_first')


def _table_2(top1: float, top5: float, gflops: float) -> dict[str, Any]:
  return figures('table_2', top1, top5, gflops=gflops)


def _register_imagenet() -> None:
  shape_50, shape_101, shape_152 = (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3)
  resnext = {'groups': 32, 'group_width': 4, 'stride_in': '3x3'}
  rows = [
    ('resnet18', False, (2, 2, 2, 2), {}, {}, {}, 'not in the paper'),
    ('resnet34', False, shape_50, {}, {}, {}, 'not in the paper'),
    ('resnet50', True, shape_50, {}, _table_2(24.80, 7.48, 3.86), _table_2(23.29, 6.62, 3.87),
     'table 2, ResNet-50; tables 10-16'),
    ('resnet101', True, shape_101, {}, _table_2(23.17, 6.52, 7.58), _table_2(22.38, 6.07, 7.60),
     'table 2, ResNet-101'),
    ('resnet152', True, shape_152, {}, _table_2(22.42, 6.34, 11.30), _table_2(21.57, 5.73, 11.32),
     'table 2, ResNet-152; table 6'),
    ('resnext50_32x4d', True, shape_50, resnext, _table_2(22.11, 5.90, 4.24),
     _table_2(21.10, 5.49, 4.25), 'table 2, ResNeXt-50 (32x4d)'),
    ('resnext101_32x4d', True, shape_101, resnext, _table_2(21.18, 5.57, 7.99),
     _table_2(20.70, 5.01, 8.00), 'table 2, ResNeXt-101 (32x4d)'),
  ]  # fmt: skip
  for name, bottleneck, depths, options, published, se_published, paper in rows:
    register_pair(
      name,
      ResNet,
      {'depths': depths, 'bottleneck': bottleneck, **options},
      unused=() if bottleneck else _OF_BOTTLENECKS,
      family='resnext' if options else 'resnet',
      paper=paper,
      published=published,
      se_published=se_published,
      **IMAGENET,
    )


def _register_senet154() -> None:
  register(
    'senet154',
    ResNet,
    {
      'depths': (3, 8, 36, 3),
      'bottleneck': True,
      'groups': 64,
      'group_width': 4,
      'halve_first': True,
      'stem': 'deep',
      'stride_in': '3x3',
      'shortcut': 'strided_3x3',
      'dropout': 0.2,
    },
    family='senet',
    se=True,
    paper='tables 8 and 9, SENet-154; appendix',
    published={
      'table_8': top_errors(18.68, 4.47),
      'table_8_320': top_errors(17.28, 3.79),
      'table_9': top_errors(16.88, 3.58),
    },
    **IMAGENET,
  )


def _register_cifar() -> None:
  narrow, wide = {'width': 16}, {'width': 128, 'stem_width': 16}
  rows = [
    ('resnet20_cifar', False, 3, 'pad', narrow, {}, {}, 'not in the paper'),
    ('resnet110_cifar', False, 18, 'pad', narrow, {'table_4': 6.37, 'table_5': 26.88},
     {'table_4': 5.21, 'table_5': 23.85}, 'tables 4 and 5, ResNet-110'),
    ('resnet164_cifar', True, 18, 'projection', narrow, {'table_4': 5.46, 'table_5': 24.33},
     {'table_4': 4.39, 'table_5': 21.31}, 'tables 4 and 5, ResNet-164'),
    ('wrn16_8', False, 2, 'projection', wide, {'table_4': 4.27, 'table_5': 20.43},
     {'table_4': 3.88, 'table_5': 19.14}, 'tables 4 and 5, WRN-16-8'),
  ]  # fmt: skip
  for name, bottleneck, depth, shortcut, widths, published, se_published, paper in rows:
    register_pair(
      name,
      ResNet,
      {
        'depths': (depth,) * 3,
        'bottleneck': bottleneck,
        'shortcut': shortcut,
        'stem': 'cifar',
        'preact': True,
        **widths,
      },
      unused=('pool_align', *(() if bottleneck else _OF_BOTTLENECKS)),
      family='wrn' if widths is wide else 'resnet_cifar',
      paper=paper,
      image_size=32,
      num_classes=10,
      preprocessing=Preprocessing(),
      published={k: top_errors(v) for k, v in published.items()},
      se_published={k: top_errors(v) for k, v in se_published.items()},
    )


def _register_student() -> None:
  # Tables of the figures, sizes and classes of the data.
  cifar = (('report_figure_25', 'report_figure_26'), 'figures 25 and 26', 32, 10)
  tiny = (('report_figure_28', 'report_figure_28_augmented'), 'figure 28', 64, 200)
  keras = {'keras': True, 'shortcut': 'like_last', 'pool_align': 'tensorflow'}
  resnext = {'groups': 8, 'stem': 'small', 'stride_in': '3x3'}
  rows = [
    ('resnet46', (False, False, True), (4, 6, 8), {}, cifar,
     [(19.30, 4.14, 1.25), (50.00, 31.99, 23.18)],
     [(17.39, 3.34, 1.11), (45.83, 27.97, 20.84)]),
    ('resnext29_8x64d', True, (3, 3, 3), resnext, cifar,
     [(17.13, 3.48, 0.91), (45.27, 25.97, 19.05)],
     [(16.91, 3.40, 0.86), (44.72, 26.14, 18.84)]),
    ('resnet18_tiny', False, (2, 2, 2, 2), {}, tiny,
     [(71.69, 56.24, 48.20), (57.93, 39.27, 31.35)],
     [(67.91, 51.97, 44.09), (57.19, 39.88, 32.52)]),
    ('resnet34_tiny', False, (3, 4, 6, 3), {}, tiny,
     [(71.45, 54.45, 44.90), (61.66, 44.59, 36.16)],
     [(68.88, 51.99, 44.04), (58.62, 40.94, 32.72)]),
    ('resnet50_tiny', True, (3, 4, 6, 3), {}, tiny,
     [(76.19, 60.03, 51.09), (70.20, 52.81, 44.03)],
     [(71.81, 55.51, 47.71), (64.08, 46.02, 38.53)]),
  ]  # fmt: skip
  for name, bottleneck, depths, options, data, plain_errors, se_errors in rows:
    tables, where, image_size, num_classes = data
    register_pair(
      name,
      ResNet,
      {'depths': depths, 'bottleneck': bottleneck, **keras, **options},
      unused=() if bottleneck else _OF_BOTTLENECKS,
      family='resnet_student',
      paper=f'student report, {where}',
      image_size=image_size,
      num_classes=num_classes,
      # Pixels as they are, from 0 to 255.
      preprocessing=Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
      published={k: top_errors(*v) for k, v in zip(tables, plain_errors, strict=True)},
      se_published={k: top_errors(*v) for k, v in zip(tables, se_errors, strict=True)},
      bn_epsilon=1e-3,
    )


_register_imagenet()
_register_senet154()
_register_cifar()
_register_student()
