"""Variables, counts and inputs for the tests of networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def first_class(heads):
  """The sum over heads of the cross-entropy with class 0, of our logits or those of torch."""
  return sum((_logsumexp(head) - head[:, 0]).mean() for head in heads)


def _logsumexp(logits):
  return jax.nn.logsumexp(logits, -1) if isinstance(logits, jax.Array) else logits.logsumexp(-1)


def one_pass(model, variables, images, *, train=True, rngs=None):
  """The loss of `first_class`, all logits, the new state, and the gradients of the parameters."""

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def run(params, images, rngs):
    logits, new = model.apply(
      {**variables, 'params': params},
      images,
      train=train,
      mutable=['batch_stats', 'intermediates'],
      rngs=rngs,
    )
    heads = [logits, *new.get('intermediates', {}).get('aux_logits', ())]
    return first_class(heads), (heads, new)

  (loss, (heads, new)), gradients = run(variables['params'], images, rngs)
  return loss, heads, new, gradients


def check_finite(tree):
  for path, leaf in jax.tree.leaves_with_path(tree):
    assert np.isfinite(leaf).all(), path


def check_moved(new, variables):
  """Each of the running statistics is another one."""
  moved = jax.tree.map(
    lambda a, b: bool(np.any(a != b)), new['batch_stats'], variables['batch_stats']
  )
  for path, value in jax.tree.leaves_with_path(moved):
    assert value, f'{path} is not updated'


def as_shapes(tree):
  return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), tree)


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
