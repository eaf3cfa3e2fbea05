"""The length of a run in steps."""

import math

from ml_collections import ConfigDict

from senet_jax.errors import UserError


def describe_length(config: ConfigDict) -> str:
  """Returns the field that says how long the run is, with its value."""
  field = 'epochs' if config.steps is None else 'steps'
  return f'config.{field}={config[field]}'


def total_steps(config: ConfigDict, num_examples: int) -> int:
  """Returns the length of the run: `config.steps`, or steps in which each epoch is complete.

  Raises:
    UserError: there are too many.
  """
  if config.steps is not None:
    return config.steps
  if config.epochs * num_examples / config.batch_size >= 2**31:
    raise UserError(f'config.epochs={config.epochs} makes more than 2**31 steps; use fewer.')
  return math.ceil(config.epochs * num_examples / config.batch_size - 1e-9)


def steps_of_unit(config: ConfigDict, steps_per_epoch: float) -> float:
  """Returns the steps of one `config.schedule.unit`."""
  return steps_per_epoch if config.schedule.unit == 'epochs' else 1.0
