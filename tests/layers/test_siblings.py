"""Effective SE and gather-excite: equal to timm's, on the seam of every residual network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import SEConfig
from senet_jax.layers.effective_squeeze_excite import EffectiveSqueezeExcite
from senet_jax.layers.gather_excite import GatherExcite
from senet_jax.models import create_model
from tests.helpers.parity import twin
from tests.helpers.weights import random_variables, shapes_of

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = RNG.normal(1, 2, (2, 5, 6, 24))
IMAGES = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)


def test_effective_se_equals_timm(golden):
  weight, bias = RNG.normal(0, 0.5, (24, 24)), RNG.normal(size=24)
  block = EffectiveSqueezeExcite()
  params = {'fc': {'kernel': jnp.float32(weight), 'bias': jnp.float32(bias)}}
  shapes = block.init(jax.random.key(0), jnp.float32(X))
  assert jax.tree.map(jnp.shape, shapes['params']) == jax.tree.map(jnp.shape, params)
  y, sown = block.apply({'params': params}, jnp.float32(X), mutable=['intermediates'])
  theirs = golden(twin('layers.effective_squeeze_excite', X, weight, bias))
  theirs['y'].check(y, 1e-5)
  gate = np.clip(X.mean((1, 2)) @ weight + bias + 3, 0, 6) / 6
  np.testing.assert_allclose(sown['intermediates']['excitation'][0], gate, rtol=1e-5, atol=1e-6)
  assert (gate == 0).any() or (gate == 1).any()


def test_gather_excite_equals_timm(golden):
  y, sown = GatherExcite().apply({}, jnp.float32(X), mutable=['intermediates'])
  golden(twin('layers.gather_excite', X))['y'].check(y, 1e-5)
  gate = 1 / (1 + np.exp(-X.mean((1, 2))))
  np.testing.assert_allclose(sown['intermediates']['excitation'][0], gate, rtol=1e-5, atol=1e-6)


def test_they_replace_se_and_cost_what_they_say():
  plain = complexity(create_model('resnet50'), 224)
  ese = complexity(create_model('se_resnet50', attention='ese'), 224)
  ge = complexity(create_model('se_resnet50', attention='ge'), 224)
  widths = [(3, 256), (4, 512), (6, 1024), (3, 2048)]
  assert ese.params == plain.params + sum(n * (c * c + c) for n, c in widths)
  assert ge.params == plain.params and ge.macs == plain.macs
  assert ese.equation_5 == sum(n * c * c for n, c in widths)


def test_fused_or_not_the_same_numbers():
  """In a network; where there is nothing to learn the variables are those without attention."""
  small = {'width': 16, 'depths': (1,), 'num_classes': 5}
  plain = jax.eval_shape(lambda: create_model('resnet50', **small).init(KEY, IMAGES, train=False))
  for kind in ('ese', 'ge'):
    fused, apart = (
      create_model('se_resnet50', se=SEConfig(fused=fused), attention=kind, **small)
      for fused in (True, False)
    )
    variables = random_variables(shapes_of(fused, IMAGES, False))
    results = [
      jax.jit(functools.partial(m.apply, train=True, mutable=['batch_stats']))(variables, IMAGES)[0]
      for m in (fused, apart)
    ]
    np.testing.assert_allclose(*results, rtol=1e-4, atol=1e-5)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, plain)


def test_options_that_they_do_not_read():
  with pytest.raises(UserError, match=r"ratio=8 has no effect with model\.attention='ese'"):
    create_model('se_resnet18', attention='ese', se=SEConfig(ratio=8))
