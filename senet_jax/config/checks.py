"""The checks of a configuration before any device work, and comparisons of two."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from senet_jax.config.defaults import default
from senet_jax.errors import UserError, one_of

# Choices that a field may have; other rooms check what only they know (names of networks and data
# sets, options of SE and BN).
_CHOICES = {
  'model.dtype': ('float32', 'bfloat16'),
  'data.feed': ('device', 'stream'),
  'data.sampling': ('uniform', 'class_aware'),
  'data.interpolation': ('bilinear', 'bicubic'),
  'data.pad_fill': ('zeros', 'nearest'),
  'optimizer.name': ('sgd', 'adam', 'lars', 'lamb'),
  'optimizer.decay_mask': ('all', 'kernels'),
  'optimizer.trust_mask': ('all', 'kernels'),
  'schedule.name': ('constant', 'step', 'multistep', 'cosine', 'plateau'),
  'schedule.unit': ('epochs', 'steps'),
  'schedule.warmup_shape': ('linear', 'constant'),
  'schedule.metric': ('loss', 'top1_error', 'top5_error'),
  'early_stopping.metric': ('loss', 'top1_error', 'top5_error'),
}

# Lowest and highest value of each number; None is no bound, an open bound is just outside.
_TINY, _BELOW_1 = math.nextafter(0, 1), math.nextafter(1, 0)
_RANGES = {
  'seed': (0, 2**31 - 1),
  'batch_size': (1, None),
  'epochs': (_TINY, None),
  'steps': (1, 2**31 - 1),
  'label_smoothing': (0, _BELOW_1),
  'aux_loss_weight': (0, None),
  'steps_per_dispatch': (1, None),
  'model.num_classes': (1, None),
  'model.width': (1, None),
  'model.dropout': (0, _BELOW_1),
  'model.se.ratio': (1, None),
  'model.se.hidden_divisor': (1, None),
  'bn.ghost_size': (1, None),
  'bn.momentum': (0, _BELOW_1),
  'bn.epsilon': (_TINY, None),
  'bn.freeze_last_epochs': (0, 2**31 - 1),
  'data.image_size': (1, 2**14),
  'data.resize': (1, 2**15),
  'data.val_fraction': (0, _BELOW_1),
  'data.max_damaged': (0, None),
  'data.read_timeout': (_TINY, None),
  'data.rotation': (0, 180),
  'data.pad': (0, None),
  'data.pixel_jitter': (0, 255),
  'data.brightness_jitter': (0, 1),
  'data.color_jitter': (0, 1),
  'data.lighting': (0, None),
  'data.cutout': (0, None),
  'optimizer.learning_rate': (_TINY, None),
  'optimizer.base_batch': (1, None),
  'optimizer.momentum': (0, _BELOW_1),
  'optimizer.beta2': (0, _BELOW_1),
  'optimizer.trust': (_TINY, None),
  'optimizer.weight_decay': (0, None),
  'optimizer.clip_norm': (0, None),
  'optimizer.accumulate': (1, None),
  'optimizer.ema_decay': (0, _BELOW_1),
  'schedule.warmup': (0, 2**31 - 1),
  'schedule.warmup_start': (0, 1),
  'schedule.factor': (_TINY, _BELOW_1),
  'schedule.every': (_TINY, None),
  'schedule.final': (0, 1),
  'schedule.patience': (1, None),
  'schedule.min_scale': (0, 1),
  'early_stopping.patience': (0, None),
  'early_stopping.min_delta': (0, None),
  'eval.every_epochs': (1e-3, None),
  'eval.batch_size': (1, None),
  'checkpoint.every_steps': (0, None),
  'checkpoint.keep': (1, None),
  'log.every_steps': (1, None),
  'profile.start': (0, None),
  'profile.steps': (1, None),
}

# Stages of a network, and units of a stage; merely to look at more of them would take minutes.
_LARGEST = 10, 500
# Each drop is a part of the compiled program; and of evaluations there is a list.
_MOST_DROPS, _MOST_EVALUATIONS = 1000, 10**6

# Fields that change no number that is computed, so that a run may be resumed with others.
_NEUTRAL = ('checkpoint.', 'log.', 'profile.', 'data.dir', 'data.max_damaged', 'data.read_timeout',
            'eval.batch_size', 'model.se.fused', 'steps_per_dispatch')  # fmt: skip
# Fields that earlier versions had, with the values that change nothing today.
_REMOVED = {'model.scan_blocks': (None, False)}
# Values that earlier versions wrote, with their meaning: `{field: (old, new)}`.
OLD_VALUES = {'model.se.fused': ('auto', True)}
# Fields that say how long a run goes on.
_LENGTH = ('epochs', 'steps')


def changed(config: ConfigDict, *beginnings: str) -> dict[str, Any]:
  """Returns the fields that begin with one of `beginnings` and are not as in `default()`."""
  usual = dict(flatten(default()))
  return {
    field: value
    for field, value in flatten(config)
    if field.startswith(beginnings) and value != usual[field]
  }


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
  """A configuration from nested values, such as a workdir's `config.json`.

  Fields that are missing, as in a run of an older version, have their defaults; fields that went
  are left out where they had theirs.

  Raises:
    UserError: a field does not exist (any more), has the wrong type or a value that it may not
      have.
  """
  if not isinstance(values, Mapping):
    raise UserError(f'not a configuration of this version: {type(values).__name__}, not fields.')
  config = default()
  values = _modernized(values)
  unknown = sorted(dict(flatten(values)).keys() - dict(flatten(config)).keys())
  if unknown:
    raise UserError(f'not a configuration of this version, which has no {", ".join(unknown)}.')
  try:
    config.update(values)
  except (KeyError, AttributeError, TypeError, ValueError) as error:
    raise UserError(f'not a configuration of this version: {error}') from error
  check(config)
  return config


def _modernized(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns nested values of an earlier version as this version writes them.

  Raises:
    UserError: a field that went has another value than its default.
  """
  modern = _tuples(values)
  for field, usual in _REMOVED.items():
    owner, leaf = _owner(modern, field)
    value = owner.pop(leaf, None)
    if value not in usual:
      raise UserError(
        f'config.{field}={value!r} is of an earlier version, and this one has no such field; '
        'leave it out, or use the version that the run was made with.'
      )
  for field, (old, meaning) in OLD_VALUES.items():
    owner, leaf = _owner(modern, field)
    if owner.get(leaf) == old:
      owner[leaf] = meaning
  return modern


def _owner(values: dict[str, Any], field: str) -> tuple[dict[str, Any], str]:
  """Returns the dictionary that holds `field`, empty if there is none, and the name in it."""
  *parents, leaf = field.split('.')
  owner: Any = values
  for name in parents:
    owner = owner.get(name) if isinstance(owner, dict) else None
  return owner if isinstance(owner, dict) else {}, leaf


def _tuples(value):
  if isinstance(value, Mapping | ConfigDict):
    return {k: _tuples(v) for k, v in value.items()}
  return tuple(value) if isinstance(value, list) else value


def flatten(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """The fields as `('model.se.ratio', 16)`, depth first."""
  for key, value in config.items():
    if isinstance(value, Mapping | ConfigDict):
      yield from flatten(value, f'{prefix}{key}.')
    else:
      yield f'{prefix}{key}', value


def check_fields(config: Any, source: str) -> None:
  """Checks that `config` is a configuration with all fields and no other.

  Raises:
    UserError: it is not; the message begins with `source`.
  """
  if not isinstance(config, ConfigDict):
    raise UserError(f'{source} returned {type(config).__name__}, not a configuration.')
  given, expected = dict(flatten(config)).keys(), dict(flatten(default())).keys()
  if given != expected:
    fields = ', '.join(sorted(given ^ expected)[:5])
    raise UserError(
      f'{source} has not the fields of senet_jax.config.default(), from which it should start; '
      f'they differ in {fields}.'
    )


def check(config: ConfigDict) -> None:
  """Checks the values and combinations that can be checked without a device or data.

  Raises:
    UserError: names the field, the value given and the values allowed.
  """
  fields = dict(flatten(config))
  for field, usual in flatten(default()):
    if fields[field] is None and usual is not None:
      raise UserError(f'config.{field}=None must have a value, such as the usual {usual!r}.')
  for field, allowed in _CHOICES.items():
    one_of(f'config.{field}', fields[field], allowed)
  for field, (low, high) in _RANGES.items():
    if fields[field] is not None:
      _check_number(f'config.{field}', fields[field], low, high)
  for drop in config.schedule.boundaries:
    _check_number('each of config.schedule.boundaries', drop, 0, 2**31 - 1)
  _check_depths(config.model.depths)
  _check_counts(config)
  _check_data(config)
  _check_start(config)


def _check_depths(depths: tuple | None) -> None:
  most_stages, most_units = _LARGEST
  whole = all(type(depth) is int and 1 <= depth <= most_units for depth in depths or ())
  if depths is not None and not (whole and 1 <= len(depths) <= most_stages):
    raise UserError(
      f'config.model.depths={depths} must be whole numbers from 1 to {most_units}, one for each of '
      f'at most {most_stages} stages.'
    )


def _check_counts(config: ConfigDict) -> None:
  given = 'epochs' if config.steps is None else 'steps'
  counts = {}
  if config.schedule.name == 'step' and config.schedule.unit == given:
    counts['schedule.every'] = _MOST_DROPS, 'drops of the learning rate'
  if given == 'epochs':
    counts['eval.every_epochs'] = _MOST_EVALUATIONS, 'evaluations'
  for field, (most, what) in counts.items():
    room, name = field.split('.')
    if config[given] / config[room][name] > most:
      raise UserError(
        f'config.{field}={config[room][name]} makes more than {most} {what} in '
        f'config.{given}={config[given]}; use a larger one.'
      )


def _check_start(config: ConfigDict) -> None:
  for field, unset in (('init_checkpoint', 'best'), ('new_head', False)):
    if not config.init_from and config[field] != unset:
      raise UserError(
        f'config.{field}={config[field]} has no effect without config.init_from; give it the '
        f'workdir of a run, or leave config.{field} out.'
      )
  if config.optimizer.nesterov and config.optimizer.name == 'lamb':
    raise UserError('config.optimizer.nesterov=True is not for lamb; take sgd, adam or lars.')
  frozen = config.optimizer.frozen
  if not all(isinstance(beginning, str) for beginning in frozen):
    raise UserError(
      f'config.optimizer.frozen={frozen} must be beginnings of module names: '
      "('stem_', 'stage2_'), or () for none."
    )


# Fields of `data` that have no effect on the device feed.
_OF_STREAMS = ('crop_area', 'resize', 'interpolation', 'resize_keep_aspect', 'val_fraction')


def _check_data(config: ConfigDict) -> None:
  data = config.data
  for name, low, high in (('mean', -255, 510), ('std', _TINY, None)):
    if data[name] and len(data[name]) != 3:
      raise UserError(f'config.data.{name}={data[name]} must be empty or three numbers, of RGB.')
    for value in data[name]:
      _check_number(f'each of config.data.{name}', value, low, high)
  _check_interval('config.data.crop_aspect', data.crop_aspect, None)
  if data.crop_area:
    _check_interval('config.data.crop_area', data.crop_area, 1)
  if data.val_fraction and data.name != 'image_folder':
    raise UserError(
      f"config.data.val_fraction={data.val_fraction} is for data.name='image_folder'; a part of "
      "another data set is config.data.train_split='train[:90%]'."
    )
  if data.feed == 'stream':
    if (config.steps_per_dispatch or 1) > 1 and not data.fake:
      raise UserError(
        f'config.steps_per_dispatch={config.steps_per_dispatch} needs all images on the device; a '
        'stream gives one batch at a time: leave it out.'
      )
    return
  for name, usual in default().data.items():
    if name in _OF_STREAMS and data[name] != usual:
      raise UserError(
        f"config.data.{name}={data[name]} has no effect with config.data.feed='device'; use "
        "config.data.feed='stream' or leave it out."
      )


def _check_interval(field: str, bounds: Any, high: float | None) -> None:
  if len(bounds) != 2 or bounds[0] > bounds[1]:
    raise UserError(f'{field}={bounds} must be two numbers, the smaller one first.')
  for value in bounds:
    _check_number(f'each of {field}', value, _TINY, high)


def _check_number(field: str, value: Any, low: float, high: float | None) -> None:
  if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
    raise UserError(f'{field}={value!r} must be a finite number.')
  if low <= value and (high is None or value <= high):
    return
  least = 'greater than 0' if low == _TINY else f'at least {low:g}'
  most = {None: '', _BELOW_1: ' and below 1'}.get(high, f' and at most {high}')
  raise UserError(f'{field}={value} must be {least}{most}.')


def differences(
  saved: Mapping[str, Any], given: Mapping[str, Any], *, length: bool = False
) -> dict[str, tuple[Any, Any]]:
  """Fields that change what a run computes and that differ, as `{field: (saved, given)}`.

  Args:
    saved: nested values, also of an earlier version; fields that are missing have their defaults.
    given: the same.
    length: count the length of the run even where steps already taken do not depend on it. Under a
      cosine, or with statistics frozen at the end, they do, and it always counts.
  """
  old, new = ({**dict(flatten(default())), **dict(flatten(_modernized(c)))} for c in (saved, given))
  length = length or new['schedule.name'] == 'cosine' or new['bn.freeze_last_epochs'] > 0
  return {
    field: (old.get(field), new.get(field))
    for field in {**old, **new}
    if not field.startswith(_NEUTRAL)
    and (length or field not in _LENGTH)
    and old.get(field) != new.get(field)
  }
