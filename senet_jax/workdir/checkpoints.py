"""Checkpoints through Orbax: the newest few and the best, resumed exactly or refused clearly."""

import contextlib
import dataclasses
import errno
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from senet_jax.errors import UserError
from senet_jax.runtime import checksum, is_first
from senet_jax.storage import buckets
from senet_jax.storage.buckets import Path
from senet_jax.workdir.objective import TOP1, Objective
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState

_DIRECTORY = 'checkpoints'
_DAMAGED = 'damaged'
# Where old ones are moved before their files go, one after the other: a kill leaves no half of one.
_DELETED = 'deleted'


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Within the block Orbax does not warn that it only reads, which is what is wanted."""
  log = logging.getLogger('absl')
  before = log.level
  log.setLevel(max(before, logging.ERROR))
  try:
    yield
  finally:
    log.setLevel(before)


@dataclasses.dataclass(frozen=True)
class Restored:
  """A checkpoint that was read and found whole.

  Attributes:
    state: the training state.
    progress: what the run keeps besides arrays: counters, results, configuration.
  """

  state: TrainState
  progress: RunProgress


class Checkpoints:
  """The checkpoints of one workdir.

  Saving is asynchronous; `close` (or the end of a `with`) waits for it. Each checkpoint has two
  items, `state` and `host`, which is a `RunProgress` and the checksum of the state.
  """

  def __init__(
    self,
    workdir: Path,
    keep: int = 2,
    objective: Objective = TOP1,
    *,
    read_only: bool = False,
  ):
    """Says which checkpoints; they are opened by `with`.

    Args:
      workdir: of the run, absolute.
      keep: the number of newest ones that are kept, besides the best.
      objective: says which is the best.
      read_only: change nothing.
    """
    self._directory, self._objective = workdir / _DIRECTORY, objective
    # Orbax marks a checkpoint in a bucket as whole, and deletes without moving.
    moves = not read_only and not buckets.in_bucket(workdir)
    self._options = ocp.CheckpointManagerOptions(
      preservation_policy=policies.AnyPreservationPolicy(
        [
          policies.LatestN(keep),
          policies.BestN(
            get_metric_fn=lambda results: -objective.cost(results),  # the highest is kept
            n=1,
            keep_checkpoints_without_metrics=False,
          ),
        ]
      ),
      # Without it the metrics would not be written, and the best be forgotten on a restart.
      best_fn=lambda results: -objective.cost(results),
      save_decision_policy=policies.FixedIntervalPolicy(1),
      save_interval_steps=0 if read_only else 1,  # or Orbax warns that it sets it
      todelete_subdir=_DELETED if moves else None,
      enable_async_checkpointing=not read_only,
      create=not read_only,
      read_only=read_only,
    )

  def _open(self) -> ocp.CheckpointManager:
    # The manager reads the metrics of all checkpoints and does not survive damaged ones.
    steps = ocp.path.step.standard_name_format().find_all(self._directory)
    broken = [self._directory / step.path.name for step in steps if _broken(step, self._objective)]
    if broken and self._options.read_only:
      raise UserError(f'checkpoint {broken[0]} is damaged; resume the run, which sets it aside.')
    for path in broken:
      _move_away(path)
    _empty_deleted(self._directory, self._options)
    handlers = {'state': ocp.StandardCheckpointHandler(), 'host': ocp.JsonCheckpointHandler()}
    with _quiet() if self._options.read_only else contextlib.nullcontext():
      return ocp.CheckpointManager(self._directory, options=self._options, item_handlers=handlers)

  def __enter__(self) -> 'Checkpoints':
    self._manager = self._open()
    return self

  def __exit__(self, *_) -> None:
    """Waits for the last save."""
    with _disk_errors(self._directory):
      self._manager.wait_until_finished()
      self._manager.close()
      _empty_deleted(self._directory, self._options)

  def steps(self) -> list[int]:
    """Steps that have a complete checkpoint, rising."""
    return sorted(self._manager.all_steps())

  def latest(self) -> int | None:
    """Returns the newest step, None if there is no checkpoint."""
    return max(self._manager.all_steps(), default=None)

  def best(self) -> int | None:
    """Returns the step with the best evaluation, the later of equal ones; None if none has one."""
    costs = {}
    for step in self.steps():
      results = self._manager.metrics(step)
      if results:
        costs[step] = self._objective.cost(results)
    return min(costs, key=lambda step: (costs[step], -step), default=None)

  def save(self, state: TrainState, progress: RunProgress, metrics: dict | None) -> None:
    """Starts to save a run, with the evaluation `metrics` of this step if there are any.

    Saving a step again does nothing, unless it is now known how good it is, and an older checkpoint
    is there in case this is the moment of a kill.

    Raises:
      UserError: the disk is full or not writable.
    """
    step = int(state.step)
    # A copy: the next step takes the memory of `state` while the files are still being written.
    state = jax.tree.map(np.array, state)
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      host=ocp.args.JsonSave({**progress.to_json(), 'checksum': checksum(state)}),
    )
    with _disk_errors(self._directory):
      self._manager.wait_until_finished()  # it may be moving an old one
      _empty_deleted(self._directory, self._options)
      steps = self.steps()
      if step in steps:
        if metrics is None or step == steps[0]:
          return
        self._manager.delete(step)
      if not self._manager.save(step, args=items, metrics=metrics):
        raise RuntimeError(f'Orbax refused to save step {step} in {self._directory}')

  def restore(self, abstract: TrainState, step: int) -> Restored:
    """Reads a checkpoint whole and checks it.

    Args:
      abstract: shapes, dtypes and shardings of the state.
      step: one of `steps()`.

    Raises:
      UserError: its files are damaged.
    """
    return _restored(self._manager, self._directory, step, lambda: abstract, lambda state: state)

  def read(self, step: int) -> Restored:
    """Reads a checkpoint whole into host memory and checks it, whatever its optimizer is.

    Args:
      step: one of `steps()`.

    Returns:
      It; `opt_state` is as `TrainState.from_arrays` has it.

    Raises:
      UserError: its files are damaged.
    """

    def like_the_files():
      tree = self._manager.item_metadata(step).state.tree
      return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)

    return _restored(self._manager, self._directory, step, like_the_files, TrainState.from_arrays)

  def progress(self, step: int) -> RunProgress | None:
    """Returns what a checkpoint keeps besides arrays, None if it cannot be read."""
    try:
      items = self._manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))
      return RunProgress.from_json(items.host)
    except Exception:  # nearly any, of contents that are nearly any
      return None

  def restore_latest(self, abstract: TrainState, say: Callable[[str], None]) -> Restored:
    """Returns the newest whole checkpoint.

    Damaged ones on the way are moved to `workdir/damaged`, each with a line.

    Raises:
      UserError: none is whole.
    """
    steps = self.steps()
    damaged = []
    for step in reversed(steps):
      try:
        restored = self.restore(abstract, step)
      except UserError as error:
        say(f'{error} Falling back to the one before.')
        damaged.append(step)
        continue
      if damaged:  # or their steps could not be saved again
        self._manager.close()
        for broken in damaged:
          _move_away(self._directory / str(broken))
        self._manager = self._open()
      return restored
    raise UserError(
      f'none of the checkpoints {steps} in {self._directory} can be read; '
      'move that directory away to start again, or give another --workdir.'
    )


def _empty_deleted(directory: Path, options: ocp.CheckpointManagerOptions) -> None:
  """Removes the checkpoints that Orbax has put away to be deleted."""
  if is_first() and options.todelete_subdir:
    shutil.rmtree(directory / _DELETED, ignore_errors=True)


def _move_away(path: Path) -> None:
  """Moves a damaged checkpoint to `workdir/damaged`."""
  target = path.parent.parent / _DAMAGED
  target.mkdir(exist_ok=True)
  place = target / f'{path.name}.{len(list(target.iterdir())) if target.exists() else 0}'
  buckets.move(path, place)


def _restored(
  manager: ocp.CheckpointManager,
  directory: Path,
  step: int,
  abstract: Callable[[], Any],
  to_state: Callable[[Any], TrainState],
) -> Restored:
  """Reads a checkpoint whole and checks it.

  Args:
    manager: of the checkpoints.
    directory: of the checkpoints, for messages.
    step: of the checkpoint.
    abstract: returns what Orbax is to restore.
    to_state: makes the state of what Orbax has restored.

  Raises:
    UserError: its files are damaged.
  """
  try:
    items = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract()), host=ocp.args.JsonRestore()
      ),
    )
    state = to_state(items.state)
    whole = checksum(state) == items.host['checksum']
    progress = RunProgress.from_json(items.host)
  except Exception as error:
    if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
      raise
    reason = f'{type(error).__name__}: {error}'.splitlines()[0]
    raise UserError(f'checkpoint {step} in {directory} is damaged ({reason}).') from error
  if not whole:
    raise UserError(f'checkpoint {step} in {directory} is damaged (checksum differs).')
  return Restored(state, progress)


def _broken(step: ocp.path.step.Metadata, objective: Objective) -> bool:
  path = step.path
  metrics = path / 'metrics' / 'metrics'
  try:
    _ = step.commit_timestamp  # makes Orbax read what it keeps of a step
    if not all((path / item).is_dir() for item in ('state', 'host')):
      return True
    return metrics.exists() and not math.isfinite(objective.cost(json.loads(metrics.read_text())))
  except Exception:  # nearly any, of contents that are nearly any
    return True


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
  """Turns what the storage libraries raise on a full or unwritable disk into a `UserError`."""
  try:
    yield
  except Exception as error:
    text = str(error)
    if getattr(error, 'errno', None) == errno.ENOSPC or 'No space left' in text:
      what = 'no space left'
    elif isinstance(error, PermissionError) or 'ermission denied' in text or 'Read-only' in text:
      what = 'not writable'
    else:
      raise
    raise UserError(
      f'cannot write a checkpoint to {directory}: {what}; free some space or choose another '
      '--workdir. The checkpoints before it are whole.'
    ) from error
