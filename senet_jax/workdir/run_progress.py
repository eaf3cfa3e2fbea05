"""The progress of a run: what a checkpoint keeps besides arrays."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# The rules by which a run draws its keys and averages its weights. A run keeps those that it began
# with, so that it goes on as it would have gone on then:
#   1  the keys of dropout are those of steps and devices, and may be those of an augmentation, too;
#      the decay of averaged weights is constant.
#   2  the keys of dropout are of a stream of their own; the decay rises, see `step.ema_decay`.
RULES = 2

# What each field of the JSON may be; the names on disk are those of the attributes.
_NONE = type(None)
_TYPES = {
  'identity': dict,
  'looped': bool,
  'rules': int,
  'git_commit': (str, _NONE),
  'examples_seen': int,
  'wall_time_s': (int, float),
  'train_time_s': (int, float),
  'devices': (int, _NONE),
  'device_hours': (int, float),
  'evaluated_step': int,
  'final': (dict, _NONE),
  'best': (dict, _NONE),
  'early_stopping': dict,
  'unreadable': dict,
}
# Of an evaluation, besides its results; of `Patience`.
_RECORD = {'step': int, 'epoch': (int, float)}
_PATIENCE = {'best_metric': (int, float, _NONE), 'patience_count': int}


@dataclasses.dataclass(frozen=True)
class Patience:
  """The counts of early stopping.

  Attributes:
    best_metric: the lowest value so far; None before the first evaluation.
    patience_count: evaluations since it was reached.
  """

  best_metric: float | None = None
  patience_count: int = 0


@dataclasses.dataclass(frozen=True)
class RunProgress:
  """The progress of a run, apart from the arrays of its state.

  A checkpoint keeps it as JSON, under the name `host` and with the names of these attributes.

  Attributes:
    identity: nested fields of the configuration, and under `dataset` what tells data sets apart;
      only a run that agrees in them may go on from here.
    looped: whether the run takes several steps a dispatch. Such a program differs from one of
      single steps in the last bits, so a run keeps its kind.
    rules: those of `RULES` that the run began with.
    git_commit: of the code that began the run; None if it is not known.
    examples_seen: in training.
    wall_time_s: seconds in all processes that the run has had, one after the other.
    train_time_s: the part of it without compilation, evaluation and saving.
    devices: how many the run is on; None in a checkpoint that does not say.
    device_hours: `wall_time_s` times the devices of each process, in hours.
    evaluated_step: the step of the last evaluation, 0 before the first.
    final: step, epoch and results of the last evaluation; None before the first.
    best: the same of the best evaluation, of the later one where two are equal.
    early_stopping: what early stopping counts.
    unreadable: names of the images of a stream that could not be decoded, by split and index.
  """

  identity: dict[str, Any]
  looped: bool = False
  rules: int = 1
  git_commit: str | None = None
  examples_seen: int = 0
  wall_time_s: float = 0.0
  train_time_s: float = 0.0
  devices: int | None = None
  device_hours: float = 0.0
  evaluated_step: int = 0
  final: dict[str, Any] | None = None
  best: dict[str, Any] | None = None
  early_stopping: Patience = Patience()
  unreadable: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_json(cls, found: Mapping[str, Any]) -> 'RunProgress':
    """Reads what `to_json` gave; fields that an older version did not keep have their defaults.

    Raises:
      ValueError: the identity is missing, or a field has another type.
    """
    if not isinstance(found, Mapping) or 'identity' not in found:
      raise ValueError('it does not say of which run it is')
    fields = {name: found[name] for name in _TYPES if name in found}
    if fields.get('rules', 1) not in range(1, RULES + 1):
      raise ValueError(f'rules is {fields["rules"]!r}, which this version does not know')
    _check_types(fields, _TYPES)
    for name in ('final', 'best'):
      if fields.get(name) is not None:
        _check_types(fields[name], _RECORD)
        if missing := _RECORD.keys() - fields[name].keys():
          raise ValueError(f'{name} lacks {min(missing)}')
    counts = fields.pop('early_stopping', {})
    known = {name: counts[name] for name in _PATIENCE if name in counts}
    _check_types(known, _PATIENCE)
    return cls(**fields, early_stopping=Patience(**known))

  @staticmethod
  def names() -> frozenset[str]:
    """Returns the names of the fields that `to_json` gives."""
    return frozenset(_TYPES)

  def to_json(self) -> dict[str, Any]:
    """Returns nested values that `json` can write."""
    return dataclasses.asdict(self)

  def after_training(self, images: int, seconds: float) -> 'RunProgress':
    """Returns the progress after further steps.

    Args:
      images: of these steps.
      seconds: that they took.
    """
    return dataclasses.replace(
      self,
      examples_seen=self.examples_seen + images,
      train_time_s=self.train_time_s + seconds,
    )

  def after_evaluation(
    self, record: dict[str, Any], patience: Patience, *, is_best: bool
  ) -> 'RunProgress':
    """Returns the progress after an evaluation.

    Args:
      record: `step`, `epoch` and results.
      patience: what early stopping counts now.
      is_best: no evaluation before was better.
    """
    return dataclasses.replace(
      self,
      evaluated_step=record['step'],
      final=record,
      best=record if is_best else self.best,
      early_stopping=patience,
    )

  def at_time(self, wall_time_s: float, devices: int) -> 'RunProgress':
    """Returns the progress when the run has taken `wall_time_s`, the last of it on `devices`."""
    spent = (wall_time_s - self.wall_time_s) * devices / 3600
    return dataclasses.replace(
      self, wall_time_s=wall_time_s, device_hours=self.device_hours + spent
    )


def _check_types(fields: Mapping[str, Any], types: Mapping[str, Any]) -> None:
  for name, value in fields.items():
    if name in types and not isinstance(value, types[name]):
      raise ValueError(f'{name} is {repr(value)[:80]}')
