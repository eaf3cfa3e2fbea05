"""SENet-154, the wide network, the student report's: counts, options, independent definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import SEConfig, excitations
from senet_jax.models import Preprocessing, create_model, list_models, model_info
from tests.helpers.models import (
  as_shapes,
  check_finite,
  check_moved,
  check_takes_part,
  count,
  one_pass,
  some_images,
  tree_of,
  variables_of,
)
from tests.helpers.parity import check_gradients, compare_evaluation, compare_training, twin
from tests.helpers.weights import random_images

BIAS, NO_BIAS = SEConfig(), SEConfig(use_bias=False)


def cost_of(name, num_classes=None, **overrides):
  return complexity(create_model(name, num_classes, **overrides), model_info(name).image_size)


# Counts of independent definitions.


def test_senet154_costs_what_its_caffe_model_does():
  cost = cost_of('senet154')
  assert (cost.params, cost.batch_stats, cost.macs) == (115_088_984, 247_552, 20_688_363_520)
  assert (cost.se_macs, cost.squeezed_elements) == (6_578_176, 13_146_112)
  assert tree_of(create_model('senet154', dropout=0.0)) == tree_of(create_model('senet154'))


@pytest.mark.parametrize(
  ('classes', 'se', 'params', 'macs'),
  [
    (10, None, 10_961_370, 1_548_145_664),
    (10, NO_BIAS, 11_047_386, 1_548_231_680),
    (10, BIAS, 11_049_290, 1_548_231_680),
    (100, None, 11_007_540, 1_548_191_744),
    (100, NO_BIAS, 11_093_556, 1_548_277_760),
    (100, BIAS, 11_095_460, 1_548_277_760),
  ],
)
def test_wide_network(classes, se, params, macs):
  cost = cost_of('wrn16_8', classes, se=se)
  assert (cost.params, cost.batch_stats, cost.macs) == (params, 7_200, macs)
  assert (cost.se_macs, cost.squeezed_elements) == ((86_016, 458_752) if se else (0, 0))


@pytest.mark.parametrize(
  ('name', 'classes', 'se', 'params', 'total', 'macs'),
  [
    # Parameters, those with the BN statistics (what the report's notebooks print), MACs.
    ('resnet18_tiny', 200, {}, 12_697_224, 12_706_952, 170_168_320),
    ('se_resnet18_tiny', 200, {}, 12_786_304, 12_796_032, 170_255_360),
    ('resnet34_tiny', 200, {}, 22_809_096, 22_826_248, 321_163_264),
    ('se_resnet34_tiny', 200, {}, 22_970_292, 22_987_444, 321_320_448),
    ('resnet50_tiny', 200, {}, 23_944_392, 23_997_512, 315_179_008),
    ('se_resnet50_tiny', 200, {}, 26_475_384, 26_528_504, 317_693_952),
    ('resnet46', 10, {}, 10_982_346, 11_013_578, 87_222_272),
    ('resnet46', 100, {}, 11_074_596, 11_105_828, 87_314_432),
    ('se_resnet46', 10, {}, 12_055_050, 12_086_282, 88_285_184),
    ('se_resnet46', 100, {}, 12_147_300, 12_178_532, 88_377_344),
    ('se_resnet46', 10, {'ratio': 1}, 28_007_370, 28_038_602, 104_228_864),
    ('se_resnet46', 10, {'ratio': 2}, 19_499_466, 19_530_698, 95_725_568),
    ('se_resnet46', 10, {'ratio': 4}, 15_245_514, 15_276_746, 91_473_920),
    ('se_resnet46', 10, {'ratio': 8}, 13_118_538, 13_149_770, 89_348_096),
    ('se_resnet46', 10, {'ratio': 16}, 12_055_050, 12_086_282, 88_285_184),
    ('se_resnet46', 10, {'ratio': 32}, 11_523_306, 11_554_538, 87_753_728),
    ('se_resnet46', 10, {'stages': 2}, 10_984_666, 11_015_898, 87_224_320),
    ('se_resnet46', 10, {'stages': 3}, 10_995_450, 11_026_682, 87_234_560),
    ('se_resnet46', 10, {'stages': 4}, 12_039_626, 12_070_858, 88_270_848),
    ('resnext29_8x64d', 10, {}, 34_455_434, 34_512_906, 337_045_504),
    ('se_resnext29_8x64d', 10, {}, 34_977_242, 35_034_714, 337_561_600),
    ('resnext29_8x64d', 100, {}, 34_547_684, 34_605_156, 337_137_664),
    ('se_resnext29_8x64d', 100, {}, 35_069_492, 35_126_964, 337_653_760),
  ],
)
def test_student_networks(name, classes, se, params, total, macs):
  cost = cost_of(name, classes, se=SEConfig(**se) if name.startswith('se_') else None)
  assert (cost.params, cost.params + cost.batch_stats, cost.macs) == (params, total, macs)


def test_resnext29_as_published():
  """Without a stride and a pooling in the stem, and without biases: 34.4 million parameters."""
  model = create_model(
    'resnext29_8x64d', stem='cifar', keras=False, shortcut='projection', num_classes=10
  )
  assert count(tree_of(model)['params']) == 34_426_698


# The registry.

STUDENTS = ('resnet18_tiny', 'resnet34_tiny', 'resnet46', 'resnet50_tiny', 'resnext29_8x64d')


def test_names():
  assert set(list_models('*senet154')) == {'senet154'}
  for name in ('wrn16_8', *STUDENTS):
    assert set(list_models(f'*{name}')) == {name, f'se_{name}'}


@pytest.mark.parametrize(
  ('name', 'published'),
  [
    (
      'senet154',
      {'table_8': (18.68, 4.47), 'table_8_320': (17.28, 3.79), 'table_9': (16.88, 3.58)},
    ),
    ('wrn16_8', {'table_4': (4.27,), 'table_5': (20.43,)}),
    ('se_wrn16_8', {'table_4': (3.88,), 'table_5': (19.14,)}),
    (
      'se_resnet46',
      {'report_figure_25': (17.39, 3.34, 1.11), 'report_figure_26': (45.83, 27.97, 20.84)},
    ),
    (
      'resnet50_tiny',
      {
        'report_figure_28': (76.19, 60.03, 51.09),
        'report_figure_28_augmented': (70.20, 52.81, 44.03),
      },
    ),
  ],
)
def test_published_errors(name, published):
  info = model_info(name)
  ranks = {1: ('top1',), 2: ('top1', 'top5'), 3: ('top1', 'top3', 'top5')}
  for table, top in published.items():
    expected = dict(zip((f'{rank}_error' for rank in ranks[len(top)]), top, strict=True))
    assert info.published.pop(table, None) == expected
  assert not info.published


def test_info():
  assert (model_info('senet154').se, model_info('senet154').image_size) == (True, 224)
  assert model_info('senet154').preprocessing == model_info('se_resnet50').preprocessing
  assert model_info('se_wrn16_8').preprocessing == Preprocessing()
  assert (model_info('wrn16_8').family, model_info('wrn16_8').num_classes) == ('wrn', 10)
  for name in STUDENTS:
    info = model_info(name)
    tiny = name.endswith('tiny')
    assert (info.image_size, info.num_classes) == ((64, 200) if tiny else (32, 10))
    assert info.preprocessing == Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert create_model(name).bn.epsilon == info.bn_epsilon == 1e-3


@pytest.mark.parametrize(
  ('name', 'overrides', 'message'),
  [
    ('senet154', {'se': None}, 'senet154 has no twin without squeeze-and-excitation'),
    ('senet154', {'width': 16}, r'halve_first=True: groups of 1 channels .* model\.width=16'),
    ('senet154', {'dropout': 1.0}, r'model\.dropout=1\.0'),
    ('senet154', {'shortcut': 'A'}, r'projection, pad, pad_both, strided_3x3, like_last'),
    ('wrn16_8', {'groups': 2}, 'groups has no effect on wrn16_8'),
    ('wrn16_8', {'pool_align': 'torch'}, 'pool_align has no effect on wrn16_8'),
    ('se_wrn16_8', {'se': SEConfig(stages=5)}, r'model\.se\.stages=5'),
    ('se_wrn16_8', {'se': SEConfig(position='conv3x3')}, 'needs 1x1-3x3-1x1 units'),
    ('se_resnet46', {'se': SEConfig(position='conv3x3')}, 'needs 1x1-3x3-1x1 units'),
    ('se_resnet46', {'se': SEConfig(stages=(4, 5))}, r'model\.se\.stages=5'),
    ('resnet46', {'depths': (1, 1)}, 'one for each of the 2 stages'),
    ('resnet46', {'stem': 'deeper'}, "did you mean 'deep'"),
    ('resnet18_tiny', {'stride_in': '3x3'}, 'stride_in has no effect on resnet18_tiny'),
  ],
)
def test_mistakes_are_named(name, overrides, message):
  with pytest.raises(UserError, match=message) as caught:
    create_model(name, **overrides)
  assert '\n' not in str(caught.value)


def test_conv3x3_in_the_stage_that_has_bottlenecks():
  se = SEConfig(position='conv3x3', stages=4)
  cost = cost_of('se_resnet46', se=se)
  assert {row.path.split('/')[0] for row in cost.layers if row.se} == {
    f'stage4_block{block}' for block in range(1, 9)
  }
  assert cost.se_weights == 8 * 2 * 256 * 256 // 16


# Forward and backward passes of small versions.

SMALL = {
  'senet154': {'width': 32, 'depths': (1, 1), 'groups': 4},
  'se_wrn16_8': {'width': 16, 'stem_width': 8, 'depths': (1, 1)},
  'se_resnet46': {'width': 8, 'depths': (1, 1), 'bottleneck': (False, True)},
  'se_resnext29_8x64d': {'width': 16, 'depths': (1, 1), 'groups': 2},
}


def small(name, **options):
  return create_model(name, **{'num_classes': 5, 'se': SEConfig(ratio=4), **SMALL[name], **options})


@pytest.mark.thorough
@pytest.mark.parametrize('name', SMALL)
def test_passes(name):
  model, x = small(name), some_images(2, 24)
  variables = variables_of(model, x)
  for n, train in ((1, False), (1, True), (2, True)):  # the comparisons with torch are of two
    rngs = {'dropout': jax.random.key(2)}
    _, (logits,), new, gradients = one_pass(model, variables, x[:n], train=train, rngs=rngs)
    assert (logits.shape, logits.dtype) == ((n, 5), jnp.float32)
    check_finite((gradients, logits, new))
    assert set(excitations(new['intermediates'])) == {'SE_2_1', 'SE_3_1'}
    if not train:  # in training a bias in front of a BN has no effect
      check_takes_part(gradients)
  check_moved(new, variables)
  assert tree_of(model) == as_shapes(variables)


def test_dropout_acts_in_training_only():
  model, x = (
    small('senet154', width=16, group_width=8, depths=(1,), dropout=0.5),
    some_images(2, 16),
  )
  variables = variables_of(model, x)

  def run(model, train, seed):
    rngs = {'dropout': jax.random.key(seed)}
    return model.apply(variables, x, train=train, rngs=rngs, mutable='batch_stats')[0]

  one, same, other = (run(model, True, seed) for seed in (1, 1, 2))
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 1e-3
  without = model.clone(dropout=0.0)
  np.testing.assert_array_equal(run(model, False, 1), run(without, False, 1))
  assert np.abs(run(without, True, 1) - one).max() > 1e-3
  with pytest.raises(Exception, match='dropout'):
    model.apply(variables, x, train=True, mutable='batch_stats')


@pytest.mark.parametrize('name', ['senet154', 'se_resnet46'])
def test_bfloat16(name):
  x = some_images(2, 16)
  full, half = (small(name, dtype=dtype) for dtype in ('float32', 'bfloat16'))
  variables = variables_of(full, x)
  assert tree_of(half) == tree_of(full)
  expected, logits = (
    jax.jit(functools.partial(model.apply, train=False))(variables, x) for model in (full, half)
  )
  assert logits.dtype == jnp.float32
  assert 0 < np.abs(logits - expected).max() < 0.03 * np.abs(expected).max()


def test_keras_starts_as_keras():
  model = create_model('resnet46', width=64, depths=(1, 1, 1))
  params = variables_of(model, jnp.zeros((1, 16, 16, 3)))['params']
  for module, name in (('stage2_block1', 'conv2'), ('stage3_block1', 'proj_conv')):
    kernel = params[module][name]['kernel']
    bound = np.sqrt(6 / (9 * (kernel.shape[2] + kernel.shape[3])))
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert not np.any(params[module][name]['bias'])


# Equality with other definitions, weights and BN statistics random.


def test_senet154_is_timms(golden):
  depths = (1, 2, 1, 1)  # both kinds of units and projections
  model = create_model('senet154', depths=depths, num_classes=7)
  compare_evaluation(golden, model, random_images(2, 54, 40), twin('deep.senet154', depths, 7))


def test_wide_network_is_the_torch_one(golden):
  model = create_model('se_wrn16_8', stem_width=4, width=16)
  compare_evaluation(golden, model, random_images(2, 17, 16), twin('deep.wide', 4, 16, 10, 16))


@pytest.mark.parametrize('size', [(32, 32), (45, 31)], ids=str)
def test_resnet46_is_the_keras_one(golden, size):
  depths = (2, 1, 2)
  model = create_model('se_resnet46', width=16, depths=depths)
  compare_evaluation(golden, model, random_images(2, *size), twin('deep.resnet46', depths, 10, 16))


def test_resnext29_is_the_keras_one(golden):
  model = create_model('se_resnext29_8x64d', width=16, depths=(1, 2, 1))
  compare_evaluation(golden, model, random_images(2, 32, 26), twin('deep.resnext29', 10, 16))


@pytest.mark.parametrize('name', ['se_resnet46', 'se_wrn16_8'])
def test_gradients_of_training(golden, name):
  size, se = 32, SEConfig(ratio=4)
  if name == 'se_wrn16_8':
    model = create_model(name, stem_width=4, width=16, se=se)
    make = twin('deep.wide', 4, 16, 10, 4)
    size = 12  # Of many activations one is so near zero that rounding turns its ReLU.
  else:
    model = create_model(name, width=16, depths=(1, 1, 1), se=se)
    make = twin('deep.resnet46', (1, 1, 1), 10, 4)
  check_gradients(*compare_training(golden, model, random_images(4, size, size), make))
