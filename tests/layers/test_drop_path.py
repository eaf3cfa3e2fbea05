"""Stochastic depth: its law, its rates by unit, and that devices change nothing; units again."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from senet_jax import config as config_lib, runtime
from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, DropPath, SEConfig
from senet_jax.models import create_model
from senet_jax.training.classification import Classification
from senet_jax.training.step import StepOptions, train_step
from senet_jax.workdir import network
from senet_jax.workdir.state import TrainState
from tests.helpers.models import tree_of


def test_images_skip_the_branch_or_have_more_of_it():
  y = np.random.default_rng(0).normal(size=(4000, 1, 1, 2)).astype(np.float32)
  layer = DropPath(0.3)
  found = np.asarray(layer.apply({}, y, True, rngs={'drop_path': jax.random.key(0)}))
  kept = found.any((1, 2, 3))
  assert kept.mean() == pytest.approx(0.7, abs=0.03)
  np.testing.assert_allclose(found[kept], y[kept] / 0.7, rtol=1e-6)
  np.testing.assert_array_equal(layer.apply({}, y, False), y)


def test_devices_skip_images_by_their_place_in_the_whole_batch():
  run = lambda y: DropPath(0.5).apply({}, y, True, rngs={'drop_path': jax.random.key(0)})  # noqa: E731
  y = jnp.ones((16, 1, 1, 1))
  one, eight = (
    runtime.data_parallel(run, runtime.data_mesh(devices), P('data'), P('data'))(y)
    for devices in (1, 8)
  )
  np.testing.assert_array_equal(one, eight)
  assert 0 < one.mean() < 2


def test_rates_rise_with_the_unit():
  """As timm's: 0 at the first unit, the whole at the last, linear between them."""
  model = create_model('se_resnet50', drop_path=0.15)
  rates = []

  def note(method, args, options, context):
    if isinstance(context.module, DropPath):
      rates.append(context.module.rate)
    return method(*args, **options)

  with nn.intercept_methods(note):
    tree_of(model)
  np.testing.assert_allclose(rates, np.linspace(0, 0.15, 16)[1:])


def small(**options):
  return create_model(
    'se_resnet20_cifar', depths=(2,), width=8, se=SEConfig(ratio=4),
    bn=BatchNormConfig(scope='global'), **options,
  )  # fmt: skip


def stepped(model, devices: int, batch):
  optimizer = optax.sgd(1.0)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
  step = jnp.zeros((), jnp.int32)
  state = TrainState(step=step, opt_state=optimizer.init(variables['params']), **variables)
  task = Classification(config_lib.default())
  step = functools.partial(
    train_step, task=task, model=model, optimizer=optimizer, options=StepOptions()
  )
  mesh = runtime.data_mesh(devices)
  return runtime.data_parallel(step, mesh, (P(), P('data')), P())(state, batch)[0]


@pytest.mark.thorough
def test_devices_skip_the_same_units_and_remat_changes_nothing():
  rng = np.random.default_rng(0)
  images = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)
  batch = {'images': images, 'labels': rng.integers(0, 10, 16).astype(np.int32)}
  one = stepped(small(drop_path=0.5), 1, batch)
  eight = stepped(small(drop_path=0.5, remat=(2,)), 8, batch)
  for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(eight.variables), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_fields_of_a_configuration():
  config = config_lib.default()
  config.model.name, config.model.drop_path, config.model.remat = 'se_resnet50', 0.05, (3, 4)
  assert (network.build_model(config).drop_path, network.build_model(config).remat) == (
    0.05,
    (3, 4),
  )
  config.model.name = 'se_vgg16_bn'
  with pytest.raises(UserError, match='drop_path'):
    network.build_model(config)
  with pytest.raises(UserError, match=r'model\.remat=5 .*These are its stages'):
    create_model('resnet20_cifar', remat=(5,))
