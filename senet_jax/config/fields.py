"""The declaration of one field of a configuration, and the check of its values."""

import dataclasses
import math
import os
import types
from collections.abc import Sequence
from typing import Any

from senet_jax.errors import UserError, one_of, shown

# Bounds of open intervals, and the largest number of steps that a device counts.
POSITIVE, BELOW_1 = math.nextafter(0, 1), math.nextafter(1, 0)
INT32 = 2**31 - 1

# What a run that goes on may do with a field: nothing, as numbers depend on it; change how long it
# goes on, where steps already taken do not depend on that; or anything.
FIXED, LENGTH, FREE = 'fixed', 'length', 'free'

# Longer texts are no names, and no system takes them for paths.
_LONGEST = 4096
_KINDS = {
  bool: 'True or False',
  int: 'a whole number',
  float: 'a finite number',
  str: f'a printable text of at most {_LONGEST} characters',
}
_PLURALS = {int: 'whole numbers', float: 'finite numbers', str: 'printable texts'}


@dataclasses.dataclass(frozen=True)
class Field:
  """A field of a configuration.

  Attributes:
    default: its value where nothing else is said; None: the field is optional.
    help: one line on what it does.
    kind: type of the value, or of each element of a tuple; `NoneType`: that of `default`.
    within: least and greatest number, None for no bound.
    choices: the only values, where other rooms do not know more.
    lengths: how many elements a tuple may have; None: the value is no tuple.
    word: what may stand in the place of a tuple.
    former: a value of earlier versions, and what it means.
    resume: `FIXED`, `LENGTH` or `FREE`.
    function: whether the network computes something else with another value in an evaluation.
    task: the only one whose runs have a use for it, of `models.ModelInfo`; None: all have.
  """

  default: Any
  help: str
  kind: type = types.NoneType
  _: dataclasses.KW_ONLY
  within: tuple[float | None, float | None] = (None, None)
  choices: tuple[str, ...] = ()
  lengths: Sequence[int] | None = None
  word: str | None = None
  former: tuple[Any, Any] | None = None
  resume: str = FIXED
  function: bool = False
  task: str | None = None

  def __post_init__(self):
    if self.kind is types.NoneType:
      object.__setattr__(self, 'kind', type(self.default))

  @property
  def optional(self) -> bool:
    """True if the field may be None."""
    return self.default is None

  @property
  def value_type(self) -> type:
    """The type of the whole value."""
    return self.kind if self.lengths is None else tuple

  @property
  def allowed(self) -> str:
    """The values that the field may have, in words."""
    if self.lengths is None:
      text = ', '.join(self.choices) or _KINDS[self.kind] + self._bounds(' of')
    else:
      is_range = isinstance(self.lengths, range)
      ends = (self.lengths[0], self.lengths[-1]) if is_range else self.lengths
      counts = (' to ' if is_range else ' or ').join(map(str, ends))
      text = f'a tuple of {counts} {_PLURALS[self.kind]}{self._bounds(",")}'
    word = repr(self.word) if self.word else None
    return ' or '.join(filter(None, [word, text, 'None' if self.optional else None]))

  def _bounds(self, link: str) -> str:
    low, high = self.within
    if low is None:
      return ''
    if low != POSITIVE and high not in (None, BELOW_1):
      return f' from {low} to {high}'
    least = ' greater than 0' if low == POSITIVE else f'{link} at least {low}'
    return least + {None: '', BELOW_1: ' and below 1'}.get(high, f' and at most {high}')

  def accepted(self, name: str, value: Any) -> Any:
    """Returns `value` as a configuration holds it: a list as a tuple, an integer as a float.

    Args:
      name: of the field, `model.se.ratio`.
      value: what was given, of any type.

    Raises:
      UserError: the field may not have it.
    """
    if self.former and isinstance(value, str) and value == self.former[0]:
      return self.former[1]
    if (value is None and self.optional) or (isinstance(value, str) and value == self.word):
      return value
    try:
      if self.lengths is None:
        return self._element(value)
      number = self.kind is not str and isinstance(value, int | float)
      elements = (value,) if number else value
      if not isinstance(elements, tuple | list) or len(elements) not in self.lengths:
        raise ValueError
      return tuple(map(self._element, elements))
    except (ValueError, OverflowError):
      if self.choices and isinstance(value, str):
        one_of(f'config.{name}', value, self.choices)
      raise UserError(f'config.{name}={shown(value)} must be {self.allowed}.') from None

  def _element(self, value: Any) -> Any:
    kinds = (int, float) if self.kind is float else self.kind
    if not isinstance(value, kinds) or isinstance(value, bool) != (self.kind is bool):
      raise ValueError
    value = self.kind(value)
    if self.choices and value not in self.choices:
      raise ValueError
    if self.kind is str and (len(value) > _LONGEST or b'\0' in os.fsencode(value)):
      raise ValueError
    if self.kind is float and not math.isfinite(value):
      raise ValueError
    low, high = self.within
    if (low is not None and value < low) or (high is not None and value > high):
      raise ValueError
    return value
