"""Learning-rate schedules and the optimizer, all of optax's making."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from senet_jax.errors import UserError


def make_schedule(config: ConfigDict, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
  """The learning rate by step, before any plateau has scaled it.

  Args:
    config: of the run.
    total_steps: length of the run.
    steps_per_epoch: need not be whole.

  Raises:
    UserError: the boundaries do not rise.
  """
  schedule, peak = config.schedule, config.optimizer.learning_rate
  unit = steps_per_epoch if schedule.unit == 'epochs' else 1.0
  warmup = round(schedule.warmup * unit)
  main = _main_schedule(schedule, peak, total_steps, warmup, unit)
  if not warmup:
    return main
  start = peak * schedule.warmup_start
  if schedule.warmup_shape == 'constant':
    rise = optax.constant_schedule(start)
  else:
    rise = optax.linear_schedule(start, peak, warmup)
  # join_schedules restarts the count of the second one; the drops count from the start of the run.
  return optax.join_schedules([rise, lambda step: main(step + warmup)], [warmup])


def _main_schedule(schedule, peak, total_steps: int, warmup: int, unit: float) -> optax.Schedule:
  if schedule.name == 'cosine':
    cosine = optax.cosine_decay_schedule(peak, max(total_steps - warmup, 1), schedule.final)
    return lambda step: cosine(step - warmup)
  if schedule.name in ('constant', 'plateau'):
    return optax.constant_schedule(peak)
  if schedule.name == 'step':
    drops = np.arange(schedule.every, total_steps / unit, schedule.every)
  else:
    drops = np.asarray(schedule.boundaries, float)
    if (np.diff(drops) <= 0).any():
      raise UserError(f'config.schedule.boundaries={schedule.boundaries} must rise.')
  steps = [round(drop * unit) for drop in drops]
  return optax.piecewise_constant_schedule(peak, dict.fromkeys(steps, schedule.factor))


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
  """SGD with momentum; weight decay joins the gradient in front of it, as in Caffe and torch."""
  optimizer = config.optimizer
  parts = [
    optax.add_decayed_weights(optimizer.weight_decay, decay_mask(optimizer.decay_mask)),
    optax.sgd(schedule, optimizer.momentum or None, optimizer.nesterov),
  ]
  if optimizer.clip_norm:
    parts.insert(0, optax.clip_by_global_norm(optimizer.clip_norm))
  return optax.chain(*parts)


def decay_mask(name: str) -> Callable | None:
  """Which parameters decay: `all` of them, or `kernels`, those of convolutions and dense layers."""
  if name == 'all':
    return None
  return lambda params: jax.tree.map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def trained(modules: dict[str, Any], frozen: tuple[str, ...]) -> dict[str, Any]:
  """The modules that are trained; gradients and the optimizer's state are of these alone.

  Args:
    modules: variables by the name of their top-level module.
    frozen: beginnings of the names of those that are not trained.
  """
  return {name: of for name, of in modules.items() if not name.startswith(frozen)}


def make_plateau(config: ConfigDict) -> optax.GradientTransformationExtraArgs | None:
  """What lowers the learning rate when the evaluation loss stays up; None for other schedules.

  Its state's `scale` multiplies the schedule. It is fed once an evaluation, not once a step.
  """
  schedule = config.schedule
  if schedule.name != 'plateau':
    return None
  return optax.contrib.reduce_on_plateau(
    factor=schedule.factor, patience=schedule.patience, min_scale=schedule.min_scale
  )
