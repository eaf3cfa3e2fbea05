"""The tasks that a run can have: the one of its network."""

from ml_collections import ConfigDict

from senet_jax import config as config_lib
from senet_jax.errors import UserError
from senet_jax.models import CLASSIFICATION, DETECTION, model_info
from senet_jax.training.classification import Classification
from senet_jax.training.detection import Detection
from senet_jax.training.task import Task

TASKS: dict[str, type[Task]] = {CLASSIFICATION: Classification, DETECTION: Detection}


def task_of(config: ConfigDict) -> Task:
  """Returns the task of the network of a configuration.

  Raises:
    UserError: there is no such network.
  """
  return TASKS[model_info(config.model.name).task](config)


def check_fields(task: Task) -> None:
  """Checks that what a configuration sets has a part in its task.

  Raises:
    UserError: a field is that of another one, or a metric that no evaluation has.
  """
  config = task.config
  info = model_info(config.model.name)
  for name in config_lib.changed(config):
    owner = config_lib.FIELDS[name].task
    if owner not in (None, info.task):
      raise UserError(
        f'config.{name} is for {owner}, and {info.name} is a network for {info.task}: leave it out.'
      )
  for section in ('schedule', 'early_stopping'):
    metric = config[section].metric
    if task.metrics and metric not in task.metrics:
      raise UserError(
        f'config.{section}.metric={metric!r} is none of {info.task}; '
        f'use one of {", ".join(task.metrics)}.'
      )
