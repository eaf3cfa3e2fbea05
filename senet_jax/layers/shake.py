"""The stochastic mix of two branches (Gastaldi 2017, "Shake-Shake regularization")."""

import jax
import jax.numpy as jnp

from senet_jax import errors
from senet_jax.layers.derivatives import own_gradient

BACKWARDS = ('shake', 'even')


def shake(
  a: jax.Array, b: jax.Array, rng: jax.Array | None, train: bool, backward: str = 'shake'
) -> jax.Array:
  """Mixes two branches: α a + (1 - α) b.

  In training each image has an α of its own, uniform on 0 to 1, and the gradient passes through
  β and 1 - β instead; in evaluation α is 0.5.

  Args:
    a: `[N, ...]`, of any float dtype.
    b: the same shape and dtype.
    rng: the key that the coefficients are drawn with; evaluation needs none.
    train: whether to draw.
    backward: `shake`, a β for each image, drawn like α and independent of it, or `even`, 0.5.

  Returns:
    The mix, of the shape and dtype of `a`.

  Raises:
    UserError: `backward` is unknown, or training has no `rng`.
  """
  errors.one_of('model.backward', backward, BACKWARDS)
  if not train:
    return 0.5 * (a + b)
  if rng is None:
    raise errors.UserError('shake draws coefficients in training: rng=None must be a key.')
  forward_rng, backward_rng = jax.random.split(rng)
  shape = (a.shape[0], *(1,) * (a.ndim - 1))
  alpha = jax.random.uniform(forward_rng, shape)
  beta = jax.random.uniform(backward_rng, shape) if backward == 'shake' else jnp.full(shape, 0.5)
  return _mix(a, b, alpha, beta)


@own_gradient
def _mix(a: jax.Array, b: jax.Array, alpha: jax.Array, beta: jax.Array) -> jax.Array:
  """Returns α a + (1 - α) b, whose gradient is that of β a + (1 - β) b."""
  del beta
  return alpha.astype(a.dtype) * a + (1 - alpha).astype(b.dtype) * b


def _forward(a, b, alpha, beta):
  return _mix(a, b, alpha, beta), beta


def _backward(beta, gradient):
  of_a, of_b = (share.astype(gradient.dtype) * gradient for share in (beta, 1 - beta))
  none = jnp.zeros_like(beta)  # The coefficients are drawn, not learnt.
  return of_a, of_b, none, none


_mix.defvjp(_forward, _backward)
