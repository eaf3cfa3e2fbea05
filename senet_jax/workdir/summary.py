"""Summaries of runs and measurements, with the versions and devices that made them."""

import datetime
import platform
from importlib import metadata
from typing import Any

import jax

from senet_jax import runtime
from senet_jax.runtime.commit import git_commit
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState, params_sha256

_PACKAGES = ('senet_jax', 'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def summarize(state: TrainState, progress: RunProgress) -> dict[str, Any]:
  """Returns the contents of `summary.json`.

  Args:
    state: at the end of the run.
    progress: of the run, which has been evaluated.
  """
  return {
    'final': progress.final,
    'best': progress.best,
    'steps': int(state.step),
    'epochs': progress.final['epoch'],
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
