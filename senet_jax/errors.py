"""Errors that a user can cause, worded so that the message alone tells what to do."""

import difflib
import errno
from collections.abc import Callable, Iterable
from typing import Any

# The exit status of a command that ends with a `UserError`.
USER_ERROR = 2

# More choices than this make a message that nobody reads, and so do longer values.
_LISTED, _SHOWN = 40, 200
# What `near` takes for alike: 'dgo' and 'dog' are by 0.67; 'adam' and 'lamb' by 0.5, and no typo.
_ALIKE = 0.65
# Where one is very near, those that are less so by more are no guesses: 'ratio' of 'ration'.
_WORSE = 0.1
_GUESSES = 3
_SHORTEST_BEGINNING = 3


# What to do about the errors of the system that a user can cause.
OS_ERRORS = {
  errno.ENOSPC: 'free some space or choose another directory',
  errno.EDQUOT: 'free some space or choose another directory',
  errno.EACCES: 'choose a path that you may read and write',
  errno.EPERM: 'choose a path that you may read and write',
  errno.EROFS: 'choose a directory on a writable file system',
  errno.ENOENT: 'check the path',
  errno.ENOTDIR: 'a part of the path is a file, not a directory',
  errno.EEXIST: 'it is a file; choose a directory',
  errno.EISDIR: 'give a file, not a directory',
  errno.ELOOP: 'the path has a link to itself; remove it',
  errno.ENAMETOOLONG: 'give a shorter path',
}


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
    field: what the value is called where the user sets it, such as `model.se.squeeze`; or words
      that it can stand behind, such as `the field`.
    given: the value.
    allowed: the values it may have.
    hint: a sentence that ends the message.

  Raises:
    UserError: it is not; the message names the closest allowed values first.
  """
  allowed = list(allowed)
  if given in allowed:
    return
  guess = did_you_mean(given, allowed)
  choices = f' (allowed: {", ".join(map(str, allowed))})' if len(allowed) <= _LISTED else ''
  named = f'{field} ' if ' ' in field else f'{field}='
  problem = f'{named}{shown(given)} is unknown{guess and f"; {guess}"}{choices}'
  raise UserError(f'{problem}{"" if problem.endswith("?") else "."} {hint}'.rstrip())


def at_least(field: str, given, least) -> None:
  """Checks that the number `given` for `field` is at least `least`.

  Raises:
    UserError: it is smaller, or NaN.
  """
  if not given >= least:
    raise UserError(f'{field}={shown(given)} must be at least {least}.')


def did_you_mean(given, names: Iterable) -> str:
  """Returns the question whether one of the `near` names was meant, empty if none is near."""
  guesses = near(str(given), map(str, names))
  return f'did you mean {" or ".join(map(repr, guesses))}?' if guesses else ''


def near(given: str, names: Iterable[str]) -> list[str]:
  """Returns names that whoever wrote `given` may have meant, at most three, the likeliest first.

  They are those that differ in upper and lower case alone or, if none does, that end in `.given`,
  as `optimizer.learning_rate` does in `learning_rate`; or whose last part has the initials that
  `given` ends in, as `lr`; or that begin with `given`, or whose last part does; or that contain it;
  or that have most of its letters in their order. Where nothing is near, there are none.
  """
  names, given = list(names), given[:_SHOWN].lower()
  ranked = sorted(names, key=lambda name: -_likeness(given, name))
  best = _likeness(given, ranked[0]) if ranked else 0.0
  alike = max(_ALIKE, best - _WORSE)
  short = len(given) < _SHORTEST_BEGINNING
  rules: tuple[Callable[[str], bool], ...] = (
    lambda name: name.lower() == given,
    lambda name: name.lower().endswith(f'.{given}'),
    lambda name: _initials(name) == given.rpartition('.')[2],
    lambda name: not short and name.lower().startswith(given),
    lambda name: not short and f'.{given}' in name.lower(),
    lambda name: not short and given in name.lower(),
    lambda name: _likeness(given, name) >= alike,
  )
  found = (list(filter(rule, ranked)) for rule in rules)
  return next(filter(None, found), [])[:_GUESSES]


def _initials(name: str) -> str | None:
  """Returns those of the words of the last part of a dotted name; None of a single word."""
  words = [word for word in name.lower().rpartition('.')[2].split('_') if word]
  return ''.join(word[0] for word in words) if len(words) > 1 else None


def _likeness(given: str, name: str) -> float:
  """Returns the share of letters in common, of a name without dots also with the last part."""
  name = name.lower()
  parts = {name} if '.' in given else {name, name.rpartition('.')[2]}
  return max(difflib.SequenceMatcher(a=part, b=given).ratio() for part in parts)


def closest_first(given: str, names: Iterable[str]) -> list[str]:
  """All of `names`, those that are most like `given` first."""
  names = list(names)
  return difflib.get_close_matches(given, names, n=max(len(names), 1), cutoff=0.0)
