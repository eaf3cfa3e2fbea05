"""Programs that are compiled before they are needed, also where inputs have several shapes."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


class Programs:
  """A jitted function `(state, inputs, …)`, compiled once for each shape of its inputs."""

  def __init__(self, function: jax.stages.Wrapped):
    """Compiles nothing yet."""
    self._function = function
    self._compiled: dict[tuple, Callable] = {}

  def compile(self, state: Any, inputs: Any, *more: Any) -> None:
    """Compiles the program for inputs of these shapes; of all that is given only shapes count."""
    compiled = self._function.lower(state, inputs, *more).compile()
    self._compiled[_shapes(inputs)] = compiled

  def __call__(self, state: Any, inputs: Any, *more: Any) -> Any:
    """Runs the program of these inputs; where none is compiled, it is now."""
    return self._compiled.get(_shapes(inputs), self._function)(state, inputs, *more)


def _shapes(inputs: Any) -> tuple[tuple[int, ...], ...]:
  return tuple(np.shape(x) for x in jax.tree.leaves(inputs))
