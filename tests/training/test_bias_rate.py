"""Biases with a learning rate of their own, without decay, as in Caffe's networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from senet_jax import config as config_lib
from senet_jax.training.optimizer import make_optimizer


def test_biases_go_twice_as_far_and_do_not_decay():
  """Three steps of SGD with momentum against the law, with NumPy."""
  config = config_lib.default()
  config.optimizer.weight_decay, config.optimizer.decay_mask = 0.1, 'kernels'
  config.optimizer.bias_rate = 2.0
  optimizer = make_optimizer(config, lambda count: 0.5 / (1 + count))
  params = {'fc': {'kernel': jnp.array([1.0, -2.0]), 'bias': jnp.array([3.0])}}
  state, law = optimizer.init(params), {'kernel': np.array([1.0, -2.0]), 'bias': np.array([3.0])}
  velocity = {name: np.zeros_like(value) for name, value in law.items()}
  for count in range(3):
    gradient = {'kernel': np.array([0.3, 0.1]) + count, 'bias': np.array([0.7]) - count}
    updates, state = optimizer.update({'fc': jax.tree.map(jnp.asarray, gradient)}, state, params)
    params = optax.apply_updates(params, updates)
    for name, times, decay in (('kernel', 1.0, 0.1), ('bias', 2.0, 0.0)):
      velocity[name] = 0.9 * velocity[name] + gradient[name] + decay * law[name]
      law[name] = law[name] - times * 0.5 / (1 + count) * velocity[name]
    for name, value in law.items():
      np.testing.assert_allclose(params['fc'][name], value, rtol=1e-5)


def test_a_rate_of_one_leaves_the_state_as_it_was():
  config = config_lib.default()
  params = {'fc': {'kernel': jnp.ones(2), 'bias': jnp.ones(1)}}
  usual = make_optimizer(config, lambda count: 0.1).init(params)
  config.optimizer.bias_rate = 2.0
  assert len(make_optimizer(config, lambda count: 0.1).init(params)) == len(usual) + 1
