"""Whole networks in the forms that are compiled for accelerators, run on a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax import layers
from senet_jax.layers.conv import pointwise_mean
from senet_jax.models import create_model


@pytest.fixture
def take_forms_of(monkeypatch):
  """Returns a function after which `jax.lax.platform_dependent` takes a platform's form."""

  def take(platform):
    def chosen(*arguments, default=None, **forms):
      return forms.get(platform, default)(*arguments)

    jax.clear_caches()  # of what was traced with other forms
    monkeypatch.setattr(jax.lax, 'platform_dependent', chosen)

  yield take
  jax.clear_caches()


def _run(name, images, train, **options):
  model = create_model(name, num_classes=5, **options)
  shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  rng = np.random.default_rng(0)

  def drawn(leaf):
    values = rng.standard_normal(leaf.shape, np.float32)
    fan_in = np.prod(leaf.shape[:-1])
    return values * (2 / fan_in) ** 0.5 if leaf.ndim > 1 else 0.5 + np.abs(values)

  variables = jax.tree.map(drawn, dict(shapes))

  def loss(params):
    logits, _ = model.apply(
      {**variables, 'params': params}, images, train=train, mutable=['batch_stats']
    )
    return jax.nn.logsumexp(logits, -1).sum(), logits

  if train:
    return jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  return {}, jax.jit(loss)(variables['params'])[1]


@pytest.mark.parametrize(
  ('platform', 'name', 'train', 'options'),
  [('cuda', 'se_resnet50', True, {}), ('cuda', 'se_resnet50', False, {'keras': True}),
   ('tpu', 'se_resnet50', False, {}),
   ('cuda', 'senet154', False, {'width': 32, 'groups': 1})],
  ids=['training', 'biases', 'tpu', 'deep_stem'],
)  # fmt: skip
def test_networks_are_the_same(take_forms_of, platform, name, train, options):
  options = {'width': 8, 'stem_width': 8, 'depths': (1, 1), **options}
  images = jax.random.normal(jax.random.key(1), (4, 24, 32, 3))
  grads, logits = _run(name, images, train, **options)
  take_forms_of(platform)
  other_grads, other_logits = _run(name, images, train, **options)
  assert 0 < np.abs(logits - other_logits).max() < 1e-4 * np.abs(logits).max()  # other programs
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(other_grads), strict=True):
    assert np.linalg.norm(a - b) < 1e-3 * np.linalg.norm(a) + 1e-5


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_mean_of_a_pointwise_convolution(dtype, bias):
  class Behind(nn.Module):
    @nn.compact
    def __call__(self, x):
      convolution = layers.conv(24, 1, use_bias=bias, dtype=dtype, bias_init=nn.initializers.ones)
      convolution(x)
      return pointwise_mean(convolution, x)

  x = jax.random.normal(jax.random.key(0), (3, 7, 5, 8), dtype)
  mean, variables = Behind().init_with_output(jax.random.key(1), x)
  kernel = variables['params']['Conv_0']['kernel'].astype(dtype)
  exact = np.asarray(x, np.float64) @ np.asarray(kernel, np.float64)[0, 0] + bias
  assert mean.shape == (3, 1, 1, 24) and mean.dtype == jnp.float32
  np.testing.assert_allclose(mean, exact.mean((1, 2), keepdims=True), atol=1e-6)
