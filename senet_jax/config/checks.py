"""The checks of a configuration before any device work, and comparisons of two."""

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from senet_jax.config.defaults import FIELDS, default
from senet_jax.config.fields import FREE, LENGTH
from senet_jax.config.randaugment import Policy
from senet_jax.errors import UserError, shown

# What has fields: `model`, `model.se`, ….
SECTIONS = tuple(dict.fromkeys(name.rpartition('.')[0] for name in FIELDS if '.' in name))

# Fields that earlier versions had, with the values that change nothing today.
_REMOVED = {'model.scan_blocks': (None, False)}


def changed(config: ConfigDict, beginning: str | tuple[str, ...] = '') -> dict[str, Any]:
  """Returns the fields whose names begin so, or in one of these ways, and are not the defaults."""
  return {
    name: value
    for name, value in flatten(config)
    if name.startswith(beginning) and value != FIELDS[name].default
  }


def from_dict(values: Mapping[str, Any]) -> ConfigDict:
  """Returns a configuration of nested values, such as those of a workdir's `config.json`.

  Fields that are missing, as in a run of an older version, have their defaults; fields that went
  are left out where they had theirs.

  Raises:
    UserError: a field does not exist (any more), has the wrong type or a value that it may not
      have.
  """
  if not isinstance(values, Mapping):
    raise UserError(f'not a configuration of this version: {type(values).__name__}, not fields.')
  given = _modernized(values)
  unknown = sorted(given.keys() - FIELDS.keys())[:5]
  if unknown:
    fields = ', '.join(map(shown, unknown))
    raise UserError(f'not a configuration of this version, which has no field {fields}.')
  config = from_fields(given)
  check(config)
  return config


def from_fields(values: Mapping[str, Any]) -> ConfigDict:
  """Returns the default configuration with other values, by the names of their fields.

  Raises:
    UserError: a field has the wrong type or a value that it may not have.
  """
  config = default()
  for name, value in values.items():
    section, leaf = owner(config, name)
    section[leaf] = FIELDS[name].accepted(name, value)
  return config


def owner(config: ConfigDict, name: str) -> tuple[ConfigDict, str]:
  """Returns the part of `config` that holds the field `name`, and what it is called there."""
  *sections, leaf = name.split('.')
  for section in sections:
    config = config[section]
  return config, leaf


def section_of(part: ConfigDict) -> str:
  """Returns how the names of the fields of a part begin: `model.se.`; empty of all of it."""
  whole = default()
  found = (s for s in SECTIONS if owner(whole, f'{s}.')[0].keys() == part.keys())
  return next((f'{section}.' for section in found), '')


def _modernized(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns nested values of an earlier version by field, as this version has them.

  Raises:
    UserError: a field that went has another value than its default.
  """
  modern = dict(flatten(values))
  for field, usual in _REMOVED.items():
    value = modern.pop(field, None)
    if value not in usual:
      raise UserError(
        f'config.{field}={shown(value)} is of an earlier version, and this one has no such field; '
        'leave it out, or use the version that the run was made with.'
      )
  return modern


def flatten(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields the fields as `('model.se.ratio', 16)`, depth first."""
  for key, value in config.items():
    name = f'{prefix}{repr(key) if "." in str(key) else key}'  # a dot is no part of a name
    if isinstance(value, Mapping | ConfigDict) and name not in FIELDS:
      yield from flatten(value, f'{name}.')
    else:
      yield name, value


def check_fields(config: Any, source: str) -> None:
  """Checks that `config` is a configuration with all fields and no other, and the type of each.

  Raises:
    UserError: it is not; the message begins with `source`.
  """
  if not isinstance(config, ConfigDict):
    raise UserError(f'{source} returned {type(config).__name__}, not a configuration.')
  given = dict(flatten(config))
  if given.keys() != FIELDS.keys():
    fields = ', '.join(map(shown, sorted(given.keys() ^ FIELDS.keys())[:5]))
    raise UserError(
      f'{source} has not the fields of senet_jax.config.default(), from which it should start; '
      f'they differ in {fields}.'
    )
  for name, value in given.items():
    FIELDS[name].accepted(name, value)


def check(config: ConfigDict) -> None:
  """Checks the values and combinations that can be checked without a device or data.

  Raises:
    UserError: names the field, the value given and the values allowed.
  """
  given = dict(flatten(config))
  for name, field in FIELDS.items():
    field.accepted(name, given.get(name))
  _check_data(config)
  _check_targets(config)
  _check_start(config)


def _check_start(config: ConfigDict) -> None:
  for field, unset in (('init_checkpoint', 'best'), ('new_head', False)):
    if not config.init_from and config[field] != unset:
      raise UserError(
        f'config.{field}={config[field]} has no effect without config.init_from; give it the '
        f'workdir of a run, or leave config.{field} out.'
      )
  if config.optimizer.nesterov and config.optimizer.name == 'lamb':
    raise UserError(
      'config.optimizer.nesterov=True is not for lamb; take sgd, adam, adamw or lars.'
    )


def _check_targets(config: ConfigDict) -> None:
  threshold, data = config.bce_threshold, config.data
  if threshold is not None and config.loss != 'bce':
    raise UserError(
      f'config.bce_threshold={threshold} has no effect with config.loss={config.loss!r}; use '
      "config.loss='bce' or leave it out."
    )
  if threshold is not None and config.label_smoothing:
    raise UserError(
      f'config.bce_threshold={threshold} makes every target 0 or 1, so that '
      f'config.label_smoothing={config.label_smoothing} would have no effect; use one of them.'
    )
  if not (data.mixup and data.cutmix) and data.cutmix_share != FIELDS['data.cutmix_share'].default:
    raise UserError(
      f'config.data.cutmix_share={data.cutmix_share} has no effect unless both config.data.mixup '
      'and config.data.cutmix are above 0; leave it out.'
    )
  for name in ('mix_share', 'mix_each'):
    if not (data.mixup or data.cutmix) and data[name] != FIELDS[f'data.{name}'].default:
      raise UserError(
        f'config.data.{name}={data[name]} has no effect without config.data.mixup or '
        'config.data.cutmix; leave it out.'
      )


# Fields of `data` that have no effect on the device feed.
_OF_STREAMS = (
  'crop_area', 'crop_interpolation', 'resize', 'interpolation', 'resize_keep_aspect',
  'val_fraction', 'workers',
)  # fmt: skip


def _check_data(config: ConfigDict) -> None:
  data = config.data
  for name in ('crop_area', 'crop_aspect'):
    if list(data[name]) != sorted(data[name]):
      raise UserError(
        f'config.data.{name}={data[name]} must be two numbers, the smaller one first.'
      )
  if data.shorter_side > data.longer_side:
    raise UserError(
      f'config.data.shorter_side={data.shorter_side} is more than '
      f'config.data.longer_side={data.longer_side}; use at most that.'
    )
  if data.val_fraction and data.name != 'image_folder':
    raise UserError(
      f"config.data.val_fraction={data.val_fraction} is for data.name='image_folder'; a part of "
      "another data set is config.data.train_split='train[:90%]'."
    )
  _check_sizes(data)
  if data.randaugment is not None:
    Policy.parse(data.randaugment)
  if data.repeats > 1 and data.sampling != 'uniform':
    raise UserError(
      f'config.data.repeats={data.repeats} is for config.data.sampling=uniform, not for '
      f'{data.sampling}; leave one of them out.'
    )
  if data.repeats > config.batch_size:
    raise UserError(
      f'config.data.repeats={data.repeats} of an image do not fit into a batch of '
      f'{config.batch_size}; use a larger batch_size or fewer.'
    )
  if data.feed == 'stream':
    if (config.steps_per_dispatch or 1) > 1 and not data.fake:
      raise UserError(
        f'config.steps_per_dispatch={config.steps_per_dispatch} needs all images on the device; a '
        'stream gives one batch at a time: leave it out.'
      )
    return
  for name in _OF_STREAMS:
    if name == 'crop_interpolation' and data.randaugment is not None:
      continue  # of what that moves
    if data[name] != FIELDS[f'data.{name}'].default:
      raise UserError(
        f"config.data.{name}={data[name]} has no effect with config.data.feed='device'; use "
        "config.data.feed='stream' or leave it out."
      )


def _check_sizes(data: ConfigDict) -> None:
  sizes, boundaries = data.train_size or (), data.train_size_boundaries
  if boundaries and len(boundaries) != len(sizes) - 1:
    raise UserError(
      f'config.data.train_size_boundaries={boundaries} must be one less than the sizes of '
      f'config.data.train_size={data.train_size}, or none for equal parts of the run.'
    )
  if any(later <= first for first, later in itertools.pairwise(boundaries)):
    raise UserError(f'config.data.train_size_boundaries={boundaries} must rise.')


def differences(
  saved: Mapping[str, Any], given: Mapping[str, Any], *, length: bool = False
) -> dict[str, tuple[Any, Any]]:
  """Returns the differing fields that change what a run computes: `{field: (saved, given)}`.

  Args:
    saved: nested values, also of an earlier version; fields that are missing have their defaults.
    given: the same.
    length: count the length of the run even where steps already taken do not depend on it. Under a
      learning rate that falls until the end, with statistics frozen there, or with several sizes of
      images in equal parts of the run, they do, and it always counts.
  """
  old, new = map(_as_held, (saved, given))
  length |= new['schedule.name'] in ('cosine', 'linear') or new['bn.freeze_last_epochs'] > 0
  length |= len(new['data.train_size'] or ()) > 1 and not new['data.train_size_boundaries']
  resumes = {FREE} if length else {FREE, LENGTH}
  return {
    name: (old.get(name), new.get(name))
    for name in {**old, **new}
    if not (name in FIELDS and FIELDS[name].resume in resumes) and old.get(name) != new.get(name)
  }


def _as_held(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns all fields by name, as this version holds them, and what else there is in `values`."""
  held = {name: field.default for name, field in FIELDS.items()}
  for name, value in _modernized(values).items():
    with contextlib.suppress(UserError):  # a value of another version, which differs then
      value = FIELDS[name].accepted(name, value) if name in FIELDS else value
    held[name] = value
  return held
