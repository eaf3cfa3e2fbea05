"""A trained network by whatever names it: a workdir, the package, or the Hugging Face hub."""

import os
from collections.abc import Sequence
from typing import TypeVar

from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.models import CLASSIFICATION
from senet_jax.storage import buckets
from senet_jax.workdir import exchange, network, saved
from senet_jax.workdir.objective import Objective
from senet_jax.workdir.saved import Saved

_Name = TypeVar('_Name')


def load(
  name: str | os.PathLike,
  checkpoint: str,
  mesh: Mesh,
  objective: Objective | None = None,
  task: str | None = CLASSIFICATION,
) -> Saved:
  """Reads a trained network; as of `saved.load` for a workdir.

  Args:
    name: a workdir, one of `list_pretrained()`, or `hf:OWNER/REPO[@REVISION]`.
    checkpoint: of a workdir.
    mesh: the devices that get the variables.
    objective: says which checkpoint is the best; None: that of the task.
    task: what the network must be for; None: anything.

  Raises:
    UserError: there is none of that name, or it is damaged, of no known network or another task.
  """
  exchange.check_there(name)
  if not exchange.is_name(name):
    return saved.load(name, checkpoint, mesh, objective, task)
  weights = exchange.read(name)
  saved.check_task(weights.config, task, str(name))
  model = network.build_model(weights.config, weights.num_classes)
  variables = runtime.put_everywhere(weights.variables, mesh)
  return Saved(weights.config, model, variables, weights.step, weights.class_names)


def read_config(name: str | os.PathLike) -> ConfigDict:
  """Returns the configuration of a trained network, by a name as of `load`.

  Raises:
    UserError: as of `load`.
  """
  exchange.check_there(name)
  if exchange.is_name(name):
    return exchange.read(name).config
  return saved.read_config(buckets.absolute(str(name)))


def pairs(workdirs: Sequence[_Name], checkpoints: Sequence[str]) -> list[tuple[_Name, str]]:
  """Returns workdir and checkpoint of each network, of which either may be given once for all.

  Raises:
    UserError: they are not as many.
  """
  count = max(len(workdirs), len(checkpoints))
  if {len(workdirs), len(checkpoints)} - {1, count}:
    raise UserError(
      f'--workdir is given {len(workdirs)} times and --checkpoint {len(checkpoints)} times; give '
      'one of them once, or both as often.'
    )
  all_workdirs = list(workdirs) * (count // len(workdirs))
  return list(zip(all_workdirs, list(checkpoints) * (count // len(checkpoints)), strict=True))
