"""SENet-154, the wide network, the student report's: options, independent definitions."""

import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import SEConfig
from senet_jax.models import create_model
from tests.helpers.models import count, tree_of, variables_of
from tests.helpers.parity import check_gradients, compare_evaluation, compare_training, twin
from tests.helpers.weights import random_images


def test_resnext29_as_published():
  """Without a stride and a pooling in the stem, and without biases: 34.4 million parameters."""
  model = create_model(
    'resnext29_8x64d', stem='cifar', keras=False, shortcut='projection', num_classes=10
  )
  assert count(tree_of(model)['params']) == 34_426_698


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
  cost = complexity(create_model('se_resnet46', se=se), 32)
  assert {row.path.split('/')[0] for row in cost.layers if row.se} == {
    f'stage4_block{block}' for block in range(1, 9)
  }
  assert cost.se_weights == 8 * 2 * 256 * 256 // 16


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
