"""The state of a training run, and digests of it."""

import hashlib
from typing import Any

import jax
import numpy as np
import optax
from flax import struct


class TrainState(struct.PyTreeNode):
  """Everything a step changes; whole on every device.

  Attributes:
    step: int32, steps taken.
    params: trainable parameters, float32.
    batch_stats: BN's running statistics, float32.
    opt_state: of the optimizer.
    ema: moving averages of `params` and `batch_stats`, or None.
    plateau: state of the plateau schedule, or None.
  """

  step: Any
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  ema: dict[str, Any] | None = None
  plateau: Any = None

  @classmethod
  def from_arrays(cls, arrays: dict[str, Any]) -> 'TrainState':
    """Returns the state whose arrays were read without knowing its optimizer.

    The optimizer's state is left as nested lists and dictionaries. Its leaves are in the order in
    which they were saved all the same, as optax names the fields of its states in alphabetical
    order, but for those of the plateau.
    """
    plateau = arrays['plateau']
    if plateau is not None:
      plateau = optax.contrib.ReduceLROnPlateauState(**plateau)
    return cls(**{**arrays, 'plateau': plateau})

  @property
  def variables(self) -> dict[str, Any]:
    """The raw variables of the network."""
    return {'params': self.params, 'batch_stats': self.batch_stats}

  @property
  def eval_variables(self) -> dict[str, Any]:
    """The variables to evaluate: the averaged ones if there are any."""
    return self.ema or self.variables

  @property
  def scale(self) -> jax.Array | float:
    """The factor by which the plateau schedule multiplies the learning rate."""
    return 1.0 if self.plateau is None else self.plateau.scale


def abstract_state(state: TrainState, sharding: jax.sharding.Sharding) -> TrainState:
  """Shapes and dtypes of `state` (concrete or abstract), placed as `sharding` says."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


def params_sha256(variables: dict[str, Any]) -> str:
  """Returns SHA-256 of all variables: sorted paths, each with dtype, shape, little-endian bytes."""
  leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(variables)}
  digest = hashlib.sha256()
  for path in sorted(leaves):
    array = np.asarray(leaves[path])
    digest.update(f'{path} {array.dtype.name} {array.shape} '.encode())
    digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder('<')).tobytes())
  return digest.hexdigest()
