"""Builds a run's first state, and derives its batches and its length from a configuration."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.config.fields import INT32
from senet_jax.config.length import describe_length
from senet_jax.data.sizes import training_sizes
from senet_jax.errors import UserError
from senet_jax.models import CLASSIFICATION
from senet_jax.workdir import network
from senet_jax.workdir.state import TrainState

# Of evaluations there is a list, and each drop of the learning rate is a part of the compiled
# program, which counts steps in int32.
_MOST_EVALUATIONS, _MOST_DROPS = 10**6, 1000


def init_state(
  config: ConfigDict,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  plateau: optax.GradientTransformationExtraArgs | None,
  mesh: Mesh,
  variables: dict | None = None,
) -> TrainState:
  """Returns the state before the first step, with `variables` or, without them, fresh ones."""
  if variables is None:
    variables = network.init_variables(config, model, mesh)

  build = functools.partial(new_state, config, model, optimizer, plateau)
  return jax.jit(build, out_shardings=runtime.replicated(mesh))(variables)


def new_state(
  config: ConfigDict,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  plateau: optax.GradientTransformationExtraArgs | None,
  variables: dict,
) -> TrainState:
  """Returns the state before the first step, with `variables`."""
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables['batch_stats'],
    opt_state=optimizer.init(network.trained(params, network.frozen(config, model))),
    ema=jax.tree.map(jnp.copy, variables) if config.optimizer.ema_decay > 0 else None,
    plateau=plateau.init(params) if plateau else None,
  )


def check_batch(config: ConfigDict, devices: int) -> None:
  """Checks that devices, micro-batches and ghost groups divide the batch, and cutout the image.

  Raises:
    UserError: they do not.
  """
  local = runtime.per_device(config.batch_size, devices)
  k = config.optimizer.accumulate
  if local % k:
    raise UserError(
      f'config.optimizer.accumulate={k} does not divide the {local} images a device has of each '
      f'batch of {config.batch_size}.'
    )
  if local % 2 and (config.data.mixup or config.data.cutmix):
    raise UserError(
      f'config.batch_size={config.batch_size} gives a device {local} images, an odd number, and '
      'mixup and CutMix mix pairs; use another batch size.'
    )
  if network.task_of(config) != CLASSIFICATION:
    return  # nothing of the rest is theirs
  side = min(training_sizes(config))
  if config.data.cutout >= 2 * side:
    raise UserError(
      f'config.data.cutout={config.data.cutout} would blank out most images of side {side}; use a '
      'smaller one.'
    )
  if config.data.pad > side:
    raise UserError(
      f'config.data.pad={config.data.pad} is more than the side of the images, {side}, so that '
      'crops would have nothing of them; use a smaller one.'
    )
  size = config.bn.ghost_size
  if config.bn.scope == 'ghost' and local // k % max(size, 1):
    raise UserError(
      f'config.bn.ghost_size={size} does not divide the {local // k} images that a device '
      'normalises together; change config.bn.ghost_size or config.batch_size.'
    )


def eval_steps(config: ConfigDict, total: int, steps_per_epoch: float) -> list[int]:
  """Returns the steps after which to evaluate, rising; the last one is the end of the run.

  Raises:
    UserError: there are too many.
  """
  every = config.eval.every_epochs * steps_per_epoch
  count = int(total / every)
  if count > _MOST_EVALUATIONS:
    raise UserError(
      f'config.eval.every_epochs={config.eval.every_epochs} makes more than {_MOST_EVALUATIONS} '
      f'evaluations in {describe_length(config)}; use a larger one.'
    )
  steps = {max(math.ceil(k * every - 1e-9), 1) for k in range(1, count + 1)}
  return sorted({step for step in steps if step < total} | {total})


def peak_rate(config: ConfigDict) -> float:
  """Returns the learning rate at the peak of the schedule.

  With `config.optimizer.base_batch` it is in proportion to the batch (Goyal et al. 2017).
  """
  rate, base = config.optimizer.learning_rate, config.optimizer.base_batch
  return rate * (config.batch_size / base) if base else rate


def drop_steps(config: ConfigDict, total: int, unit: float) -> list[int]:
  """Returns the steps after which the schedules `step` and `multistep` lower the learning rate.

  Args:
    config: of the run.
    total: length of the run.
    unit: see `length.steps_of_unit`.

  Raises:
    UserError: they do not rise, or there are too many.
  """
  schedule = config.schedule
  if schedule.name == 'multistep':
    drops = np.asarray(schedule.boundaries, float)
    if (np.diff(drops) <= 0).any():
      raise UserError(f'config.schedule.boundaries={schedule.boundaries} must rise.')
  elif schedule.name == 'step':
    if total / unit / schedule.every > _MOST_DROPS:
      raise UserError(
        f'config.schedule.every={schedule.every} makes more than {_MOST_DROPS} drops of the '
        f'learning rate in {describe_length(config)}; use a larger one.'
      )
    drops = np.arange(schedule.every, total / unit, schedule.every)
  else:
    return []
  return [min(round(drop * unit), INT32) for drop in drops]
