"""VGG, MobileNet and ShuffleNet: their options, the same numbers as in torch."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import SEConfig, excitations
from senet_jax.models import create_model
from senet_jax.models.shufflenet import channel_shuffle
from senet_jax.models.vgg import adaptive_mean
from tests.helpers.models import count, some_images, tree_of, variables_of
from tests.helpers.parity import check_gradients, compare_evaluation, compare_training, twin
from tests.helpers.weights import random_images

compare = functools.partial(compare_evaluation, calibrated=True)

SE_NAMES = ('se_vgg16_bn', 'se_mobilenet_v1', 'se_shufflenet_v1_g3')


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


def test_initialisation_of_the_hidden_layers_of_vgg():
  model = create_model('vgg16_bn', 5, width=8, depths=(1,) * 5, fc_width=256)
  params = variables_of(model, some_images(1, 32))['params']
  for name in ('fc6', 'fc7'):
    kernel = params[name]['kernel']
    np.testing.assert_allclose(kernel.var(), 2 / kernel.shape[0], rtol=0.05)


def test_dropout_of_vgg():
  model, images = (
    create_model('se_vgg16_bn', 5, se=SEConfig(ratio=2), width=8, depths=(1,) * 5, fc_width=512),
    some_images(2, 32),
  )
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
  actual = adaptive_mean(jnp.asarray(x), axis=1, bins=7)
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
