"""A trained network by whatever names it: a workdir, the package, or the Hugging Face hub."""

import os

from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.storage import buckets
from senet_jax.workdir import exchange, network, saved
from senet_jax.workdir.objective import TOP1, Objective
from senet_jax.workdir.saved import Saved


def load(
  name: str | os.PathLike, checkpoint: str, mesh: Mesh, objective: Objective = TOP1
) -> Saved:
  """Reads a trained network; as of `saved.load` for a workdir.

  Args:
    name: a workdir, one of `list_pretrained()`, or `hf:OWNER/REPO[@REVISION]`.
    checkpoint: of a workdir.
    mesh: the devices that get the variables.
    objective: says which checkpoint is the best.

  Raises:
    UserError: there is none of that name, or it is damaged or of no known network.
  """
  if not exchange.is_name(name):
    return saved.load(name, checkpoint, mesh, objective)
  weights = exchange.read(name)
  model = network.build_model(weights.config, weights.num_classes)
  variables = runtime.put_everywhere(weights.variables, mesh)
  return Saved(weights.config, model, variables, 0, weights.class_names)


def read_config(name: str | os.PathLike) -> ConfigDict:
  """Returns the configuration of a trained network, by a name as of `load`.

  Raises:
    UserError: as of `load`.
  """
  if exchange.is_name(name):
    return exchange.read(name).config
  return saved.read_config(buckets.absolute(str(name)))
