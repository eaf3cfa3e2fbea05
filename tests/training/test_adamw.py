"""AdamW against its definition in float64 (Loshchilov and Hutter 2019, algorithm 2)."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from senet_jax import config as config_lib
from senet_jax.training.optimizer import make_optimizer

RATE, DECAY = 0.1, 0.05


@pytest.mark.parametrize('mask', ['all', 'kernels'])
def test_weights_decay_apart_from_the_gradient(mask):
  config = config_lib.default()
  config.optimizer.update({'name': 'adamw', 'weight_decay': DECAY, 'decay_mask': mask})
  optimizer = make_optimizer(config, optax.constant_schedule(RATE))
  rng = np.random.default_rng(0)
  weights = {'kernel': rng.normal(size=4), 'scale': rng.normal(size=3)}
  params = {key: jnp.float32(w) for key, w in weights.items()}
  state = optimizer.init(params)
  first, second = ({key: np.zeros_like(w) for key, w in weights.items()} for _ in range(2))
  for t in range(1, 6):
    gradient = {key: rng.normal(size=w.shape) for key, w in weights.items()}
    given = {key: jnp.float32(g) for key, g in gradient.items()}
    updates, state = optimizer.update(given, state, params)
    params = optax.apply_updates(params, updates)
    for key, g in gradient.items():
      first[key] = 0.9 * first[key] + 0.1 * g
      second[key] = 0.999 * second[key] + 0.001 * g**2
      step = first[key] / (1 - 0.9**t) / (np.sqrt(second[key] / (1 - 0.999**t)) + 1e-8)
      decay = DECAY if mask == 'all' or key == 'kernel' else 0.0
      weights[key] = weights[key] - RATE * (step + decay * weights[key])
  for key, w in weights.items():
    np.testing.assert_allclose(params[key], w, rtol=1e-4, atol=1e-5)
