"""Variables, counts and inputs for the tests of networks."""

import functools

import jax
import jax.numpy as jnp


@functools.cache
def tree_of(model, side=32):
  """The variables' shapes and dtypes; nothing is computed."""
  x = jnp.zeros((1, side, side, 3))
  return jax.eval_shape(lambda key: model.init(key, x, train=False), jax.random.key(0))


def count(tree):
  return sum(leaf.size for leaf in jax.tree.leaves(tree))


def variables_of(model, x):
  """Initial variables; XLA compiles this kind of key far faster than the default one."""
  return jax.jit(functools.partial(model.init, train=False))(jax.random.key(0, impl='rbg'), x)


def some_images(n, size):
  return jax.random.normal(jax.random.key(1), (n, size, size, 3))
