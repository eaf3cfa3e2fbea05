"""VGG, MobileNet and ShuffleNet: what they cost, their options, the same numbers as in torch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, SEConfig, excitations
from senet_jax.models import create_model, list_models, model_info
from senet_jax.models.shufflenet import channel_shuffle
from senet_jax.models.vgg import _adaptive_mean
from tests.helpers.models import (
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

compare = functools.partial(compare_evaluation, calibrated=True)

# Counted with hooks in independent torch definitions: network, overrides, SE options; without SE
# parameters, BN statistics and MACs; with SE parameters without and with its biases, multiply-adds
# of its fully connected layers, elements squeezed.
ROWS = [
  ('vgg16_bn', {}, {}, 138_365_992, 8_448, 15_470_264_320,
   138_592_296, 138_596_784, 226_304, 13_547_520),
  ('vgg16_bn', {'conv_bias': False}, {}, 138_361_768, 8_448, 15_470_264_320,
   138_588_072, 138_592_560, 226_304, 13_547_520),
  ('mobilenet_v1', {}, {}, 4_231_976, 21_888, 568_740_352,
   4_711_720, 4_718_044, 479_744, 2_709_504),
  ('mobilenet_v1', {}, {'position': 'conv3x3'}, 4_231_976, 21_888, 568_740_352,
   4_580_776, 4_586_046, 348_800, 1_931_776),
  ('shufflenet_v1_g3', {}, {}, 1_865_728, 24_480, 137_460_672,
   2_476_144, 2_484_533, 610_416, 1_604_064),
  ('shufflenet_v1_g3', {}, {'position': 'post'}, 1_865_728, 24_480, 137_460_672,
   2_585_728, 2_594_908, 720_000, 1_693_440),
  ('shufflenet_v1_g3', {'bottleneck_of': 'branch'}, {}, 1_814_734, 23_736, 127_061_304,
   2_425_150, 2_433_539, 610_416, 1_604_064),
  ('shufflenet_v1_g3', {'bottleneck_of': 'branch'}, {'position': 'post'}, 1_814_734, 23_736,
   127_061_304, 2_534_734, 2_543_914, 720_000, 1_693_440),
]  # fmt: skip
NAMES = ('vgg16_bn', 'mobilenet_v1', 'shufflenet_v1_g3')
SE_NAMES = tuple(f'se_{name}' for name in NAMES)


def _row_id(row):
  return '-'.join((row[0], *row[1], *map(str, row[1].values()), *row[2].values()))


@pytest.mark.parametrize('kind', ['plain', 'no_bias', 'bias'])
@pytest.mark.parametrize('row', ROWS, ids=_row_id)
def test_networks_cost_what_independent_definitions_cost(row, kind):
  name, overrides, options, params, stats, macs, no_bias, bias, se_macs, squeezed = row
  if kind == 'plain':
    cost = complexity(create_model(name, **overrides), 224)
    assert (cost.params, cost.batch_stats, cost.macs) == (params, stats, macs)
    return
  se = SEConfig(use_bias=kind == 'bias', **options)
  cost = complexity(create_model(f'se_{name}', se=se, **overrides), 224)
  total = bias if se.use_bias else no_bias
  assert (cost.params, cost.batch_stats, cost.macs) == (total, stats, macs + se_macs)
  assert (cost.se_params, cost.se_macs) == (total - params, se_macs)
  assert (cost.se_weights, cost.squeezed_elements) == (no_bias - params, squeezed)
  # 216 channels over 16 is no integer; everywhere else equation 5 is exact.
  first = 2 * 216 * (216 / 16 - 216 // 16) if name.startswith('shuffle') else 0
  assert cost.equation_5 == se_macs + (first if options.get('position') != 'post' else 0)


@pytest.mark.parametrize(
  ('name', 'params'),
  [
    ('vgg16_bn', 138_365_992 - 990 * 4097),
    ('se_mobilenet_v1', 4_718_044 - 990 * 1025),
    ('se_shufflenet_v1_g3', 2_484_533 - 990 * 961),
  ],
)
def test_classes(name, params):
  assert count(tree_of(create_model(name, 10))['params']) == params


# The published width multipliers; parameters of timm's definitions (its `channel_multiplier`).
@pytest.mark.parametrize(
  ('width', 'params'), [(8, 470_072), (16, 1_331_592), (24, 2_585_560)], ids=['1/4', '1/2', '3/4']
)
def test_width_of_mobilenet(width, params):
  assert count(tree_of(create_model('mobilenet_v1', width=width))['params']) == params


# Channels and groups of table 1 of the ShuffleNet paper, with its complexity in millions.
@pytest.mark.parametrize(
  ('groups', 'width', 'macs'), [(1, 144, 143), (2, 200, 140), (4, 272, 133), (8, 384, 137)]
)
def test_groups_of_shufflenet(groups, width, macs):
  model = create_model('shufflenet_v1_g3', groups=groups, width=width)
  assert complexity(model, 224).macs / 1e6 == pytest.approx(macs, abs=1.5)


def test_pooling_to_the_classifier_of_vgg_has_no_macs():
  small, large = (complexity(create_model('vgg16_bn', width=8), size) for size in (224, 448))
  assert large.stages['head'] == small.stages['head']


@pytest.mark.parametrize(
  ('name', 'family', 'published', 'se_published'),
  [
    ('vgg16_bn', 'vgg', ('table_2', 27.02, 8.81, 15.47), ('table_2', 25.22, 7.70, 15.48)),
    (
      'mobilenet_v1',
      'mobilenet',
      ('table_3', 28.4, 9.4, 0.569, 4.2e6),
      ('table_3', 25.3, 7.7, 0.572, 4.7e6),
    ),
    (
      'shufflenet_v1_g3',
      'shufflenet',
      ('table_3', 32.6, 12.5, 0.140, 1.8e6),
      ('table_3', 31.0, 11.1, 0.142, 2.4e6),
    ),
  ],
)
def test_model_info(name, family, published, se_published):
  for full, (table, top1, top5, gflops, *params) in (
    (name, published),
    (f'se_{name}', se_published),
  ):
    info = model_info(full)
    assert (info.family, info.se) == (family, full != name)
    assert (info.image_size, info.num_classes, info.bn_epsilon) == (224, 1000, 1e-5)
    assert info.preprocessing.mean == (123.0, 117.0, 104.0)
    assert (info.preprocessing.std, info.preprocessing.resize) == ((1.0, 1.0, 1.0), 256)
    assert info.paper.startswith(table.replace('_', ' '))
    assert info.published[table] == {'top1_error': top1, 'top5_error': top5}
    assert (info.published['gflops'], [info.published.get('params')]) == (gflops, params or [None])


@pytest.mark.parametrize('name', SE_NAMES)
def test_variable_tree_does_not_depend_on(name):
  expected = tree_of(create_model(name))
  for options in (
    {'dtype': jnp.bfloat16},
    {'bn': BatchNormConfig(scope='ghost', ghost_size=32)},
    {'se': SEConfig(fused=False, squeeze='max', excitation='tanh')},
  ):
    assert tree_of(create_model(name, **options)) == expected
  model = create_model(name)
  images = jax.ShapeDtypeStruct((2, 75, 49, 3), jnp.uint8)
  init = functools.partial(model.init, train=True)
  assert jax.eval_shape(init, jax.random.key(0), images) == expected


GATES = {
  'se_vgg16_bn': {1: [64] * 2, 2: [128] * 2, 3: [256] * 3, 4: [512] * 3, 5: [512] * 3},
  'se_mobilenet_v1': {1: [64], 2: [128] * 2, 3: [256] * 2, 4: [512] * 6, 5: [1024] * 2},
  'se_shufflenet_v1_g3': {2: [216] + [240] * 3, 3: [240] + [480] * 7, 4: [480] + [960] * 3},
}


@pytest.mark.parametrize('stages', ['all', (2,), (3, 4)], ids=str)
@pytest.mark.parametrize('name', SE_NAMES)
def test_gates_go_by_stage_and_unit(name, stages):
  model = create_model(name, se=SEConfig(stages=stages))
  apply = functools.partial(model.apply, train=False, mutable=['intermediates'])
  _, new = jax.eval_shape(apply, tree_of(model), jnp.zeros((2, 32, 32, 3)))
  assert {k: v.shape for k, v in excitations(new['intermediates']).items()} == {
    f'SE_{stage}_{unit}': (2, channels)
    for stage, widths in GATES[name].items()
    for unit, channels in enumerate(widths, start=1)
    if stages == 'all' or stage in stages
  }


@pytest.mark.parametrize(
  ('position', 'channels'),
  [
    ('standard', [216, 240]),
    ('pre', [24, 240]),
    ('post', [240, 240]),
    ('identity', [24, 240]),
    ('conv3x3', [60, 60]),
  ],
)
def test_positions_of_shufflenet(position, channels):
  tree = tree_of(create_model('se_shufflenet_v1_g3', se=SEConfig(position=position)))
  units = [tree['params'][f'stage2_block{i}'] for i in (1, 2)]
  assert [unit['se']['fc2']['bias'].size for unit in units] == channels


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    ('se_vgg16_bn', {'se': SEConfig(position='pre')}, r"se\.position='pre' .*\(allowed: standard"),
    ('se_vgg16_bn', {'dropout': 1.0}, r'model\.dropout=1\.0 must be at least 0 and below 1'),
    ('se_vgg16_bn', {'conv_bais': True}, "did you mean 'conv_bias'"),
    ('se_mobilenet_v1', {'se': SEConfig(position='post')}, r"position='post' .*standard, conv3x3"),
    ('vgg16_bn', {'head': 'slide'}, r"model\.head='slide' is unknown; did you mean 'sliding'"),
    ('mobilenet_v1', {'activation': 'relu7'}, r"model\.activation='relu7' .*relu, relu6"),
    ('se_shufflenet_v1_g3', {'se': SEConfig(stages=(4, 5))}, r'se\.stages=5 .*allowed: 2, 3, 4\)'),
    ('shufflenet_v1_g3', {'groups': 7}, r'model\.groups=7 must divide .*\(240, 216, 60\)'),
    ('shufflenet_v1_g3', {'groups': 0}, r'model\.groups=0 must divide'),
    ('shufflenet_v1_g3', {'width': 24}, r'\(24, 0, 6\) in the first unit'),
    ('shufflenet_v1_g3', {'bottleneck_of': 'output'}, r"bottleneck_of='output' .*unit, branch"),
    ('shufflenet_v1_g3', {'pool_align': 'tf'}, r"model\.pool_align='tf'"),
  ],
)
def test_mistakes_are_named(name, options, message):
  with pytest.raises(UserError, match=message) as caught:
    create_model(name, **options)
  assert '\n' not in str(caught.value)


def test_images_that_are_too_small_for_vgg():
  images = jax.ShapeDtypeStruct((1, 64, 31, 3), jnp.float32)
  init = functools.partial(create_model('vgg16_bn').init, train=False)
  with pytest.raises(UserError, match=r'images of 64x31 pixels .*at least 32x32'):
    jax.eval_shape(init, jax.random.key(0), images)


# Forward and backward passes of small versions.

SMALL = {
  'se_vgg16_bn': {'width': 8, 'depths': (1,) * 5, 'fc_width': 16, 'conv_bias': False},
  'se_mobilenet_v1': {'width': 8, 'depths': (1,) * 5},
  'se_shufflenet_v1_g3': {'width': 24, 'stem_width': 12, 'depths': (2, 1, 1)},
}


def small(name, **options):
  return create_model(name, **{'num_classes': 5, 'se': SEConfig(ratio=2), **SMALL[name], **options})


DROPOUT = {'dropout': jax.random.key(2)}


@pytest.mark.parametrize('name', SE_NAMES)
def test_every_variable_takes_part_in_training(name):
  model, images = small(name), some_images(2, 64)
  variables = variables_of(model, images)
  _, (logits,), new, gradients = one_pass(model, variables, images, rngs=DROPOUT)
  assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
  check_takes_part(gradients)
  check_moved(new, variables)


@pytest.mark.parametrize('name', SE_NAMES)
def test_batch_of_one(name):
  model, images = small(name), some_images(2, 32)
  variables = variables_of(model, images)
  apply = jax.jit(functools.partial(model.apply, train=False))
  both = apply(variables, images)
  # Images do not see each other in evaluation, and one image has statistics to train on.
  spread = np.abs(both[0] - both[1]).max()
  assert np.abs(apply(variables, images[1:]) - both[1:]).max() < 1e-3 * spread
  _, (logits,), _, gradients = one_pass(model, variables, images[:1], rngs=DROPOUT)
  assert logits.shape == (1, 5)
  check_finite((gradients, logits))


@pytest.mark.thorough
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', [*NAMES, *SE_NAMES])
def test_dtypes_and_sizes(name, dtype):
  model = create_model(name, dtype=dtype)
  variables = tree_of(model)
  logits, new = jax.eval_shape(
    functools.partial(
      model.apply,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      rngs={'dropout': jax.random.key(0)},
      capture_intermediates=lambda module, _: 'block' in (module.name or ''),
    ),
    variables,
    jax.ShapeDtypeStruct((2, 224, 224, 3), dtype),
  )
  assert logits == jax.ShapeDtypeStruct((2, 1000), jnp.float32)
  kept = jax.tree.leaves(variables) + jax.tree.leaves(new['batch_stats'])
  assert {leaf.dtype for leaf in kept} == {jnp.dtype('float32')}
  outputs = {
    int(key[5]): value['__call__'][0]
    for key, value in new['intermediates'].items()
    if key.endswith('block1')
  }
  assert {output.dtype for output in outputs.values()} == {jnp.dtype(dtype)}
  stem = {'vgg': 2, 'mobilenet': 1, 'shufflenet': 1}[model_info(name).family]
  assert {s: x.shape[1:3] for s, x in outputs.items()} == {
    s: (224 * stem // 2**s // (2 if 'shuffle' in name else 1),) * 2 for s in outputs
  }


@pytest.mark.parametrize('name', SE_NAMES)
def test_bfloat16_logits(name):
  images = some_images(2, 32)
  full, half = small(name), small(name, dtype='bfloat16')
  variables = variables_of(full, images)
  expected, logits = (jax.jit(functools.partial(m.apply, train=False))(variables, images)
                      for m in (full, half))  # fmt: skip
  assert logits.dtype == jnp.float32
  assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()


def test_initialisation_keeps_the_scale_of_activations():
  model = create_model('mobilenet_v1', width=16)
  images = some_images(2, 64)
  variables = variables_of(model, images)
  kernel = variables['params']['stage5_block2']['depthwise_conv']['kernel']
  np.testing.assert_allclose(kernel.std(), math.sqrt(2 / 9), rtol=0.05)
  _, new = jax.jit(
    functools.partial(model.apply, train=False, capture_intermediates=True, mutable='intermediates')
  )(variables, images)
  # Thirteen variances for as many outputs as there are channels would leave 1e-25.
  assert np.square(new['intermediates']['stage5_block2']['__call__'][0]).mean() > 1e-5


def test_dropout_of_vgg():
  model, images = small('se_vgg16_bn', fc_width=512), some_images(2, 32)
  variables = variables_of(model, images)

  @functools.partial(jax.jit, static_argnames='train')
  def outputs(seed, train):
    _, new = model.apply(
      variables,
      images,
      train=train,
      mutable=['batch_stats', 'intermediates'],
      rngs={'dropout': jax.random.key(seed)},
      capture_intermediates=lambda module, _: (module.name or '').startswith('fc'),
    )
    return {name: value['__call__'][0].reshape(2, -1) for name, value
            in new['intermediates'].items() if name.startswith('fc')}  # fmt: skip

  for name in ('fc6', 'fc7'):
    for train in (True, False):
      found = outputs(0, train)
      active, dropped = jax.nn.relu(found[name]), found[f'{name}_dropout']
      share = np.mean((dropped == 0)[active > 0])
      assert abs(share - 0.5 * train) < 0.1
      np.testing.assert_allclose(dropped, np.where(dropped == 0, 0, active * (1 + train)))
  assert np.any(outputs(0, True)['fc'] != outputs(1, True)['fc'])
  assert np.array_equal(outputs(0, False)['fc'], outputs(1, False)['fc'])


def test_no_dropout_needs_no_random_numbers():
  model, images = small('se_vgg16_bn', dropout=0.0), some_images(2, 32)
  apply = functools.partial(model.apply, train=True, mutable=['batch_stats'])
  logits, _ = jax.eval_shape(apply, tree_of(model), images)
  assert logits.shape == (2, 5)


def test_channel_shuffle():
  x = jnp.arange(12.0).reshape(1, 1, 2, 6)
  expected = [[0, 2, 4, 1, 3, 5], [6, 8, 10, 7, 9, 11]]  # From groups 01 23 45.
  np.testing.assert_array_equal(channel_shuffle(x, 3)[0, 0], expected)
  # As torch has it: a transposition of groups and what is in them.
  transposed = np.asarray(x).reshape(1, 1, 2, 3, 2).swapaxes(3, 4).reshape(x.shape)
  np.testing.assert_array_equal(channel_shuffle(x, 3), transposed)


@pytest.mark.parametrize('size', [1, 2, 5, 7, 9, 14, 16])
def test_adaptive_mean(size):
  x = np.random.default_rng(0).standard_normal((2, size, 3, 4)).astype('f4')
  # The bins of torch's documentation: from floor(i size / 7) to ceil((i + 1) size / 7).
  bins = [x[:, i * size // 7 : -(-(i + 1) * size // 7)].mean(1) for i in range(7)]
  actual = _adaptive_mean(jnp.asarray(x), axis=1, bins=7)
  np.testing.assert_allclose(actual, np.stack(bins, 1), rtol=1e-5, atol=1e-6)


# The same weights in torch.


@pytest.mark.parametrize('size', [(224, 224), (64, 64), (75, 49), (288, 261)], ids=str)
def test_vgg_is_torchvisions(golden, size):
  model = create_model('vgg16_bn', 6, width=8, fc_width=24)
  compare(golden, model, random_images(3, *size), twin('plain.vgg'))


@pytest.mark.parametrize('size', [(256, 256), (160, 160), (300, 161)], ids=str)
def test_vgg_with_a_sliding_head_is_timms(golden, size):
  model = create_model('vgg16_bn', 6, width=8, head='sliding')
  compare(golden, model, random_images(3, *size), twin('plain.sliding_vgg'))


def test_se_vgg_is_torchvisions_with_se_behind_each_relu(golden):
  model = create_model('se_vgg16_bn', 6, width=8, fc_width=24, se=SEConfig(ratio=4))
  compare(golden, model, random_images(3, 64, 96), twin('plain.vgg', ratio=4))


@pytest.mark.parametrize(('activation', 'size'), [('relu', (75, 49)), ('relu6', (64, 64))], ids=str)
def test_mobilenet_is_timms(golden, activation, size):
  model = create_model('mobilenet_v1', 6, activation=activation)
  make = twin('plain.mobilenet', act_layer=activation)
  compare(golden, model, random_images(3, *size), make)


@pytest.mark.parametrize('position', ['standard', 'conv3x3'])
def test_se_mobilenet_is_timms_with_se(golden, position):
  model = create_model('se_mobilenet_v1', 6, activation='relu6', se=SEConfig(position=position))
  # Gates inside the units, one upon the other, leave 1.6e-4 of float32's rounding.
  tolerance = 3e-4 if position == 'conv3x3' else 1e-4
  make = twin('plain.mobilenet', ratio=16, position=position)
  compare(golden, model, random_images(3, 64, 64), make, tolerance)


@pytest.mark.parametrize(
  ('quarter', 'size'), [('unit', (75, 49)), ('unit', (64, 64)), ('branch', (64, 64))], ids=str
)
def test_shufflenet_is_an_independent_one(golden, quarter, size):
  model = create_model('shufflenet_v1_g3', 6, width=60, bottleneck_of=quarter)
  compare(golden, model, random_images(3, *size), twin('plain.shufflenet', 60, quarter=quarter))


@pytest.mark.parametrize('position', ['standard', 'pre', 'post', 'identity', 'conv3x3'])
def test_se_shufflenet_is_an_independent_one(golden, position):
  # Gate upon gate on the unit's output makes deeper networks sensitive to rounding, torch's too.
  depths, se = (2, 3, 1), SEConfig(ratio=4, position=position)
  model = create_model('se_shufflenet_v1_g3', 6, width=60, depths=depths, se=se)
  make = twin('plain.shufflenet', 60, depths, ratio=4, position=position)
  compare(golden, model, random_images(3, 64, 64), make)


GRADIENTS = {
  'se_vgg16_bn': ('plain.vgg', (), {'width': 8, 'fc_width': 24, 'dropout': 0.0}),
  'se_mobilenet_v1': ('plain.mobilenet', ((1,) * 5,), {'depths': (1,) * 5, 'activation': 'relu6'}),
  'se_shufflenet_v1_g3': ('plain.shufflenet', (60, (2, 2, 1)), {'width': 60, 'depths': (2, 2, 1)}),
}


@pytest.mark.parametrize('name', GRADIENTS)
def test_gradients_of_training(golden, name):
  make, arguments, options = GRADIENTS[name]
  model = create_model(name, 6, se=SEConfig(ratio=8), **options)
  make = twin(make, *arguments, ratio=8)
  found = compare_training(golden, model, random_images(4, 64, 64), make, calibrated=True)
  check_gradients(*found)


def test_list():
  assert {*NAMES, *SE_NAMES} <= set(list_models())
