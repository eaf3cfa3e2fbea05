"""Errors that a user can cause, worded so that the message alone tells what to do."""

import difflib
from collections.abc import Iterable
from typing import Any

# The exit status of a command that ends with a `UserError`.
USER_ERROR = 2

# More choices than this make a message that nobody reads, and so do longer values.
_LISTED, _SHOWN = 40, 200


class UserError(ValueError):
  """A mistake in what was given: the message says what was given, what is allowed, what to change.

  The commands print it as one line and exit with status 2; a notebook shows that line alone.
  """

  def _render_traceback_(self) -> list[str]:
    """Returns what IPython shows in the place of a traceback."""
    return [f'senet_jax: {self}']


class Stalled(UserError):
  """A thread of this process waits for something that does not come, and cannot be ended."""


def shown(value: Any) -> str:
  """Returns `value` as a message shows it: in one line of bounded length, whatever it is."""
  try:
    text = ' '.join(repr(value).split())
  except (ValueError, RecursionError):
    text = f'({type(value).__name__} too long to be shown)'
  return text if len(text) <= _SHOWN else f'{text[:_SHOWN]}…'


def one_of(field: str, given, allowed: Iterable, hint: str = '') -> None:
  """Checks that `given` is one of `allowed`.

  Args:
    field: what the value is called where the user sets it, such as `model.se.squeeze`.
    given: the value.
    allowed: the values it may have.
    hint: a sentence that ends the message.

  Raises:
    UserError: it is not; the message names the closest allowed values first.
  """
  allowed = list(allowed)
  if given in allowed:
    return
  close = difflib.get_close_matches(str(given), [str(a) for a in allowed], n=3, cutoff=0.5)
  guess = f'; did you mean {" or ".join(map(repr, close))}?' if close else ''
  choices = f' (allowed: {", ".join(map(str, allowed))})' if len(allowed) <= _LISTED else ''
  problem = f'{field}={shown(given)} is unknown{guess}{choices}'
  raise UserError(f'{problem}{"" if problem.endswith("?") else "."} {hint}'.rstrip())


def closest_first(given: str, names: Iterable[str]) -> list[str]:
  """All of `names`, those that are most like `given` first."""
  names = list(names)
  return difflib.get_close_matches(given, names, n=max(len(names), 1), cutoff=0.0)
