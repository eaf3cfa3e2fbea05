"""Summaries of runs and measurements, with the versions and devices that made them."""

import datetime
import json
import platform
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

import jax

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.runtime.commit import git_commit
from senet_jax.storage import files
from senet_jax.storage.buckets import Path
from senet_jax.workdir.objective import OF_TASK
from senet_jax.workdir.records import is_number
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState, params_sha256

_FILE = 'summary.json'
# More than any run has of anything, and few enough to reckon with.
_MOST = 1e12
_PACKAGES = ('senet_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def write(workdir: Path, summary: dict[str, Any]) -> None:
  """Writes the summary of a run, at its end."""
  files.write_json(workdir / _FILE, summary)


def read(workdir: Path, needs: Sequence[str] = ()) -> dict[str, Any]:
  """Returns the summary of a finished run.

  Args:
    workdir: of the run.
    needs: names of fields, of which those of an earlier version may lack some.

  Raises:
    UserError: there is none, or it is damaged.
  """
  path = workdir / _FILE
  try:
    found = json.loads(path.read_bytes())
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UserError(f'{workdir} holds no finished run: there is no {_FILE} in it.') from error
  except (ValueError, RecursionError) as error:
    raise _damaged(path, str(error)) from error
  if not isinstance(found, dict):
    raise _damaged(path, 'it is no object')
  for name in (*_NEEDED, *needs):
    if name not in found:
      raise _damaged(path, f'{name} is missing')
  for name, value in found.items():
    if not _TYPES.get(name, lambda value: True)(value):
      raise _damaged(path, f'{name} is {repr(value)[:80]}')
  return found


def _damaged(path: Path, why: str) -> UserError:
  return UserError(f'{path} is damaged ({why}); the command that made the run writes it anew.')


def _is_count(value: Any) -> bool:
  return is_number(value) and 0 <= value < _MOST


def _is_evaluation(value: Any) -> bool:
  if not isinstance(value, dict):
    return False
  metrics = [objective.metric for objective in OF_TASK.values() if objective.metric in value]
  return bool(metrics) and all(_is_count(value.get(name)) for name in ('step', 'epoch', *metrics))


_NEEDED = ('final', 'wall_time_s', 'params_sha256')
_TYPES: dict[str, Callable[[Any], bool]] = {
  **dict.fromkeys(('final', 'best'), _is_evaluation),
  **dict.fromkeys(
    ('steps', 'epochs', 'examples_seen', 'wall_time_s', 'device_hours', 'images_per_second'),
    _is_count,
  ),
  'params': lambda value: isinstance(value, int) and _is_count(value),
  **dict.fromkeys(('params_sha256', 'device'), lambda value: isinstance(value, str)),
}


def summarize(state: TrainState, progress: RunProgress) -> dict[str, Any]:
  """Returns the contents of `summary.json`.

  Args:
    state: at the end of the run.
    progress: of the run, which has been evaluated.
  """
  final: Any = progress.final
  return {
    'final': final,
    'best': progress.best,
    'steps': int(state.step),
    'epochs': final['epoch'],
    'examples_seen': progress.examples_seen,
    'wall_time_s': round(progress.wall_time_s, 2),
    'device_hours': round(progress.device_hours, 4),
    'images_per_second': round(progress.examples_seen / progress.train_time_s, 1),
    'params': sum(x.size for x in jax.tree.leaves(state.params)),
    'params_sha256': params_sha256(state.variables),
    'device': runtime.describe_devices(),
    'versions': versions(),
    'git_commit': progress.git_commit,
  }


def record_head(what: str, tool: str, argv: list[str]) -> dict[str, Any]:
  """Returns the beginning of a file of `results/`.

  Args:
    what: its numbers are.
    tool: the command of `senet_jax.tools` that measured them.
    argv: its arguments.
  """
  return {
    'what': what,
    'command': f'python -m senet_jax.tools.{tool} ' + ' '.join(argv),
    'date': datetime.datetime.now(datetime.UTC).date().isoformat(),
    'device': runtime.describe_devices(),
    'git_commit': git_commit(),
    'versions': versions(),
  }


def versions() -> dict[str, str]:
  """Returns the versions of Python and of the packages that decide the numbers."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found
