"""The configurations of table 7: their recipe, their published figures, and their small variant."""

import re

import pytest

from senet_jax import config as config_lib
from senet_jax.config import reading
from senet_jax.errors import UserError
from senet_jax.models import model_info
from senet_jax.workdir import network
from tests.helpers.paths import ROOT

# As the paper's table 7 has them: AP and AP50 on minival.
ROWS = {
  'coco_faster_rcnn_r50': ('faster_rcnn_r50_fpn', '38.0', '57.9'),
  'coco_faster_rcnn_se_r50': ('se_faster_rcnn_r50_fpn', '40.4', '61.0'),
  'coco_faster_rcnn_r101': ('faster_rcnn_r101_fpn', '39.9', '60.1'),
  'coco_faster_rcnn_se_r101': ('se_faster_rcnn_r101_fpn', '41.9', '62.7'),
}
# Detectron's e2e_faster_rcnn_R-50-FPN_2x, and nothing else.
RECIPE = {
  'data.name': 'coco', 'data.eval_split': 'validation', 'batch_size': 16, 'steps': 180_000,
  'optimizer.learning_rate': 0.02, 'optimizer.base_batch': 16, 'optimizer.decay_mask': 'kernels',
  'optimizer.bias_rate': 2.0, 'schedule.name': 'multistep', 'schedule.unit': 'steps',
  'schedule.boundaries': (120_000.0, 160_000.0), 'schedule.warmup': 500.0,
  'schedule.warmup_start': 1 / 3,
}  # fmt: skip
LOGGING = {'eval.every_epochs', 'checkpoint.every_steps'}


def load(name, *overrides):
  return reading.load(f'{ROOT}/configs/{name}', list(overrides))


@pytest.mark.parametrize('name', ROWS)
def test_a_row_has_its_network_recipe_and_figures(name):
  config, (model, ap, ap50) = load(f'{name}.py'), ROWS[name]
  changed = config_lib.changed(config)
  assert {k: v for k, v in changed.items() if k not in LOGGING} == {**RECIPE, 'model.name': model}
  assert config.optimizer.momentum == 0.9 and config.optimizer.weight_decay == 1e-4
  assert config.schedule.factor == 0.1
  text = (ROOT / 'configs' / f'{name}.py').read_text()
  assert re.search(rf'^Published: AP {ap} % \(Table 7, COCO minival; AP50 {ap50} %\)', text, re.M)
  assert model_info(model).published == {'table_7': {'ap': float(ap), 'ap50': float(ap50)}}


def test_the_trunk_and_the_conventions_are_the_published_ones():
  model = network.build_model(load('coco_faster_rcnn_se_r50.py'))
  assert (model.trunk, model.settings, model.freeze_at) == ('resnet50', 'detectron', 2)
  assert (model.num_classes, model.make_trunk().stride_in, model.se.ratio) == (80, '1x1', 16)


@pytest.mark.parametrize('name', ['coco_faster_rcnn_r50', 'coco_faster_rcnn_se_r101'])
def test_the_small_variant(name):
  config = load(f'{name}.py:small')
  config_lib.check(config)
  model = network.build_model(config, 7)
  assert (model.trunk, model.width, model.num_classes) == ('resnet18', 32, 7)
  assert (model.se is None) == ('_se_' not in name)
  shapes = network.variable_shapes(config, model)['params']
  assert shapes['fpn']['output2']['kernel'].shape == (3, 3, 128, 128)
  assert shapes['roi_head']['fc6']['bias'].shape == (512,)


def test_a_variant_that_is_none():
  with pytest.raises(UserError, match=r'large.*full, small'):
    load('coco_faster_rcnn_r50.py:large')
