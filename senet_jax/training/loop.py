"""The run: trains, evaluates, saves, resumes and reports what a configuration describes."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from senet_jax import cli, config as config_lib, runtime
from senet_jax.errors import UserError
from senet_jax.runtime.commit import git_commit
from senet_jax.storage import buckets, files
from senet_jax.storage.buckets import Path
from senet_jax.training import finish, initial, setup, tasks, trace
from senet_jax.training.plan import Plan
from senet_jax.training.progress import Reporter
from senet_jax.training.run import Run
from senet_jax.training.task import Task
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.summary import versions


def train(
  config: ConfigDict,
  workdir: str | Path,
  task: Task | None = None,
  stop: runtime.Preemption | None = None,
  watch: Callable[[dict[str, Any]], None] | None = None,
) -> bool:
  """Trains the network of `config` in `workdir`, from its newest checkpoint if it has one.

  Args:
    config: a configuration, see `senet_jax.config`.
    workdir: takes checkpoints, metrics, curves and the summary; made if missing.
    task: what to train for, with the same configuration; None: what its network is for.
    stop: says whether to save and stop, of a command that takes the signals itself, as for several
      runs; None: SIGTERM and Ctrl-C do while this function runs.
    watch: is given each record of `metrics.jsonl` once it is there, in the first process, such as
      `reporting.notebook.LiveCurves`.

  Returns:
    True if the run is complete, False if a signal made it save and stop.

  Raises:
    UserError: the configuration, data or workdir is not usable, or the loss is not finite.
  """
  if task is None:
    config_lib.check(config)
    config = initial.inherit(config, buckets.to_path(workdir))
    task = tasks.task_of(config)
  with contextlib.nullcontext(stop) if stop else runtime.Preemption() as stop:
    check(task)
    workdir = shared_workdir(workdir)
    initial.check_source(config, workdir)
    trace.check(config, workdir)
    _agree_with_others(config, workdir)

    feeds = task.open(runtime.data_mesh())
    runtime.agree('data', feeds.identity())
    plan = Plan.create(config, feeds.train.split.num_examples)
    first = runtime.is_first()
    with (
      files.locked(workdir) if first else contextlib.nullcontext(),
      files.provisional(workdir) if first else contextlib.nullcontext(lambda: None) as stays,
      Reporter(
        workdir, task.describe, tensorboard=config.log.tensorboard, silent=not first, watch=watch
      ) as reporter,
      Checkpoints(workdir, config.checkpoint.keep, task.objective) as checkpoints,
      trace.Trace(plan.trace_steps, workdir, reporter.say) as tracing,
    ):
      run = Run(task, workdir, feeds, plan, reporter, checkpoints, tracing, stop)
      run.begin()
      stays()
      finished = _until_done(run)
    if finished and first:
      finish.finish(task, feeds, run.state, run.progress_now(), workdir, reporter)
    elif not finished:
      why = 'interrupted' if stop.interrupted else 'preempted'
      where = f'step {run.step} in {workdir}'
      reporter.say(f'{why}: saved {where}; the same command resumes from there.')
  return finished


def check(task: Task) -> None:
  """Checks what can be wrong with a configuration, before anything is read or written.

  Raises:
    UserError: the run of `task` cannot begin.
  """
  config_lib.check(task.config)
  tasks.check_fields(task)
  setup.check_batch(task.config, len(runtime.all_devices()))
  task.check()


def _until_done(run: Run) -> bool:
  """Trains to the next event, evaluates, saves; returns False if interrupted, after saving."""
  while True:
    if run.evaluation_is_due and not run.evaluate_and_save():
      break
    if run.is_done:
      return True
    if not run.train_until(run.plan.next_event(run.step)):
      break
    if run.plan.saves(run.step):
      run.save()
  run.save()
  return False


def _agree_with_others(config: ConfigDict, workdir: Path) -> None:
  """Checks that all processes were started alike, and says which one this is.

  Raises:
    UserError: they were not.
  """
  facts = {**dict(config_lib.flatten(config)), '--workdir': str(workdir)}
  facts |= {'code': git_commit(), 'devices': jax.local_device_count(), **versions()}
  runtime.agree('run', facts)
  cli.say(runtime.describe_process(config.batch_size))


def shared_workdir(workdir: str | Path) -> Path:
  """Returns the workdir as an absolute path.

  Raises:
    UserError: it is where no checkpoint can be, is not UTF-8, or is relative, which several hosts
      may take for several directories.
  """
  path = buckets.to_path(workdir)
  try:
    str(path).encode()
  except UnicodeEncodeError as error:
    raise UserError(
      f'--workdir={workdir} is not UTF-8, which Orbax needs of the names of its files; rename it.'
    ) from error
  if buckets.in_bucket(path):
    if not str(path).startswith('gs://'):
      raise UserError(
        f'--workdir={workdir}: Orbax writes checkpoints to a file system or to gs://; mount the '
        'bucket (with Mountpoint for S3) and give the directory.'
      )
    with buckets.access(path):
      path.exists()
    return path
  if jax.process_count() > 1 and not path.is_absolute():
    raise UserError(
      f'--workdir={workdir} is relative, which may be another directory on each host; give an '
      'absolute path that all of them share.'
    )
  return path.absolute()
