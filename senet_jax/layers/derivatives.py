"""Functions with gradients of their own, and the way around those gradients.

Normalisation, convolution and pooling have gradients that move fewer bytes than JAX's. JAX cannot
differentiate such a function forward (`jax.jvp`, Hessian-vector products, `jax.linearize`); under
`plain_derivatives` it sees the functions without their gradients, and can.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax

# A part of the keys of JAX's caches, so that no function traced outside is taken inside.
_plain = jax.make_user_context(default_value=False)


@contextlib.contextmanager
def plain_derivatives() -> Iterator[None]:
  """Within it, networks are differentiated by JAX alone, in every mode.

  The values are the same; a training step is slower and takes more memory. Shake-Shake's branches
  have the gradient of their mix then, not that of coefficients drawn for the way back.

  >>> with plain_derivatives():
  ...   hessian_vector = jax.jvp(jax.grad(loss), (params,), (direction,))[1]
  """
  with _plain(True):
    yield


class own_gradient:
  """A function with a gradient of its own, as of `jax.custom_vjp`, except in `plain_derivatives`.

  Args:
    function: of arrays.
    nondiff_argnums: arguments that are no arrays.
  """

  def __init__(self, function: Callable[..., Any], nondiff_argnums: tuple[int, ...] = ()):
    self._function = function
    self._own = jax.custom_vjp(function, nondiff_argnums=nondiff_argnums)
    functools.update_wrapper(self, function)

  def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
    """Says how the gradient is computed, as of `jax.custom_vjp.defvjp`."""
    self._own.defvjp(forward, backward)

  def __call__(self, *args) -> Any:
    """Calls the function."""
    return (self._function if _plain.value else self._own)(*args)
