"""A small network of each kind: shapes, dtypes, both modes, and that every variable takes part."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.layers import BatchNormConfig, SEConfig
from senet_jax.models import create_model
from senet_jax.models.inception import ConvSpec
from tests.helpers.models import (
  as_shapes,
  check_finite,
  check_moved,
  one_pass,
  some_images,
  tree_of,
  variables_of,
)

INCEPTION = {
  'stem': (ConvSpec(6, 3, 2), 'max/2 caffe'),
  'stages': (
    (
      (
        (ConvSpec(4),),
        (ConvSpec(4), (ConvSpec(4, (1, 3)), ConvSpec(4, (3, 1)))),
        ('avg', ConvSpec(4)),
      ),
    ),
  )
  * 3,
}
# Side of the images and overrides.
NETWORKS = {
  'se_resnet18': (24, {'width': 8, 'depths': (1, 1)}),
  'se_resnet50': (24, {'width': 8, 'depths': (1, 1)}),
  'se_resnext50_32x4d': (24, {'width': 16, 'depths': (1, 1), 'groups': 4, 'group_width': 8}),
  'se_resnet20_cifar': (24, {'width': 8, 'depths': (1, 1)}),
  'se_resnet164_cifar': (24, {'width': 8, 'depths': (1, 1)}),
  'senet154': (24, {'width': 32, 'depths': (1, 1), 'groups': 4}),
  'se_wrn16_8': (24, {'width': 16, 'stem_width': 8, 'depths': (1, 1)}),
  'se_resnet46': (24, {'width': 8, 'depths': (1, 1), 'bottleneck': (False, True)}),
  'se_resnext29_8x64d': (24, {'width': 16, 'depths': (1, 1), 'groups': 2}),
  'se_shake_shake26_2x96d': (10, {'width': 8, 'stem_width': 4, 'depths': (1, 1)}),
  'se_shake_even29_2x4x64d': (10, {'width': 4, 'stem_width': 4, 'depths': (1, 1)}),
  'se_vgg16_bn': (64, {'width': 8, 'depths': (1,) * 5, 'fc_width': 16}),
  'se_mobilenet_v1': (64, {'width': 8, 'depths': (1,) * 5}),
  'se_shufflenet_v1_g3': (64, {'width': 24, 'stem_width': 12, 'depths': (2, 1, 1)}),
  'se_bn_inception': (17, INCEPTION),
  'se_inception_v3': (17, INCEPTION),
  'se_inception_v3_cifar': (17, INCEPTION),
  'se_inception_resnet_v2': (
    17,
    {**INCEPTION, 'depths': (1, 1, 1), 'aux': True, 'final': ()},
  ),
}
# The others take several seconds to compile.
QUICK = (
  'se_resnet18', 'se_resnet50', 'se_resnet20_cifar', 'se_vgg16_bn', 'se_mobilenet_v1',
  'se_shufflenet_v1_g3', 'se_bn_inception',
)  # fmt: skip
AUXILIARY = ('se_inception_v3', 'se_inception_v3_cifar', 'se_inception_resnet_v2')
WITH_DROPOUT = ('senet154', 'se_vgg16_bn', *AUXILIARY)


def small(name, **options):
  return create_model(name, 5, **{'se': SEConfig(ratio=2), **NETWORKS[name][1], **options})


@functools.cache
def built(name):
  """The network, its initial variables and two images."""
  images = some_images(2, NETWORKS[name][0])
  return small(name), variables_of(small(name), images), images


def rngs(key=2):
  return {'dropout': jax.random.key(key), 'shake': jax.random.key(key)}


@pytest.mark.parametrize(
  'name',
  [pytest.param(name, marks=() if name in QUICK else pytest.mark.thorough) for name in NETWORKS],
)
def test_training(name):
  model, variables, images = built(name)
  _, heads, new, gradients = one_pass(model, variables, images, rngs=rngs())
  assert [(x.shape, x.dtype) for x in heads] == [((2, 5), jnp.float32)] * (1 + (name in AUXILIARY))
  check_finite((heads, new, gradients))
  check_moved(new, variables)
  for path, gradient in jax.tree.leaves_with_path(gradients):
    *_, module, kind = (key.key for key in path)
    in_front_of_bn = kind == 'bias' and 'conv' in module  # has no effect in training
    assert np.abs(gradient).max() > 1e-9 or in_front_of_bn, f'{path} does not take part'


@pytest.mark.parametrize('name', NETWORKS)
def test_evaluation(name):
  model, variables, images = built(name)

  @functools.partial(jax.jit, static_argnums=0)
  def run(model, images):
    return model.apply(
      variables,
      images,
      train=False,
      mutable=['intermediates'],
      capture_intermediates=lambda module, _: 'block' in (module.name or ''),
    )

  both, found = run(model, images)
  assert (both.shape, both.dtype) == ((2, 5), jnp.float32)
  assert 'aux_logits' not in found['intermediates']
  assert np.abs(both[0] - both[1]).max() > 1e-4 * np.abs(both).max()
  # Images do not see each other.
  other, _ = run(model, images.at[0].multiply(-1))
  np.testing.assert_array_equal(other[1], both[1])
  half, found = run(model.clone(dtype=jnp.bfloat16), images)
  assert half.dtype == jnp.float32
  assert 0 < np.abs(half - both).max() < 0.05 * np.abs(both).max()
  outputs = [v['__call__'][0] for k, v in found['intermediates'].items() if '__call__' in v]
  assert outputs and {x.dtype for x in outputs} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize('name', NETWORKS)
def test_variables_depend_on_none_of(name):
  model, variables, images = built(name)
  expected = as_shapes(variables)
  assert {leaf.dtype for leaf in jax.tree.leaves(expected)} == {jnp.dtype('float32')}
  init = functools.partial(model.init, train=True)
  assert jax.eval_shape(init, jax.random.key(0), images) == expected
  for options in (
    {'dtype': jnp.bfloat16},
    {'bn': BatchNormConfig(scope='ghost', ghost_size=32)},
    {'bn': BatchNormConfig(frozen=True)},
    {'se': SEConfig(ratio=2, fused=False, squeeze='max', excitation='tanh')},
  ):
    assert tree_of(small(name, **options), len(images[0])) == expected


@pytest.mark.parametrize('name', WITH_DROPOUT)
def test_dropout(name):
  """In training; comparisons with torch see that evaluations have none."""
  _, variables, images = built(name)

  @functools.partial(jax.jit, static_argnums=0)
  def run(model, rngs):
    return model.apply(variables, images, train=True, rngs=rngs, mutable=['batch_stats'])[0]

  one, same, other = (run(small(name, dropout=0.5), rngs(key)) for key in (1, 1, 2))
  np.testing.assert_array_equal(one, same)
  assert np.abs(one - other).max() > 1e-3
  without = run(small(name, dropout=0.0), None)  # which needs no random numbers
  assert np.abs(without - one).max() > 1e-3


def test_averages_with_and_without_the_padding():
  model, variables, images = built('se_inception_v3')
  counted, not_counted = (
    model.clone(count_padding=count).apply(variables, images, train=False)
    for count in (True, False)
  )
  assert np.abs(counted - not_counted).max() > 1e-3
