"""Stages run as loops over stacked variables compute what the units one after the other do."""

import jax
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, SEConfig, add_squeeze_excite, excitations
from senet_jax.models import create_model

OPTIONS = {'width': 8, 'depths': (4, 3), 'num_classes': 5, 'se': SEConfig(ratio=4)}


def results(name, **options):
  """Variables, and what a training step and an evaluation of them give."""
  model = create_model(name, **OPTIONS, **options)
  images = jax.random.normal(jax.random.key(0), (2, 16, 16, 3))
  variables = model.init(jax.random.key(1), images, train=False)

  @jax.jit
  def run(variables):
    def loss(params):
      logits, state = model.apply(
        {**variables, 'params': params},
        images,
        train=True,
        mutable=['batch_stats', 'intermediates'],
      )
      return (logits**2).sum(), (logits, state['batch_stats'], excitations(state['intermediates']))

    gradients = jax.grad(loss, has_aux=True)(variables['params'])
    return gradients, model.apply(variables, images, train=False)

  return variables, run(variables)


@pytest.mark.parametrize('name', ['se_resnet50', 'se_resnet164_cifar'])
def test_equals_the_units_one_after_the_other(name):
  unrolled, scanned = results(name), results(name, scan_blocks=True)
  assert jax.tree.structure(unrolled) == jax.tree.structure(scanned)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
  jax.tree.map(close, unrolled, scanned)


def test_frozen_units_must_be_alike():
  model = create_model(
    'resnet18',
    width=8,
    depths=(4,),
    scan_blocks=True,
    bn=BatchNormConfig(frozen=('stage2_block2',)),
  )
  images = np.zeros((1, 16, 16, 3), np.float32)
  variables = model.init(jax.random.key(0), images, train=False)
  with pytest.raises(UserError, match='scan_blocks=True runs all units of stage 2 alike'):
    model.apply(variables, images, train=True, mutable=['batch_stats'])


def test_no_blocks_can_be_added():
  with pytest.raises(UserError, match='scan_blocks=True runs units without their names'):
    add_squeeze_excite(create_model('resnet50', scan_blocks=True), 'stage2_*/bn3')
