"""What a run or a measurement amounts to, and with what it was made."""

import datetime
import platform
from importlib import metadata
from typing import Any

import jax

from senet_jax import runtime
from senet_jax.runtime.commit import git_commit
from senet_jax.training.state import TrainState, params_sha256

_PACKAGES = ('senet_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def summarize(state: TrainState, host: dict[str, Any]) -> dict[str, Any]:
  """The contents of `summary.json`.

  Args:
    state: at the end of the run.
    host: counters and results of the run.
  """
  return {
    'final': host['final'],
    'best': host['best'],
    'steps': int(state.step),
    'epochs': host['final']['epoch'],
    'examples_seen': host['examples_seen'],
    'wall_time_s': round(host['wall_time_s'], 2),
    'device_hours': round(host['device_hours'], 4),
    'images_per_second': round(host['examples_seen'] / host['train_time_s'], 1),
    'params': sum(x.size for x in jax.tree.leaves(state.params)),
    'params_sha256': params_sha256(state.variables),
    'device': runtime.describe_devices(),
    'versions': versions(),
    'git_commit': host['git_commit'],
  }


def record_head(what: str, tool: str, argv: list[str]) -> dict[str, Any]:
  """How a file of `results/` begins.

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
  """Of Python and the packages that decide the numbers."""
  found = {'python': platform.python_version()}
  for name in _PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found
