"""Learning-rate schedules and the optimizer, all of optax's making."""

from collections.abc import Callable

import jax
import optax
from ml_collections import ConfigDict

from senet_jax.config.fields import INT32
from senet_jax.config.length import steps_of_unit
from senet_jax.training import setup


def make_schedule(config: ConfigDict, total_steps: int, steps_per_epoch: float) -> optax.Schedule:
  """Returns the learning rate by step, before any plateau has scaled it.

  Args:
    config: of the run.
    total_steps: length of the run.
    steps_per_epoch: need not be whole.

  Raises:
    UserError: the boundaries do not rise, or there are too many drops.
  """
  schedule, peak = config.schedule, setup.peak_rate(config)
  unit = steps_of_unit(config, steps_per_epoch)
  warmup = min(round(schedule.warmup * unit), INT32)
  main = _main_schedule(config, peak, total_steps, warmup, unit)
  if not warmup:
    return main
  start = peak * schedule.warmup_start
  if schedule.warmup_shape == 'constant':
    rise = optax.constant_schedule(start)
  else:
    rise = optax.linear_schedule(start, peak, warmup)
  # join_schedules restarts the count of the second one; the drops count from the start of the run.
  return optax.join_schedules([rise, lambda step: main(step + warmup)], [warmup])


def _main_schedule(
  config: ConfigDict, peak: float, total_steps: int, warmup: int, unit: float
) -> optax.Schedule:
  schedule = config.schedule
  if schedule.name == 'cosine':
    cosine = optax.cosine_decay_schedule(peak, max(total_steps - warmup, 1), schedule.final)
    return lambda step: cosine(step - warmup)
  if schedule.name == 'linear':
    line = optax.linear_schedule(peak, peak * schedule.final, max(total_steps - warmup, 1))
    return lambda step: line(step - warmup)
  if schedule.name in ('constant', 'plateau'):
    return optax.constant_schedule(peak)
  drops = setup.drop_steps(config, total_steps, unit)
  return optax.piecewise_constant_schedule(peak, dict.fromkeys(drops, schedule.factor))


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
  """Returns SGD with momentum, Adam, AdamW, LARS (You et al. 2017) or LAMB (You et al. 2020).

  Weight decay joins the gradient in front of them, as in Caffe and torch, or with AdamW (Loshchilov
  and Hutter 2019) and LAMB the update.
  LARS and LAMB scale the update of each array by its norm and that of the weights, but for those
  outside `trust_mask`. LARS is that of optax: of the gradient `g` and the decay `b` of weights `w`
  its momentum adds up `rate * trust * |w| / |g + b w| * (g + b w)`, where the publication divides
  by `|g| + b |w|`, which is never less.
  The update of a bias is multiplied by `bias_rate`, as Caffe's networks have it.
  """
  o = config.optimizer
  decayed, trusted = kernel_mask(o.decay_mask), kernel_mask(o.trust_mask) or True
  decay = optax.add_decayed_weights(o.weight_decay, decayed)
  if o.name == 'sgd':
    parts = [decay, optax.sgd(schedule, o.momentum or None, o.nesterov)]
  elif o.name == 'adam':
    parts = [decay, optax.adam(schedule, o.momentum, o.beta2, nesterov=o.nesterov)]
  elif o.name == 'adamw':
    parts = [
      optax.scale_by_adam(o.momentum, o.beta2, nesterov=o.nesterov),
      decay,
      optax.scale_by_learning_rate(schedule),
    ]
  elif o.name == 'lars':
    parts = [
      optax.lars(
        schedule,
        o.weight_decay,
        decayed,
        trust_coefficient=o.trust,
        trust_ratio_mask=trusted,
        momentum=o.momentum,
        nesterov=o.nesterov,
      )
    ]
  else:  # optax.lamb scales all arrays
    parts = [
      optax.scale_by_adam(o.momentum, o.beta2, eps=1e-6),
      decay,
      optax.masked(optax.scale_by_trust_ratio(), trusted),
      optax.scale_by_learning_rate(schedule),
    ]
  if o.bias_rate != 1:
    parts.append(optax.masked(optax.scale(o.bias_rate), _named('bias')))
  if o.clip_norm:
    parts.insert(0, optax.clip_by_global_norm(o.clip_norm))
  return optax.chain(*parts)


def kernel_mask(name: str) -> Callable | None:
  """Returns a mask of parameters: None for `all`; kernels of convolutions and dense layers."""
  if name == 'all':
    return None
  return _named('kernel')


def _named(name: str) -> Callable:
  return lambda params: jax.tree.map_with_path(lambda path, _: path[-1].key == name, params)


def make_plateau(config: ConfigDict) -> optax.GradientTransformationExtraArgs | None:
  """Returns what lowers the rate when an evaluation brings nothing; None for other schedules.

  Its state's `scale` multiplies the schedule. It is fed once an evaluation, not once a step.
  """
  schedule = config.schedule
  if schedule.name != 'plateau':
    return None
  return optax.contrib.reduce_on_plateau(
    factor=schedule.factor, patience=schedule.patience, min_scale=schedule.min_scale
  )
