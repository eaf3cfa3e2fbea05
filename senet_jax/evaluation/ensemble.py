"""Ensembles: several networks, or one, that answer for several crops of an image."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


@dataclasses.dataclass(frozen=True)
class Ensemble:
  """The average of the probabilities of networks and crops, in the place of one network.

  Attributes:
    models: the networks, all with the same classes.
    order: the classes in the order in which they are wanted; None: as they are.
  """

  models: tuple[nn.Module, ...]
  order: tuple[int, ...] | None = None

  def apply(
    self, variables: tuple[dict, ...], images: tuple[jax.Array, ...], train: bool = False
  ) -> jax.Array:
    """Returns the logits of the average.

    Args:
      variables: `params` and `batch_stats` of each network.
      images: inputs of each network, `[N, V, S, S, 3]` with as many crops V for all.
      train: of the networks.

    Returns:
      `[N, K]` float32: logarithms of the averaged probabilities; of one network and one crop its
      logits as they are.
    """
    logits = []
    for model, weights, crops in zip(self.models, variables, images, strict=True):
      rows: Any = model.apply(weights, crops.reshape(-1, *crops.shape[2:]), train=train)
      logits.append(rows.reshape(*crops.shape[:2], -1))
    every = jnp.concatenate(logits, axis=1)
    if self.order is not None:
      every = every[..., jnp.asarray(self.order)]
    if every.shape[1] == 1:
      return every[:, 0]
    # As logarithms, so that no small probability becomes zero.
    total = jax.nn.logsumexp(jax.nn.log_softmax(every), axis=1)
    return total - jnp.log(jnp.float32(every.shape[1]))
