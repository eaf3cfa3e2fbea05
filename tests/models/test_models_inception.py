"""Inception networks: their options, the same numbers as in torch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, SEConfig, excitations
from senet_jax.models import create_model
from senet_jax.models.inception import AuxHead, Layers
from tests.helpers.models import count, some_images, tree_of
from tests.helpers.parity import compare_evaluation, compare_training, twin


def test_auxiliary_head_of_inception_resnet():
  plain, aux = (tree_of(create_model('inception_resnet_v2', aux=a), 299) for a in (False, True))
  convolutions = 1088 * 128 + 2 * 128 + 5 * 5 * 128 * 768 + 2 * 768
  assert count(aux['params']) - count(plain['params']) == convolutions + 768 * 1000 + 1000
  assert count(aux['batch_stats']) - count(plain['batch_stats']) == 2 * (128 + 768)
  assert {**aux['params'], 'aux': None} == {**plain['params'], 'aux': None}


@pytest.mark.parametrize('side', [80, 107, 299])
def test_variables_depend_neither_on_the_size_nor_on_the_mode(side):
  model = create_model('se_inception_v3')
  images = jnp.zeros((1, side, side, 3))
  train = jax.eval_shape(lambda key: model.init(key, images, train=True), jax.random.key(0))
  assert train == tree_of(model, 75) == tree_of(create_model('se_inception_v3', dropout=0.0), 75)


@pytest.mark.parametrize(
  ('name', 'overrides', 'message'),
  [
    ('bn_inception', {'aux': True}, 'aux has no effect on bn_inception'),
    ('inception_v3', {'keras': True}, 'keras has no effect on inception_v3'),
    ('inception_v3', {'dropout': 1.0}, r'model\.dropout=1\.0'),
    ('inception_v3', {'auxx': True}, "did you mean 'aux'"),
    ('se_inception_v3', {'se': SEConfig(position='pre')}, r"model\.se\.position='pre'"),
    ('se_bn_inception', {'se': SEConfig(stages=2)}, r'model\.se\.stages=2 .*3, 4, 5'),
    ('se_inception_resnet_v2', {'se': SEConfig(position='conv3x3')}, 'standard, pre, post'),
    ('se_inception_resnet_v2', {'se': SEConfig(stages=(2, 3))}, r'model\.se\.stages=2'),
    ('inception_resnet_v2', {'se_mixed': True}, r'se_mixed=True needs squeeze'),
    (
      'se_inception_resnet_v2',
      {'se_mixed': True, 'se': SEConfig(position='post')},
      r"needs squeeze-and-excitation at model\.se\.position='standard'",
    ),
  ],
)
def test_mistakes_are_named(name, overrides, message):
  with pytest.raises(UserError, match=message) as caught:
    create_model(name, **overrides)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'least'),
  [('inception_v3', 75), ('inception_v3_cifar', 79), ('inception_resnet_v2', 75)],
)
def test_images_that_are_too_small(name, least):
  model = create_model(name)
  for height, width in ((least - 1, least), (least, least - 1), (32, 32)):
    images = jnp.zeros((1, height, width, 3))
    with pytest.raises(UserError, match=f'images of {height}x{width} .*at least {least}x{least}'):
      jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
  assert tree_of(model, least)  # one pixel is left


@pytest.mark.parametrize('size', [(1, 1), (33, 47), (100, 225)])
def test_bn_inception_takes_any_size(size):
  images = jnp.zeros((1, *size, 3))
  model = create_model('bn_inception')
  shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), images)
  assert shapes == tree_of(model)


@pytest.mark.parametrize(
  ('name', 'options', 'gates'),
  [
    ('se_bn_inception', {}, [(3, 3), (4, 5), (5, 2)]),
    ('se_inception_v3', {}, [(3, 3), (4, 5), (5, 3)]),
    ('se_inception_v3', {'se': SEConfig(stages=4)}, [(4, 5)]),
    ('se_inception_resnet_v2', {'depths': (1, 3, 2)}, [(3, 1), (4, 3), (5, 2)]),
    ('se_inception_resnet_v2', {'se': SEConfig(stages=(5,)), 'depths': (1, 1, 2)}, [(5, 2)]),
    (
      'se_inception_resnet_v2',
      {'se': SEConfig(position='identity'), 'depths': (2, 1, 1)},
      [(3, 2), (4, 1), (5, 1)],
    ),
  ],
)
def test_gates_by_the_names_of_the_paper(name, options, gates):
  model = create_model(name, **options)
  _, state = jax.eval_shape(
    functools.partial(model.apply, train=False, mutable=['intermediates']),
    tree_of(model, 75),
    jnp.zeros((2, 75, 75, 3)),
  )
  found = excitations(state['intermediates'])
  expected = [f'SE_{stage}_{block}' for stage, n in gates for block in range(1, n + 1)]
  assert list(found) == expected
  assert {gate.shape[0] for gate in found.values()} == {2}


def test_gates_of_the_modules_between_residual_blocks():
  model = create_model('se_inception_resnet_v2', depths=(1, 1, 1), se_mixed=True)
  _, state = jax.eval_shape(
    functools.partial(model.apply, train=False, mutable=['intermediates']),
    tree_of(model, 75),
    jnp.zeros((1, 75, 75, 3)),
  )
  shapes = {name: gate.shape for name, gate in excitations(state['intermediates']).items()}
  residual = {'SE_3_1': (1, 320), 'SE_4_1': (1, 1088), 'SE_5_1': (1, 2080)}
  mixed = {f'stage{name[3]}_mixed/se': shape for name, shape in residual.items()}
  assert shapes == {**residual, **mixed}


# The same weights in torch. Its layers and ours are matched by the order in which they run, and the
# outputs of all convolutions and fully connected layers are compared.


def noise(n, height, width):
  return np.random.default_rng(1).standard_normal((n, height, width, 3)).astype('f4')


def compare(golden, model, images, make, *args, **options):
  """Compares an evaluation; returns of how many layers."""
  make = twin(f'inception.{make}', model, images, *args, **options)
  return compare_evaluation(golden, model, images, make, calibrated=True) - 1


def compare_in_training(golden, model, images, make, *args, **options):
  """Compares the losses of all heads, and the gradients."""
  make = twin(f'inception.{make}', model, images, *args, **options)
  expected, actual = compare_training(golden, model, images, make, calibrated=True)
  found = []
  for path, number in expected.items():
    # A bias that the next BN takes away again has no gradient of its own to measure by.
    layer = path.rsplit('/', 1)[0]
    scale = max(n.scale for other, n in expected.items() if other.rsplit('/', 1)[0] == layer)
    found.append(number.error(actual[path]) / scale)
  # Where rounding decides which of two pixels a pooling takes, or whether a unit is on, all that
  # lies in front gets another gradient: torch's in float32 is as far from its own in float64. An
  # error in a layer would be one of the size of the gradient, for it and all in front of it.
  assert np.median(found) < 1e-3 and max(found) < 0.2, (np.median(found), max(found))


def test_bn_inception(golden):
  model = create_model('se_bn_inception', 10)
  compared = compare(golden, model, noise(3, 64, 96), 'bn_inception', 10, 16)
  assert compared == 3 + 8 * (7 + 2) + 2 * (5 + 2) + 1


def test_inception_v3(golden):
  model, images = create_model('se_inception_v3', 10, aux=False), noise(3, 107, 123)
  compared = compare(golden, model, images, 'inception_v3', 10, 16, aux_logits=False)
  assert compared == 94 + 11 * 2 + 1


@pytest.mark.slow
def test_inception_v3_in_training_at_its_size(golden):
  model, images = create_model('inception_v3', 10, dropout=0.0), noise(2, 299, 299)
  compare_in_training(golden, model, images, 'inception_v3', 10, train=True, aux_logits=True)


def layers(**options):
  options = {'keras': False, 'conv_bias': False, 'count_padding': True, **options}
  return Layers(BatchNormConfig(epsilon=1e-3), jnp.float32, **options)


def test_auxiliary_head(golden):
  head = AuxHead(10, layers())
  images = noise(4, 17, 23)[..., :2].copy()  # of as few channels as one likes
  compare_in_training(golden, head, images, 'auxiliary_head')


@pytest.mark.parametrize('size', [(3, 12), (12, 20)])
def test_auxiliary_head_sees_a_small_map_among_zeros(size):
  head, x = AuxHead(5, layers()), some_images(2, 20)[:, : size[0], : size[1]]
  missing = [max(17 - n, 0) for n in size]
  padded = jnp.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in missing), (0, 0)])
  variables = head.init(jax.random.key(0, impl='rbg'), x, train=False)
  expected = head.apply(variables, padded, train=False)
  assert expected.std(0).max() > 1e-4
  np.testing.assert_array_equal(head.apply(variables, x, train=False), expected)


def test_inception_v3_of_the_student_report(golden):
  # Maps of 5x5 in front of the auxiliary head, padded by one pixel in front and two behind.
  model = create_model('se_inception_v3_cifar', dropout=0.0)
  compare_in_training(golden, model, noise(4, 123, 123), 'inception_v3_keras', 10, 16, 4)


@pytest.mark.parametrize(('position', 'mixed'), [('standard', True), ('post', False)])
def test_inception_resnet(golden, position, mixed):
  depths, se = (2, 2, 2), SEConfig(position=position)
  model = create_model('se_inception_resnet_v2', 10, se=se, depths=depths, se_mixed=mixed)
  arguments = 10, depths, position, mixed
  compared = compare(golden, model, noise(3, 107, 91), 'inception_resnet', *arguments)
  assert compared == 5 + 7 + 2 * 7 + 4 + 4 * 5 + 7 + 1 + 1 + 2 * 6 + 2 * 3 * mixed


def test_inception_resnet_in_training(golden):
  depths = (1, 1, 2)
  model = create_model('inception_resnet_v2', 10, depths=depths, dropout=0.0)
  arguments = 10, depths, None, False
  compare_in_training(golden, model, noise(4, 107, 107), 'inception_resnet', *arguments, train=True)


@pytest.mark.slow
def test_inception_resnet_of_its_depth(golden):
  arguments = 1000, (10, 20, 10), None, False
  model = create_model('inception_resnet_v2')
  compare(golden, model, noise(2, 107, 107), 'inception_resnet', *arguments)


@pytest.mark.thorough
@pytest.mark.parametrize(
  'se',
  [
    SEConfig(squeeze='max'),
    SEConfig(squeeze='none'),
    SEConfig(excitation='tanh'),
    SEConfig(use_bias=False),
  ],
  ids=lambda se: f'{se.squeeze}-{se.excitation}-{se.use_bias}',
)
@pytest.mark.parametrize(
  ('name', 'options', 'weights'),
  [('bn_inception', {}, 639_360), ('inception_resnet_v2', {'depths': (1, 1, 1)}, 701_568)],
)
def test_se_options_reach_every_block(name, options, weights, se):
  cost = complexity(create_model(name, se=se, **options), 75)
  plain = complexity(create_model(name, **options), 75)
  assert cost.params - plain.params == cost.se_params
  assert cost.se_weights == weights
  assert (cost.squeezed_elements == 0) == (se.squeeze == 'none')
