"""Networks under derivatives that JAX cannot take through gradients of our own."""

import functools

import jax
import jax.numpy as jnp
import pytest

from senet_jax.layers import plain_derivatives
from senet_jax.models import create_model

SMALL = {
  'se_resnet20_cifar': {'depths': (1, 1, 1), 'width': 8},
  'se_resnet18': {'depths': (1, 1), 'width': 8},  # max pooling
  'se_resnext50_32x4d': {'depths': (1,), 'width': 16},  # groups
  'mobilenet_v1': {'depths': (1, 1), 'width': 8},  # depthwise
}


def loss_of(name, train):
  """The loss of a small network, and its parameters."""
  model = create_model(name, 4, **SMALL[name])
  images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
  variables = model.init(jax.random.key(0), images, train=False)

  def loss(params):
    out = model.apply(
      {**variables, 'params': params}, images, train=train,
      **({'mutable': ['batch_stats']} if train else {}),
    )  # fmt: skip
    logits = out[0] if train else out
    return -jax.nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4)].mean()

  return loss, variables['params']


def dot(a, b):
  return sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('name', SMALL)
def test_forward_mode_and_hessian_vector_products(name, train):
  loss, params = loss_of(name, train)
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  leaves = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
  direction = jax.tree.unflatten(tree, leaves)
  gradient = jax.jit(jax.grad(loss))  # traced before, with the gradients of our own
  expected = gradient(params)

  @jax.jit
  def derivatives(params):
    slope = jax.jvp(loss, (params,), (direction,))[1]
    return slope, *jax.jvp(jax.grad(loss), (params,), (direction,))

  with pytest.raises(TypeError, match='custom_vjp'):
    derivatives(params)
  with plain_derivatives():
    slope, same, curved = derivatives(params)
  assert jnp.allclose(slope, dot(expected, direction), rtol=1e-3, atol=1e-5)
  scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
  error = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), same, expected)
  assert max(jax.tree.leaves(error)) < 1e-4 * scale
  # The product, against differences of the gradient of our own.
  step = 1e-3
  moved = [jax.tree.map(lambda p, d, s=s: p + s * d, params, direction) for s in (step, -step)]
  numeric = jax.tree.map(lambda a, b: (a - b) / (2 * step), *map(gradient, moved))
  cosine = dot(numeric, curved) / jnp.sqrt(dot(numeric, numeric) * dot(curved, curved))
  assert cosine > 0.98


def test_the_context_ends_and_values_stay():
  loss, params = loss_of('se_resnet20_cifar', True)
  value = functools.partial(jax.jit(loss), params)
  before = value()
  with plain_derivatives():
    inside = value()
  assert jnp.allclose(before, inside, rtol=1e-6)
  with pytest.raises(TypeError, match='custom_vjp'):
    jax.jvp(loss, (params,), (params,))
