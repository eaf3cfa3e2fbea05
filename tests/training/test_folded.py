"""Networks without BN statistics get some, and compute what they did."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from senet_jax import runtime
from senet_jax.training import folded
from senet_jax.training.classification import Classification
from tests.helpers.small_run import configured


@pytest.fixture
def folded_network():
  """A network of convolutions and biases, and the data of its run on one device."""
  config = configured(
    {
      'model.name': 'se_resnet20_cifar',
      'model.depths': (1, 1, 1),
      'data.name': 'digits',
      'batch_size': 64,
    }
  )
  task = Classification(config)
  feeds = task.open(runtime.data_mesh(1))
  model = task.build_model(feeds)
  first = functools.partial(feeds.train.batch, step=jnp.int32(0))
  specs = (feeds.train.input_spec,), PartitionSpec()
  batch = runtime.data_parallel(first, feeds.mesh, *specs)(feeds.train.inputs(0, 1)[0])
  images = batch['images']
  variables = model.init(jax.random.key(0), images, train=False)
  rng = np.random.default_rng(0)
  params = jax.tree.map_with_path(
    lambda path, x: x + 0.3 * rng.standard_normal(x.shape) if path[-1].key == 'bias' else x,
    variables['params'],
  )
  return model, feeds, {**variables, 'params': params}, images


def test_it_computes_what_it_did_and_so_does_training(folded_network):
  model, feeds, variables, images = folded_network
  assert folded.is_folded(variables)
  made = folded.with_statistics(model, feeds, variables)
  assert jax.tree.structure(made) == jax.tree.structure(variables)
  assert not folded.is_folded(made)
  before = model.apply(variables, images, train=False)
  spread = np.std(before)
  assert np.abs(model.apply(made, images, train=False) - before).max() < 1e-4 * spread
  # The statistics of this batch are those of BN, so that training begins with the same function.
  trained, _ = model.apply(made, images, train=True, mutable=['batch_stats'])
  assert np.abs(trained - before).max() < 1e-2 * spread
  astray, _ = model.apply(variables, images, train=True, mutable=['batch_stats'])
  assert np.abs(astray - before).max() > 0.3 * spread


def test_a_trained_network_is_not_folded(folded_network):
  _, _, variables, _ = folded_network
  leaves, tree = jax.tree.flatten(variables['batch_stats'])
  leaves[0] = leaves[0] + 0.1
  assert not folded.is_folded({**variables, 'batch_stats': jax.tree.unflatten(tree, leaves)})
