"""The beginning of a run: afresh, or from the newest whole checkpoint of the same run."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.errors import UserError
from senet_jax.runtime.commit import git_commit
from senet_jax.storage.buckets import Path
from senet_jax.training.progress import Reporter
from senet_jax.training.task import Feeds
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.run_progress import RULES, RunProgress
from senet_jax.workdir.state import TrainState, abstract_state

_STEPS_PER_DISPATCH = 50


def steps_per_dispatch(config: ConfigDict, feeds: Feeds) -> int:
  """Returns how many steps a dispatch takes that the configuration asks for."""
  # XLA:CPU runs convolutions inside loops 20-34 times slower.
  one = jax.default_backend() == 'cpu' or feeds.streamed
  return config.steps_per_dispatch or (1 if one else _STEPS_PER_DISPATCH)


def fresh_progress(config: ConfigDict, feeds: Feeds) -> RunProgress:
  """Returns the progress of a run before its first step."""
  return RunProgress(
    # As JSON gives it back: lists for tuples.
    identity=json.loads(json.dumps({**config.to_dict(), 'dataset': feeds.identity()})),
    looped=steps_per_dispatch(config, feeds) > 1,
    rules=RULES,
    git_commit=git_commit(),
    devices=feeds.mesh.size,
  )


def restored(
  config: ConfigDict,
  feeds: Feeds,
  total: int,
  make_state: Callable[[], TrainState],
  workdir: Path,
  checkpoints: Checkpoints,
  reporter: Reporter,
) -> tuple[TrainState, RunProgress] | None:
  """Returns what the newest whole checkpoint holds, None if there is no checkpoint.

  Records in `metrics.jsonl` of steps that will be run again are dropped.

  Args:
    config: of the run.
    feeds: of the run.
    total: length of the run.
    make_state: the state of a fresh run; only its shapes are looked at.
    workdir: of the run.
    checkpoints: in it.
    reporter: of the run.

  Raises:
    UserError: the checkpoints are those of another run or past its end, or none of them is whole.
  """
  steps = checkpoints.steps()
  if not steps:
    reporter.resume(lambda record: False)
    return None
  identity = fresh_progress(config, feeds).identity
  check_same_run(checkpoints.progress(steps[-1]).identity, identity, workdir)
  abstract = abstract_state(jax.eval_shape(make_state), runtime.replicated(feeds.mesh))
  checkpoint = checkpoints.restore_latest(abstract, reporter.say)
  step = int(checkpoint.state.step)
  runtime.agree('checkpoint', {'newest whole checkpoint': step})
  if step > total:
    raise UserError(
      f'{workdir} is at step {step}, past the {total} steps of this run; raise '
      'config.epochs or config.steps, or give another --workdir.'
    )
  before = checkpoint.progress
  done = {'train': step, 'eval': before.evaluated_step}
  reporter.resume(lambda record: record['step'] <= done[record['kind']])
  reporter.say(f'resumed from step {step} of {total} in {workdir}')
  devices = feeds.mesh.size
  say_if_devices_changed(config, before.devices or devices, devices, reporter.say)
  if before.looped != (steps_per_dispatch(config, feeds) > 1):
    kind = 'several steps' if before.looped else 'one step'
    reporter.say(f'this run began with {kind} a dispatch and keeps that, to stay exact.')
  if before.rules < RULES and config.optimizer.ema_decay:
    reporter.say('this run began with averages of a constant decay and keeps that, to stay exact.')
  feeds.know_unreadable(before.unreadable)
  return checkpoint.state, dataclasses.replace(before, identity=identity, devices=devices)


def check_same_run(saved: dict[str, Any], given: dict[str, Any], workdir: Path) -> None:
  """Refuses to resume a run as another one.

  Args:
    saved: configuration and data in the checkpoint.
    given: those of this run.
    workdir: for the message.

  Raises:
    UserError: fields that change what is computed differ, or the data; the message names them.
  """
  differing = config_lib.differences(saved, given)
  if differing:
    fields = '; '.join(f'{k}: {old!r} there, {new!r} given' for k, (old, new) in differing.items())
    if all(name.startswith('dataset.') for name in differing):
      raise UserError(
        f'{workdir} holds a run on other data or from other weights ({fields}); '
        'bring back the files that it began with or give another --workdir.'
      )
    raise UserError(
      f'{workdir} holds a run of another configuration ({fields}); '
      'set these fields back or give another --workdir.'
    )


def say_if_devices_changed(
  config: ConfigDict, before: int, now: int, say: Callable[[str], None]
) -> None:
  """Says what it means that a run goes on with another number of devices."""
  if before == now:
    return
  effect = ''
  if config.bn.scope == 'local':
    images = f'{config.batch_size // now} images instead of {config.batch_size // before}'
    effect = f'; local batch normalisation is now over {images}, and the run not quite the same'
  say(f'{now} devices instead of {before}, the same batches{effect}.')
