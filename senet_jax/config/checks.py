"""The checks of a configuration before any device work, and comparisons of two."""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from senet_jax.config.defaults import default
from senet_jax.errors import UserError, one_of

# Choices that a field may have; other rooms check what only they know (model names, SE options).
_CHOICES = {
  'model.dtype': ('float32', 'bfloat16'),
  'bn.scope': ('local', 'global', 'ghost'),
  'data.name': ('digits', 'cifar10', 'cifar100'),
  'data.feed': ('device',),
  'optimizer.name': ('sgd',),
  'optimizer.decay_mask': ('all', 'kernels'),
  'schedule.name': ('constant', 'step', 'multistep', 'cosine', 'plateau'),
  'schedule.unit': ('epochs', 'steps'),
  'schedule.warmup_shape': ('linear', 'constant'),
  'early_stopping.metric': ('loss', 'top1_error', 'top5_error'),
}
_POSITIVE = ('batch_size', 'optimizer.learning_rate', 'optimizer.accumulate', 'checkpoint.keep',
             'log.every_steps', 'eval.every_epochs', 'profile.steps')  # fmt: skip
_NOT_NEGATIVE = ('optimizer.weight_decay', 'schedule.warmup', 'early_stopping.patience', 'data.pad',
                 'data.cutout', 'bn.freeze_last_epochs', 'checkpoint.every_steps')  # fmt: skip
_BELOW_ONE = ('optimizer.momentum', 'optimizer.ema_decay', 'bn.momentum', 'label_smoothing')

# Fields that change no number that is computed, so that a run may be resumed with others.
NEUTRAL = ('checkpoint.', 'log.', 'profile.', 'data.dir', 'eval.batch_size', 'model.se.fused',
           'steps_per_dispatch')  # fmt: skip
# Fields that say how long a run goes on; a finished run may be resumed to go further.
LENGTH = ('epochs', 'steps')


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
  """A configuration from nested values, such as a workdir's `config.json`.

  Raises:
    UserError: a field does not exist or has the wrong type.
  """
  config = default()
  try:
    config.update(_tuples(values))
  except (KeyError, AttributeError, TypeError, ValueError) as error:
    raise UserError(f'not a configuration of this version: {error}') from error
  return config


def _tuples(value):
  if isinstance(value, Mapping):
    return {k: _tuples(v) for k, v in value.items()}
  return tuple(value) if isinstance(value, list) else value


def flatten(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """The fields as `('model.se.ratio', 16)`, depth first."""
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      yield from flatten(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def check(config: ConfigDict) -> None:
  """Checks the values and combinations that can be checked without a device or data.

  Raises:
    UserError: names the field, the value given and the values allowed.
  """
  fields = dict(flatten(config))
  for field, allowed in _CHOICES.items():
    one_of(f'config.{field}', fields[field], allowed)
  for field in _POSITIVE:
    if not fields[field] > 0:
      raise UserError(f'config.{field}={fields[field]} must be greater than 0.')
  for field in _NOT_NEGATIVE:
    if not fields[field] >= 0:
      raise UserError(f'config.{field}={fields[field]} must not be negative.')
  for field in _BELOW_ONE:
    if not 0 <= fields[field] < 1:
      raise UserError(f'config.{field}={fields[field]} must be at least 0 and below 1.')
  for field in ('steps', 'steps_per_dispatch', 'eval.batch_size', 'model.num_classes'):
    if fields[field] is not None and fields[field] < 1:
      raise UserError(f'config.{field}={fields[field]} must be at least 1.')
  if config.steps is None and not config.epochs > 0:
    raise UserError(f'config.epochs={config.epochs} must be greater than 0.')
  if config.init_from is not None:
    raise UserError('config.init_from is not built yet; leave it out.')
  if config.deterministic:
    raise UserError('config.deterministic is not built yet; runs on CPU are deterministic anyway.')
  _check_se(config.model)


def _check_se(model: ConfigDict) -> None:
  """SE options on a network without SE would be ignored in silence."""
  if model.name.startswith('se'):
    return
  for field, value in default().model.se.items():
    if model.se[field] != value:
      raise UserError(
        f'config.model.se.{field}={model.se[field]!r} has no effect on {model.name!r}, which has '
        f"no SE; name the network 'se_{model.name}' or leave the field out."
      )


def differences(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Fields that change what a run computes and that differ, as `{field: (saved, given)}`."""
  old, new = (dict(flatten(_tuples(c))) for c in (saved, given))
  return {
    field: (old.get(field), new.get(field))
    for field in {**old, **new}
    if not field.startswith(NEUTRAL) and field not in LENGTH and old.get(field) != new.get(field)
  }
