"""Networks under derivatives that JAX cannot take through gradients of our own."""

import functools

import jax
import jax.numpy as jnp
import pytest

from senet_jax.layers import SEConfig, plain_derivatives
from senet_jax.models import create_model

pytestmark = pytest.mark.thorough

SMALL = {
  'se_resnet20_cifar': {'depths': (1, 1), 'width': 4, 'se': SEConfig(ratio=2)},
  'se_resnet18': {'depths': (1,), 'width': 4, 'se': SEConfig(ratio=2)},  # max pooling
  'resnext50_32x4d': {'depths': (1,), 'width': 16},  # groups
  'mobilenet_v1': {'depths': (1,), 'width': 4},  # depthwise
}


def loss_of(name, train):
  """The loss of a small network, and its parameters."""
  model = create_model(name, 4, **SMALL[name])
  images = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), images)

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


@pytest.mark.parametrize(
  ('name', 'train'), [*((name, True) for name in SMALL), ('se_resnet18', False)]
)
def test_forward_mode_and_hessian_vector_products(name, train):
  """Against the gradients of our own, which can be differentiated backwards a second time."""
  loss, params = loss_of(name, train)
  leaves, tree = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(2), len(leaves))
  leaves = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
  direction = jax.tree.unflatten(tree, leaves)
  twice = jax.grad(lambda p: dot(jax.grad(loss)(p), direction))
  own = jax.jit(lambda p: (jax.grad(loss)(p), twice(p)))
  gradient, product = own(params)

  @jax.jit
  def derivatives(params):
    slope = jax.jvp(loss, (params,), (direction,))[1]
    return slope, *jax.jvp(jax.grad(loss), (params,), (direction,))

  with pytest.raises(TypeError, match='custom_vjp'):
    derivatives(params)
  with plain_derivatives():
    slope, same, curved = derivatives(params)
  size = jnp.sqrt(dot(gradient, gradient) * dot(direction, direction))
  assert abs(slope - dot(gradient, direction)) < 1e-4 * size
  for actual, expected in ((same, gradient), (curved, product)):
    difference = jax.tree.map(jnp.subtract, actual, expected)
    assert dot(difference, difference) < 1e-6 * dot(expected, expected)


def test_the_context_ends_and_values_stay():
  loss, params = loss_of('se_resnet20_cifar', True)
  value = functools.partial(jax.jit(loss), params)
  before = value()
  with plain_derivatives():
    inside = value()
  assert jnp.allclose(before, inside, rtol=1e-6)
  with pytest.raises(TypeError, match='custom_vjp'):
    jax.jvp(loss, (params,), (params,))
