"""Every configuration: its header, its recipe, its network; and each recipe takes a step."""

import ast
import functools
import json
import math
import pathlib
import re
import runpy
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from senet_jax import config as config_lib
from senet_jax.config import reading
from senet_jax.config.length import total_steps
from senet_jax.data import datasets
from senet_jax.errors import UserError
from senet_jax.models import list_models, model_info
from senet_jax.training.loop import train
from senet_jax.workdir.network import build_model, input_size
from tests.helpers.paths import ROOT

FILES = sorted((ROOT / 'configs').glob('*.py'))
# Rows of no table.
EXTRA = {f'cifar{classes}_{se}r20' for classes in (10, 100) for se in ('', 'se_')}
EXTRA |= {'digits_se_r20', 'imagenette_se_r18', 'finetune_image_folder'}
# Recipes that the paper did not have; see `test_modern.py`.
EXTRA |= {f'imagenet_{se}r50_a{number}' for se in ('', 'se_') for number in (1, 2, 3)}
EXTRA |= {'imagenet_se_resnext101_nvidia:e90', 'imagenet_se_resnext101_nvidia:e250'}
EXTRA |= {f'imagenet_{se}r50_ffcv:e{epochs}' for se in ('', 'se_') for epochs in (16, 40, 88)}
EXTRA |= {'cifar10_r20_fast', 'cifar10_se_r20_fast'}
# Of detectors; see `test_coco.py`.
DETECTORS = {f'coco_faster_rcnn_{se}r{depth}' for se in ('', 'se_') for depth in (50, 101)}
EXTRA |= DETECTORS

# Of each recipe, the fields that differ from the defaults, and what its paper states besides.
# The network, the data set, the options of SE and the logging are not part of a recipe.
SGD = {'optimizer.momentum': 0.9, 'optimizer.nesterov': False, 'optimizer.weight_decay': 1e-4}
NESTEROV = {'optimizer.momentum': 0.9, 'optimizer.nesterov': True}
PHOTOS = {
  **SGD, 'data.feed': 'stream', 'data.eval_split': 'validation', 'data.crop_area': (0.08, 1.0),
  'data.crop_aspect': (3 / 4, 4 / 3), 'data.pad': 0, 'data.flip': True,
}  # fmt: skip
SECTION_5 = {
  **PHOTOS, 'batch_size': 1024, 'epochs': 100.0, 'optimizer.learning_rate': 0.6,
  'schedule.name': 'step', 'schedule.every': 30.0, 'schedule.factor': 0.1, 'label_smoothing': 0.0,
}  # fmt: skip
PLATEAU = {
  **PHOTOS, 'batch_size': 256, 'optimizer.learning_rate': 0.1, 'schedule.name': 'plateau',
  'schedule.factor': 0.1, 'schedule.patience': 10, 'schedule.min_scale': 1e-3,
}  # fmt: skip
SECTION_6 = {**PLATEAU, 'epochs': 300.0, 'label_smoothing': 0.1}
SENET = {
  **SECTION_5, 'batch_size': 2048, 'optimizer.learning_rate': 1.0, 'label_smoothing': 0.1,
  'bn.freeze_last_epochs': 5.0,
}  # fmt: skip
CROPS = {'data.feed': 'device', 'data.eval_split': 'test', 'data.pad': 4, 'data.flip': True}
SHAKE = {**CROPS, **NESTEROV, 'epochs': 1800.0, 'schedule.name': 'cosine', 'schedule.final': 0.0}
STUDENT = {
  'batch_size': 128, 'bn.momentum': 0.99, 'optimizer.momentum': 0.9, 'optimizer.nesterov': False,
  'optimizer.weight_decay': 0.0, 'early_stopping.metric': 'top1_error',
}  # fmt: skip
STUDENT_CIFAR = {
  **STUDENT, 'epochs': 200.0, 'data.train_split': 'train[4%:]', 'data.eval_split': 'train[:4%]',
  'data.pad': 3, 'data.flip': True, 'optimizer.learning_rate': 0.01, 'schedule.name': 'plateau',
  'schedule.patience': 5, 'schedule.min_scale': 0.1, 'schedule.metric': 'top1_error',
  'data.pad_fill': 'nearest',
}  # fmt: skip
STUDENT_TINY = {
  **STUDENT, 'epochs': 60.0, 'data.train_split': 'train[5000:98179]',
  'data.eval_split': 'train[:5000]', 'data.pad_fill': 'nearest', 'optimizer.learning_rate': 0.6,
  'schedule.name': 'step', 'schedule.every': 20.0, 'early_stopping.patience': 15,
}  # fmt: skip
PLACES = {
  **SECTION_5, 'model.num_classes': 365, 'data.mean': (116.052, 113.768, 105.448),
  'data.resize_keep_aspect': False,
}  # fmt: skip
RECIPES = {
  'section 5.1': SECTION_5,
  'Places365': {**PLACES, 'data.sampling': 'class_aware'},
  'Places365, smaller': {**PLACES, 'data.sampling': 'uniform'},
  'mobile': {
    **PLATEAU, 'epochs': 400.0, 'data.crop_area': (0.25, 1.0), 'optimizer.weight_decay': 4e-5,
    'optimizer.decay_mask': 'kernels', 'label_smoothing': 0.0,
  },
  'SENet-154': SENET,
  'SENet-154, 320': {**SENET, 'data.image_size': 320},
  'section 6': SECTION_6,
  'section 6, footnote 2': {
    **SECTION_6, 'epochs': 270.0, 'schedule.name': 'multistep',
    'schedule.boundaries': (125.0, 200.0, 250.0),
  },
  'CIFAR ResNet': {
    **CROPS, **SGD, 'batch_size': 128, 'optimizer.learning_rate': 0.1, 'epochs': 163.84,
    'schedule.name': 'multistep', 'schedule.boundaries': (81.92, 122.88), 'schedule.factor': 0.1,
    'schedule.warmup': 1.024, 'schedule.warmup_shape': 'constant', 'schedule.warmup_start': 0.1,
  },
  'wide ResNet': {
    **CROPS, **NESTEROV, 'batch_size': 128, 'epochs': 200.0, 'optimizer.learning_rate': 0.1,
    'optimizer.weight_decay': 5e-4, 'schedule.name': 'multistep', 'schedule.factor': 0.2,
    'schedule.boundaries': (60.0, 120.0, 160.0), 'schedule.warmup': 0.0,
  },
  'Shake-Shake': {
    **SHAKE, 'batch_size': 128, 'optimizer.learning_rate': 0.2, 'optimizer.weight_decay': 1e-4,
    'data.cutout': 16,
  },
  'Shake-Even': {
    **SHAKE, 'batch_size': 32, 'optimizer.learning_rate': 0.025, 'optimizer.weight_decay': 5e-4,
    'data.cutout': 8,
  },
  'student CIFAR-10 ResNet': {**STUDENT_CIFAR, 'early_stopping.patience': 10},
  'student CIFAR': {**STUDENT_CIFAR, 'early_stopping.patience': 15},
  'student Inception': {
    **STUDENT, 'batch_size': 32, 'epochs': 20.0, 'aux_loss_weight': 1.0, 'data.image_size': 200,
    'data.train_split': 'train[20%:]', 'data.eval_split': 'train[:20%]', 'data.pad': 0,
    'data.flip': False, 'optimizer.name': 'adam', 'optimizer.learning_rate': 3e-4,
    'schedule.name': 'constant',
    'early_stopping.patience': 0,
  },
  'student Tiny ImageNet': {**STUDENT_TINY, 'data.pad': 0, 'data.flip': False},
  'student Tiny ImageNet, augmented': {
    **STUDENT_TINY, 'data.pad': 7, 'data.flip': True, 'data.rotation': 2.0,
    'data.brightness_jitter': 0.2,
  },
}  # fmt: skip
# Of other schedules, and in front of them, these have no effect.
IDLE = ('schedule.boundaries', 'schedule.warmup_shape', 'schedule.warmup_start', 'log.every_steps')


class Row(NamedTuple):
  """A row of a table of the paper, or of a figure of the student report.

  Attributes:
    table: where it is.
    config: file and variant, as `file` or `file:variant`.
    model: name of the network.
    data: name of the data set.
    recipe: one of `RECIPES`.
    se: options of SE that differ from the defaults.
    errors: published, in percent as printed: top-1; top-1 and 5; or top-1, 3 and 5.
  """

  table: str
  config: str
  model: str
  data: str
  recipe: str
  se: dict[str, Any]
  errors: tuple[str, ...]


def pairs(table: str, data: str, recipe: str, rows: list) -> list[Row]:
  """Rows of networks and their SE twins, each from `file`, `network`, both errors."""
  return [
    Row(table, f'{prefix}_{se}{file}', se + network, data, recipe, {}, errors)
    for (prefix, file), network, *both in rows
    for se, errors in zip(('', 'se_'), both, strict=True)
  ]


def places(**networks) -> list[Row]:
  """Rows of Table 6, each on the set of the paper and, without a figure, on the smaller one."""
  sets = (('challenge', 'Places365'), ('small', 'Places365, smaller'))
  return [
    Row('6', f'places365_{file}:{size}', model, f'places365_{size}', recipe, {},
        errors if size == 'challenge' else ())
    for file, (model, errors) in networks.items() for size, recipe in sets
  ]  # fmt: skip


def imagenet(*rows) -> list:
  return [(('imagenet', file), *rest) for file, *rest in rows]


def ablations(table: str, file: str, recipe: str = 'section 6', **variants) -> list[Row]:
  """Rows of section 6; `variants` are the errors and the options of SE, None without SE."""
  return [
    Row(table, f'{file}:{name}', 'resnet50' if se is None else 'se_resnet50', 'imagenet2012',
        recipe, {} if se is None else {'use_bias': False, **se}, errors)
    for name, (errors, se) in variants.items()
  ]  # fmt: skip


def student(figure: int, file: str, data: str, rows: dict[str, tuple]) -> list[Row]:
  return [
    Row(f'report {figure}', f'{file}:{name}', model, data, recipe, se, errors)
    for name, (model, recipe, se, errors) in rows.items()
  ]


def studies(figure: int, file: str, **variants) -> list[Row]:
  """Rows of the report's studies of ResNet-46; `variants` as of `ablations`."""
  return student(figure, file, 'cifar10', {
    name: ('resnet46' if se is None else 'se_resnet46', 'student CIFAR-10 ResNet', se or {}, errors)
    for name, (errors, se) in variants.items()
  })  # fmt: skip


TABLE_2 = imagenet(
  ('r50', 'resnet50', ('24.80', '7.48'), ('23.29', '6.62')),
  ('r101', 'resnet101', ('23.17', '6.52'), ('22.38', '6.07')),
  ('r152', 'resnet152', ('22.42', '6.34'), ('21.57', '5.73')),
  ('resnext50', 'resnext50_32x4d', ('22.11', '5.90'), ('21.10', '5.49')),
  ('resnext101', 'resnext101_32x4d', ('21.18', '5.57'), ('20.70', '5.01')),
  ('vgg16', 'vgg16_bn', ('27.02', '8.81'), ('25.22', '7.70')),
  ('bn_inception', 'bn_inception', ('25.38', '7.89'), ('24.23', '7.14')),
  ('inception_resnet_v2', 'inception_resnet_v2', ('20.37', '5.21'), ('19.80', '4.79')),
)
TABLE_3 = imagenet(
  ('mobilenet', 'mobilenet_v1', ('28.4', '9.4'), ('25.3', '7.7')),
  ('shufflenet', 'shufflenet_v1_g3', ('32.6', '12.5'), ('31.0', '11.1')),
)
CIFAR_RESNETS = {
  'cifar10': [
    (('cifar10', 'r110'), 'resnet110_cifar', ('6.37',), ('5.21',)),
    (('cifar10', 'r164'), 'resnet164_cifar', ('5.46',), ('4.39',)),
  ],
  'cifar100': [
    (('cifar100', 'r110'), 'resnet110_cifar', ('26.88',), ('23.85',)),
    (('cifar100', 'r164'), 'resnet164_cifar', ('24.33',), ('21.31',)),
  ],
}
BASE, PLAIN = ('22.28', '6.03'), ('23.30', '6.55')
REPORT, ORIGINAL = ('17.39', '3.34', '1.11'), ('19.30', '4.14', '1.25')
SHORT, LONG, V3 = 'student CIFAR-10 ResNet', 'student CIFAR', 'student Inception'
TINY = {
  'resnet18': ('71.69', '56.24', '48.20'), 'se_resnet18': ('67.91', '51.97', '44.09'),
  'resnet18_da': ('57.93', '39.27', '31.35'), 'se_resnet18_da': ('57.19', '39.88', '32.52'),
  'resnet34': ('71.45', '54.45', '44.90'), 'se_resnet34': ('68.88', '51.99', '44.04'),
  'resnet34_da': ('61.66', '44.59', '36.16'), 'se_resnet34_da': ('58.62', '40.94', '32.72'),
  'resnet50': ('76.19', '60.03', '51.09'), 'se_resnet50': ('71.81', '55.51', '47.71'),
  'resnet50_da': ('70.20', '52.81', '44.03'), 'se_resnet50_da': ('64.08', '46.02', '38.53'),
}  # fmt: skip

ROWS = [
  *pairs('2', 'imagenet2012', 'section 5.1', TABLE_2),
  *pairs('3', 'imagenet2012', 'mobile', TABLE_3),
  *pairs('4', 'cifar10', 'CIFAR ResNet', CIFAR_RESNETS['cifar10']),
  *pairs('4', 'cifar10', 'wide ResNet', [
    (('cifar10', 'wrn16_8'), 'wrn16_8', ('4.27',), ('3.88',))]),
  *pairs('4', 'cifar10', 'Shake-Shake', [
    (('cifar10', 'shake_shake26'), 'shake_shake26_2x96d', ('2.56',), ('2.12',))]),
  *pairs('5', 'cifar100', 'CIFAR ResNet', CIFAR_RESNETS['cifar100']),
  *pairs('5', 'cifar100', 'wide ResNet', [
    (('cifar100', 'wrn16_8'), 'wrn16_8', ('20.43',), ('19.14',))]),
  *pairs('5', 'cifar100', 'Shake-Even', [
    (('cifar100', 'shake_even29'), 'shake_even29_2x4x64d', ('15.85',), ('15.41',))]),
  *places(r152=('resnet152', ('41.15', '11.61')), se_r152=('se_resnet152', ('40.37', '11.01'))),
  Row('8', 'imagenet_senet154', 'senet154', 'imagenet2012', 'SENet-154', {}, ('18.68', '4.47')),
  Row('9', 'imagenet_senet154_320', 'senet154', 'imagenet2012', 'SENet-154, 320', {},
      ('16.88', '3.58')),
  *ablations('10', 'ablation_ratio', r2=(('22.29', '6.00'), {'ratio': 2}),
             r4=(('22.25', '6.09'), {'ratio': 4}), r8=(('22.26', '5.99'), {'ratio': 8}),
             r16=(BASE, {}), r32=(('22.72', '6.20'), {'ratio': 32}), original=(PLAIN, None)),
  *ablations('11', 'ablation_squeeze', max=(('22.57', '6.09'), {'squeeze': 'max'}),
             avg=(BASE, {})),
  *ablations('12', 'ablation_excitation', relu=(('23.47', '6.98'), {'excitation': 'relu'}),
             tanh=(('23.00', '6.38'), {'excitation': 'tanh'}), sigmoid=(BASE, {})),
  *ablations('13', 'ablation_stages', original=(PLAIN, None), all=(BASE, {}),
             stage2=(('23.03', '6.48'), {'stages': (2,)}),
             stage3=(('23.04', '6.32'), {'stages': (3,)}),
             stage4=(('22.68', '6.22'), {'stages': (4,)})),
  *ablations('section 4', 'ablation_stages', no_stage5=((), {'stages': (2, 3, 4)})),
  *ablations('14', 'ablation_integration', se=(BASE, {}),
             pre=(('22.23', '6.00'), {'position': 'pre'}),
             post=(('22.78', '6.35'), {'position': 'post'}),
             identity=(('22.20', '6.15'), {'position': 'identity'})),
  *ablations('15', 'ablation_integration', conv3x3=(('22.48', '6.02'), {'position': 'conv3x3'})),
  *ablations('16', 'ablation_squeeze', original=(PLAIN, None),
             none=(('22.93', '6.39'), {'squeeze': 'none'})),
  *ablations('section 6', 'ablation_schedule', 'section 6, footnote 2',
             se=(('22.20', '6.00'), {}), original=(('23.21', '6.53'), None)),
  *student(25, 'student_cifar10', 'cifar10', {
    'resnet46': ('resnet46', SHORT, {}, ORIGINAL),
    'se_resnet46': ('se_resnet46', SHORT, {}, REPORT),
    'resnext29': ('resnext29_8x64d', LONG, {}, ('17.13', '3.48', '0.91')),
    'se_resnext29': ('se_resnext29_8x64d', LONG, {}, ('16.91', '3.40', '0.86')),
    'inception_v3': ('inception_v3_cifar', V3, {}, ('16.25', '3.54', '0.80')),
    'se_inception_v3': ('se_inception_v3_cifar', V3, {}, ('22.75', '5.29', '1.59')),
  }),
  *student(26, 'student_cifar100', 'cifar100', {
    'resnet46': ('resnet46', LONG, {}, ('50.00', '31.99', '23.18')),
    'se_resnet46': ('se_resnet46', LONG, {}, ('45.83', '27.97', '20.84')),
    'resnext29': ('resnext29_8x64d', LONG, {}, ('45.27', '25.97', '19.05')),
    'se_resnext29': ('se_resnext29_8x64d', LONG, {}, ('44.72', '26.14', '18.84')),
  }),
  *student(28, 'student_tiny', 'tiny_imagenet', {
    name: (f'{name.removesuffix("_da")}_tiny',
           f'student Tiny ImageNet{", augmented" if name.endswith("_da") else ""}', {}, errors)
    for name, errors in TINY.items()
  }),
  *studies(31, 'student_ratio', original=(ORIGINAL, None),
           r1=(('17.52', '3.86', '0.88'), {'ratio': 1}),
           r2=(('17.33', '3.54', '0.90'), {'ratio': 2}),
           r4=(('18.43', '3.90', '1.25'), {'ratio': 4}),
           r8=(('17.68', '3.84', '1.04'), {'ratio': 8}),
           r16=(('17.39', '3.34', '1.01'), {}),
           r32=(('17.94', '3.67', '1.05'), {'ratio': 32})),
  *studies(32, 'student_integration', se=(REPORT, {}), original=(ORIGINAL, None),
           post=(('21.08', '4.60', '1.11'), {'position': 'post'}),
           pre=(('20.02', '5.45', '1.96'), {'position': 'pre'}),
           identity=(('43.78', '15.48', '6.03'), {'position': 'identity'})),
  *studies(33, 'student_stages', all=(REPORT, {}), original=(ORIGINAL, None),
           stage2=(('19.65', '4.22', '1.36'), {'stages': (2,)}),
           stage3=(('19.74', '4.47', '1.17'), {'stages': (3,)}),
           stage4=(('16.70', '3.40', '1.10'), {'stages': (4,)})),
]  # fmt: skip
# Training images of the data sets, and classes.
IMAGES = {'cifar10': 50_000, 'cifar100': 50_000, 'imagenet2012': 1_281_167,
          'places365_challenge': 8_026_628, 'places365_small': 1_803_460,
          'tiny_imagenet': 100_000}  # fmt: skip
CLASSES = {'cifar100': 100, 'imagenet2012': 1000, 'places365_challenge': 365,
           'places365_small': 365, 'tiny_imagenet': 200}  # fmt: skip


def variants(path: pathlib.Path) -> list[str]:
  """What `--config` takes for each configuration in a file, without its folder and `.py`."""
  names = runpy.run_path(str(path)).get('VARIANTS')
  return [f'{path.stem}:{name}' for name in names] if names else [path.stem]


CONFIGS = [name for path in FILES for name in variants(path)]


def load(name: str, *overrides: str):
  file, colon, variant = name.partition(':')
  return reading.load(f'{ROOT}/configs/{file}.py{colon}{variant}', list(overrides))


def header(name: str) -> str:
  file = ROOT / 'configs' / f'{name.partition(":")[0]}.py'
  return ast.get_docstring(ast.parse(file.read_text()))


# --- what they are ---------------------------------------------------------------------------


def test_every_row_has_its_configuration_and_every_configuration_its_row():
  assert {row.config for row in ROWS} | EXTRA == set(CONFIGS)
  assert len({row.config for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.config)
def test_a_row_has_its_network_data_and_recipe(row):
  config = load(row.config)
  assert (config.model.name, config.data.name) == (row.model, row.data)
  fields = dict(config_lib.flatten(config))
  default = dict(config_lib.flatten(config_lib.default()))
  expected = dict(RECIPES[row.recipe])
  expected |= {f'model.se.{option}': value for option, value in row.se.items()}
  given = {field: fields[field] for field in expected}
  assert given == {k: pytest.approx(v) if isinstance(v, float) else v for k, v in expected.items()}
  changed = {field for field, value in fields.items() if value != default[field]}
  assert changed - expected.keys() - {*IDLE, 'model.name', 'data.name'} == set()


@pytest.mark.parametrize('row', ROWS, ids=lambda row: row.config)
def test_a_row_has_its_published_figures(row):
  text, variant = header(row.config), row.config.partition(':')[2]
  names = {0: (), 1: ('',), 2: ('', 'top-5 '), 3: ('', 'top-3 ', 'top-5 ')}[len(row.errors)]
  top1, *rest = [f'{name}{e} %' for name, e in zip(names, row.errors, strict=True)] or ['']
  if not variant:
    (line,) = re.findall(r'^Published: test error (.+)', text, re.MULTILINE)
    assert line.startswith(f'{top1} (Table {row.table}')
    assert all(other in line for other in rest)
  elif row.errors:
    assert re.search(rf'^  {variant} +{top1} \({", ".join(rest)}\)$', text, re.MULTILINE)
  published = model_info(row.model).published.get(published_key(row))
  if not variant or row.table in ('report 25', 'report 26', 'report 28'):
    ranks = {1: (1,), 2: (1, 5), 3: (1, 3, 5)}[len(row.errors)]
    assert published == {
      f'top{rank}_error': float(error) for rank, error in zip(ranks, row.errors, strict=True)
    }


def published_key(row: Row) -> str:
  table = row.table.replace('report ', 'report_figure_')
  table = table if table.startswith('report') else f'table_{table}'
  return table + '_augmented' * row.config.endswith('_da')


def test_every_published_error_has_its_row():
  found = {(name, key) for name in list_models() for key in model_info(name).published}
  rows = {(row.model, published_key(row)) for row in ROWS}
  others = {(name, key) for name, key in found - rows if key not in ('gflops', 'params')}
  # Of other crops or other papers.
  published = {name: model_info(name).published[key] for name, key in others}
  assert {name: tuple(errors.values()) for name, errors in published.items()} == {
    'inception_resnet_v2': (19.9, 4.9),
    'inception_v3': (21.2, 5.6),
    'senet154': (17.28, 3.79),
  }


@pytest.mark.parametrize('name', CONFIGS)
def test_header(name):
  text, file = header(name), name.partition(':')[0]
  command = rf'python -m senet_jax.main --config=configs/{file}\.py(?::(\w+))? --workdir=runs/'
  (example,) = re.findall(command, text)
  assert f'{file}:{example}' in CONFIGS if example else file == name
  for line in ('Hardware', 'Expected wall time', 'Published', 'Measured'):
    assert re.search(f'^{line}: .+', text, re.MULTILINE), line
  assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize('name', [row.config for row in ROWS])
def test_header_has_the_length(name):
  config = load(name)
  _, part = datasets.parse_split(config.data.train_split, ('train',), config.data.name)
  images = len(range(IMAGES[config.data.name])[part(IMAGES[config.data.name])])
  steps = total_steps(config, images)
  text = ' '.join(header(name).split())
  assert f'{steps:,} steps of {config.batch_size}' in text


@functools.cache
def output_shape(model, size: int) -> tuple[int, ...]:
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  init = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), images)
  return init[0].shape


@pytest.mark.parametrize('name', [name for name in CONFIGS if name not in DETECTORS])
def test_network(name):
  config = load(name)
  config_lib.check(config)
  assert config.model.name in list_models()
  shape = output_shape(build_model(config), input_size(config))
  assert shape == (2, CLASSES.get(config.data.name, 10))


# --- variants --------------------------------------------------------------------------------


def test_a_variant_is_chosen_behind_a_colon():
  assert load('ablation_ratio:r8').model.se.ratio == 8
  assert load('ablation_ratio:r8', '--config.model.se.ratio=5').model.se.ratio == 5


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('ablation_ratio:r5', r"ratio\.py:r5: variant='r5' is unknown.* \(allowed: r2, r4, r8, r16, "),
    ('ablation_ratio', r"ratio\.py: variant='' is unknown \(allowed: r2, .*FILE\.py:VARIANT"),
    ('imagenet_r50:r8', r'r50\.py:r8: it has no variants; leave :r8 out'),
  ],
)
def test_a_variant_that_there_is_not(name, message):
  with pytest.raises(UserError, match=message):
    load(name)


# --- that they run ---------------------------------------------------------------------------

SHALLOW = ('model.depths=(1,1)', 'model.width=8', 'batch_size=16', 'eval.batch_size=512')
SMALL = ('model.depths=(1,1)', 'model.width=8', 'batch_size=8', 'data.image_size=32')
STEPS = {
  'section 5.1': ('imagenet_se_r50', *SMALL, 'model.se.ratio=8'),
  'Places365': ('places365_se_r152', *SMALL, 'model.se.ratio=8'),
  'mobile': ('imagenet_se_mobilenet', *SMALL, 'model.depths=(1,1,1,1,1)'),
  'SENet-154': ('imagenet_senet154', *SMALL, 'model.width=32', 'steps=2',
                'bn.freeze_last_epochs=0.04'),
  'section 6': ('ablation_squeeze:none', *SMALL, 'model.se.ratio=8'),
  'CIFAR ResNet': ('cifar100_se_r20', *SHALLOW, 'model.se.ratio=8'),
  'wide ResNet': ('cifar100_se_wrn16_8', *SHALLOW, 'model.se.ratio=8'),
  'Shake-Shake': ('cifar10_se_shake_shake26', *SHALLOW, 'model.se.ratio=8'),
  'Shake-Even': ('cifar100_se_shake_even29', *SHALLOW),
  'student CIFAR': ('student_ratio:r1', *SHALLOW, 'model.depths=(1,1,1)'),
  # With a network without a second head, which needs larger images: see the slow test for that.
  'student Inception': ('student_cifar10:se_inception_v3', 'model.name=se_resnet46', *SHALLOW,
                        'model.depths=(1,1,1)', 'model.se.ratio=8', 'data.image_size=40'),
  'student Tiny ImageNet': ('student_tiny:se_resnet18_da', *SHALLOW, 'model.width=16'),
}  # fmt: skip


def take_steps(name: str, overrides: tuple[str, ...], workdir: pathlib.Path) -> dict[str, Any]:
  """Trains on made-up data, one step if `overrides` say nothing else; returns the summary."""
  always = ('data.fake=True', 'steps=1', 'log.tensorboard=False')
  config = load(name, *(f'--config.{override}' for override in (*always, *overrides)))
  assert train(config, workdir)
  summary = json.loads((workdir / 'summary.json').read_text())
  assert math.isfinite(summary['final']['loss'])
  assert summary['final']['step'] == summary['steps'] == config.steps
  return summary


@pytest.fixture
def quick_compilation():
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


def test_every_recipe_takes_a_step():
  variants_of = {'section 6, footnote 2': 'section 6', 'SENet-154, 320': 'SENet-154'}
  variants_of['Places365, smaller'] = 'Places365'
  variants_of['student CIFAR-10 ResNet'] = 'student CIFAR'
  variants_of['student Tiny ImageNet, augmented'] = 'student Tiny ImageNet'
  assert {variants_of.get(recipe, recipe) for recipe in RECIPES} == STEPS.keys()


@pytest.mark.thorough
@pytest.mark.parametrize('recipe', STEPS)
def test_a_recipe_takes_a_step_on_fake_data(recipe, tmp_path, quick_compilation):
  name, *overrides = STEPS[recipe]
  take_steps(name, tuple(overrides), tmp_path)
  classes = json.loads((tmp_path / 'classes.json').read_text())['num_classes']
  assert classes == CLASSES.get(load(name).data.name, 10)


@pytest.mark.slow
def test_inception_of_the_student_report_takes_a_step(tmp_path, quick_compilation):
  overrides = ('batch_size=8', 'data.image_size=96', 'data.eval_split=train[:8]')
  take_steps('student_cifar10:se_inception_v3', overrides, tmp_path)


# --- the documentation -----------------------------------------------------------------------


def test_the_list_of_experiments_names_what_there_is():
  text = (ROOT / 'configs' / 'README.md').read_text()
  listed = re.findall(r'(?<![…/\w])(\w+)\.py(:\w+)?', text)
  assert {file + variant for file, variant in listed if variant} <= set(CONFIGS)
  assert {file for file, _ in listed} <= {path.stem for path in FILES}
  for table in range(1, 17):
    assert re.search(rf'^\| Tables? [\d, ]*\b{table}\b', text, re.MULTILINE), table
