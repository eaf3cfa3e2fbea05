"""The run: trains, evaluates, saves, resumes and reports what a configuration describes."""

import bisect
import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.training.early_stopping import EarlyStopping
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.data import feeds as data_feeds
from senet_jax.errors import UserError
from senet_jax.evaluation.evaluate import eval_program, evaluate, zero_metrics
from senet_jax.reporting import curves
from senet_jax.storage import buckets, files
from senet_jax.storage.buckets import Path
from senet_jax.training import initial, saved, setup
from senet_jax.training.checkpoints import Checkpoints, abstract_state, check_same_run
from senet_jax.training.optimizer import make_optimizer, make_plateau, make_schedule
from senet_jax.training.progress import Clock, Reporter, read_records
from senet_jax.training.state import TrainState
from senet_jax.training.step import StepMetrics, training_program
from senet_jax.training.summary import git_commit, summarize, versions
from senet_jax.workdir.run_progress import Patience, RunProgress

_STEPS_PER_DISPATCH = 50


def train(config: ConfigDict, workdir: str | Path) -> bool:
  """Trains the network of `config` in `workdir`, from its newest checkpoint if it has one.

  Args:
    config: a configuration, see `senet_jax.config`.
    workdir: takes checkpoints, metrics, curves and the summary; made if missing.

  Returns:
    True if the run is complete, False if SIGTERM made it save and stop.

  Raises:
    UserError: the configuration, data or workdir is not usable, or the loss is not finite.
  """
  config_lib.check(config)
  with runtime.Preemption() as stop:
    setup.check_batch(config, len(runtime.all_devices()))
    setup.check_model(config)  # a wrong option ends here, before anything is read or written
    workdir = _shared_workdir(workdir)
    initial.check_source(config, workdir)
    facts = {**dict(config_lib.flatten(config)), '--workdir': str(workdir)}
    facts |= {'code': git_commit(), 'devices': jax.local_device_count(), **versions()}
    runtime.agree('run', facts)
    print(runtime.describe_process(config.batch_size), flush=True)
    feeds = Feeds(config)
    runtime.agree('data', feeds.identity())
    first = runtime.is_first()
    with (
      files.locked(workdir) if first else contextlib.nullcontext(),
      Reporter(workdir, tensorboard=config.log.tensorboard, silent=not first) as reporter,
      Checkpoints(workdir, config.checkpoint.keep) as checkpoints,
    ):
      run = Run(config, workdir, feeds, reporter, checkpoints, stop)
      finished = run.steps_and_evaluations()
    if finished and first:
      run.finish()
    elif not finished:
      reporter.say(f'preempted: saved step {run.step}; the same command resumes from there.')
  return finished


def _shared_workdir(workdir: str | Path) -> Path:
  """The workdir as an absolute path.

  Raises:
    UserError: it is where no checkpoint can be, or relative, which several hosts may take for
      several directories.
  """
  path = buckets.to_path(workdir)
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


class Feeds:
  """The data of a run.

  Attributes:
    mesh: all devices.
    train: the training split.
    eval: the evaluation split.
    num_classes: outputs of the network.
  """

  def __init__(self, config: ConfigDict):
    """Reads both splits onto the devices, or opens them."""
    self.mesh = runtime.data_mesh()
    self.train = data_feeds.training_feed(config, self.mesh)
    self.eval = data_feeds.evaluation_feed(config, config.data.eval_split, self.mesh)
    self.num_classes = config.model.num_classes or self.train.split.num_classes

  def identity(self) -> dict[str, Any]:
    """What tells data sets apart."""
    splits = {'train': self.train.split, 'eval': self.eval.split}
    return {k: {'examples': s.num_examples, 'checksum': s.checksum} for k, s in splits.items()}

  def unreadable(self) -> dict[str, dict[int, str]]:
    """Images of streams that could not be decoded: names by index, by split."""
    feeds = {'train': self.train, 'eval': self.eval}
    return {split: feed.damaged for split, feed in feeds.items() if hasattr(feed, 'damaged')}


class Run:
  """One training run.

  Attributes:
    total: its length in steps.
    step: steps taken.
    state: the training state on the devices.
    progress: what a checkpoint keeps besides: counters, results, configuration.
  """

  def __init__(
    self,
    config: ConfigDict,
    workdir: Path,
    feeds: Feeds,
    reporter: Reporter,
    checkpoints: Checkpoints,
    stop: runtime.Preemption,
  ):
    """Builds everything and starts afresh, or from the newest checkpoint of the same run.

    Raises:
      UserError: the checkpoints are those of another run, or none of them is whole.
    """
    self.config, self.workdir = config, workdir
    self.reporter, self.checkpoints = reporter, checkpoints
    self.feeds, self.mesh, self.feed, self.eval_feed = feeds, feeds.mesh, feeds.train, feeds.eval
    self._stop = stop
    examples = self.feed.split.num_examples
    self.steps_per_epoch = examples / config.batch_size
    self.total = setup.total_steps(config, examples)
    self.eval_steps = setup.eval_steps(config, self.total, self.steps_per_epoch)
    self.freeze_step = self.total - round(config.bn.freeze_last_epochs * self.steps_per_epoch)
    self._check_ranges()
    self.schedule = make_schedule(config, self.total, self.steps_per_epoch)
    self.optimizer = make_optimizer(config, self.schedule)
    self.plateau = make_plateau(config)
    self.model = setup.build_model(config, feeds.num_classes)
    self.progress = self._fresh_progress(feeds.identity())
    self.state = self._restore() or self._fresh_state(self._initial_variables())
    self.step = int(self.state.step)
    for split, names in feeds.unreadable().items():
      known = self.progress.unreadable.get(split, {})
      names.update({int(index): name for index, name in known.items()})
    self._evaluate = eval_program(
      self.model, self.eval_feed, self.mesh, deterministic=config.deterministic
    )
    self._programs: dict[bool, Callable] = {}
    self._pending: StepMetrics | None = None  # of the steps since the last training record
    self._clock = Clock()
    self._exchanges = 0  # with the other processes, of what cannot be read
    self._waited = 0.0  # for data, in seconds, since the last training record
    self._trace = _Trace(config.profile, workdir, reporter.say)
    self._started = time.monotonic() - self.progress.wall_time_s
    if runtime.is_first():
      files.write_json(workdir / 'config.json', config.to_dict())
      saved.write_classes(workdir, feeds.num_classes, self.feed.split.class_names)
    reporter.say(self._headline())
    reporter.begin(self.step, self.total)

  def _check_ranges(self) -> None:
    """Checks what must lie within the run, now that its length is known."""
    freeze, start = self.config.bn.freeze_last_epochs, self.config.profile.start
    if freeze and self.freeze_step <= 0:
      raise UserError(
        f'config.bn.freeze_last_epochs={freeze} is the whole run of {self.total} steps; its '
        'statistics would stay those of the start. Use less.'
      )
    if start is not None and start >= self.total:
      raise UserError(
        f'config.profile.start={start} is past the run of {self.total} steps; use less.'
      )
    if start is not None and buckets.in_bucket(self.workdir):
      raise UserError(
        f'config.profile.start={start}: a trace is written to a disk, and --workdir={self.workdir} '
        'is in a bucket; make it in a short run elsewhere.'
      )

  # --- start ---------------------------------------------------------------------------------

  def _fresh_progress(self, dataset: dict[str, Any]) -> RunProgress:
    return RunProgress(
      # As JSON gives it back: lists for tuples.
      identity=json.loads(json.dumps({**self.config.to_dict(), 'dataset': dataset})),
      looped=self._wanted_steps_per_dispatch() > 1,
      git_commit=git_commit(),
      devices=self.mesh.size,
    )

  def _wanted_steps_per_dispatch(self) -> int:
    one = jax.default_backend() == 'cpu' or data_feeds.streams(self.config)
    default = 1 if one else _STEPS_PER_DISPATCH
    return self.config.steps_per_dispatch or default

  def _initial_variables(self) -> dict[str, Any] | None:
    return initial.initial_variables(self.config, self.model, self.mesh, self.reporter.say)

  def _fresh_state(self, variables: dict[str, Any] | None = None) -> TrainState:
    return setup.init_state(
      self.config, self.model, self.optimizer, self.plateau, self.mesh, variables
    )

  def _restore(self) -> TrainState | None:
    """The newest whole checkpoint, with its progress put in place; None if there is none."""
    steps = self.checkpoints.steps()
    if not steps:
      self.reporter.resume(lambda record: False)
      return None
    identity = self.progress.identity
    found = (self.checkpoints.progress(step) for step in reversed(steps))
    newest = next((progress for progress in found if progress), None)
    if newest:
      check_same_run(newest.identity, identity, self.workdir)
    abstract = abstract_state(jax.eval_shape(self._fresh_state), runtime.replicated(self.mesh))
    restored = self.checkpoints.restore_latest(abstract, self.reporter.say)
    step = int(restored.state.step)
    runtime.agree('checkpoint', {'newest whole checkpoint': step})
    if step > self.total:
      raise UserError(
        f'{self.workdir} is at step {step}, past the {self.total} steps of this run; raise '
        'config.epochs or config.steps, or give another --workdir.'
      )
    self.progress = dataclasses.replace(restored.progress, identity=identity)
    done = {'train': step, 'eval': self.progress.evaluated_step}
    self.reporter.resume(lambda record: record['step'] <= done[record['kind']])
    self.reporter.say(f'resumed from step {step} of {self.total} in {self.workdir}')
    self._say_if_devices_changed(restored.progress.devices or self.mesh.size)
    if self.progress.looped != (self._wanted_steps_per_dispatch() > 1):
      kind = 'several steps' if self.progress.looped else 'one step'
      self.reporter.say(f'this run began with {kind} a dispatch and keeps that, to stay exact.')
    return restored.state

  def _say_if_devices_changed(self, before: int) -> None:
    config, now = self.config, self.mesh.size
    if before == now:
      return
    effect = ''
    if config.bn.scope == 'local':
      images = f'{config.batch_size // now} images instead of {config.batch_size // before}'
      effect = f'; local batch normalisation is now over {images}, and the run not quite the same'
    self.reporter.say(f'{now} devices instead of {before}, the same batches{effect}.')
    self.progress = dataclasses.replace(self.progress, devices=now)

  def _headline(self) -> str:
    config, devices = self.config, self.mesh.size
    params = sum(x.size for x in jax.tree.leaves(self.state.params))
    return (
      f'{config.model.name}, {params:,} parameters, on {config.data.name}'
      f'{" (fake)" if config.data.fake else ""}: {self.feed.split.num_examples} training and '
      f'{self.eval_feed.split.num_examples} evaluation images, {self.total} steps of '
      f'{config.batch_size} = {devices} x {config.batch_size // devices} images; '
      f'{runtime.describe_devices()}, jax {jax.__version__}'
    )

  # --- training ------------------------------------------------------------------------------

  def steps_and_evaluations(self) -> bool:
    """Runs to the end; returns False if it was interrupted, after saving."""
    with self._trace:
      while True:
        due = self.progress.evaluated_step < self.step and self.step in self.eval_steps
        if due and not self._evaluate_and_save():
          break
        if self.step >= self.total or self._early_stopping().should_stop:
          return True
        if not self._stop.noticed:
          self._train_until(self._next_stop())
        if self._stop.noticed:
          break
        every = self.config.checkpoint.every_steps
        if every and self.step % every == 0 and self.step not in self.eval_steps:
          self._save(metrics=None)
    self._save(metrics=None)
    return False

  def _next_stop(self) -> int:
    """The next step at which something other than training happens."""
    step, config = self.step, self.config
    stops = [self.total, self.eval_steps[bisect.bisect_right(self.eval_steps, step)]]
    for every in (config.log.every_steps, config.checkpoint.every_steps):
      if every:
        stops.append((step // every + 1) * every)
    stops += [s for s in (self.freeze_step, *self._trace.steps) if s > step]
    return min(stops)

  def _train_until(self, stop: int) -> None:
    """Dispatches steps until `stop` or an interruption, then reports."""
    first = self.step
    program = self._program(frozen=first >= self.freeze_step)
    at_once = self._wanted_steps_per_dispatch() if self.progress.looped else 1
    self._trace.at(first)
    self._clock.start()
    previous = None
    while self.step < stop and not self._stop.asked():
      asked = time.monotonic()
      inputs, steps = self.feed.inputs(self.step, min(stop - self.step, at_once))
      self._waited += time.monotonic() - asked
      with jax.profiler.StepTraceAnnotation('train', step_num=self.step):
        self.state, report = program(self.state, inputs, np.int32(steps))
      self._pending = report if self._pending is None else _add(self._pending, report)
      self.step += steps
      self.reporter.advance(self.step)
      # At most two dispatches in flight: an interruption never waits for a long queue.
      jax.block_until_ready(previous)
      previous = report
    jax.block_until_ready(self.state)
    images = (self.step - first) * self.config.batch_size
    self.progress = self.progress.after_training(images, self._clock.stop(images))
    self._trace.at(self.step)
    self._check_finite()
    if self._pending and (
      self.step % self.config.log.every_steps == 0 or self.step in self.eval_steps
    ):
      self._report()

  def _program(self, frozen: bool) -> Callable:
    """The compiled training program; `frozen` for the steps at the end with BN kept as it is."""
    if not self._programs:
      self._compile()
    return self._programs[frozen]

  def _compile(self) -> None:
    """Compiles what the run will need, before its first step.

    Later a preemption would have to wait for it with steps that are not saved yet; and so the clock
    counts training alone.
    """
    config, looped = self.config, self.progress.looped
    inputs, _ = self.feed.inputs(self.step, 1)
    for frozen in {self.step >= self.freeze_step, self.freeze_step < self.total}:
      model = setup.build_model(config, self.feeds.num_classes, frozen_bn=frozen)
      program = training_program(
        config, model, self.optimizer, self.feed, self.mesh, looped=looped, frozen_bn=frozen
      )
      self._programs[frozen] = program.lower(self.state, inputs, np.int32(1)).compile()
    inputs = self.eval_feed.inputs(0)
    program = self._evaluate.lower(zero_metrics(), self.state.eval_variables, inputs)
    self._evaluate = program.compile()

  def learning_rate(self, step: int) -> float:
    """Of the step after `step`."""
    return float(self.schedule(step) * self.state.scale)

  def _check_finite(self) -> None:
    bad = self._pending.first_bad_step() if self._pending else None
    if bad is not None:
      self._diverged(f'loss, gradient or update is not finite at step {bad}', bad)

  def _diverged(self, what: str, step: int) -> None:
    good = self.checkpoints.latest()
    where = f'step {good} in {self.workdir}' if good is not None else 'none'
    raise UserError(
      f'{what} (learning rate {self.learning_rate(step - 1):.4g}); last good checkpoint: {where}. '
      'Lower config.optimizer.learning_rate, or add config.schedule.warmup or '
      'config.optimizer.clip_norm, and give another --workdir.'
    )

  def _report(self) -> None:
    rate = self._clock.take_rate()
    record = {
      'kind': 'train',
      'step': self.step,
      'epoch': self._epoch(),
      **self._pending.report(),
      'learning_rate': self.learning_rate(self.step - 1),
      'images_per_second': round(rate, 1),
      'data_wait_s': round(self._waited, 3),
      'eta_s': round((self.total - self.step) * self.config.batch_size / rate, 1),
      'wall_time_s': round(self._wall_time(), 2),
    }
    self._pending, self._waited = None, 0.0
    self.reporter.write(record)

  def _epoch(self) -> float:
    return round(self.step / self.steps_per_epoch, 4)

  def _wall_time(self) -> float:
    return time.monotonic() - self._started

  # --- evaluation and checkpoints ------------------------------------------------------------

  def _evaluate_and_save(self) -> bool:
    """Evaluates, lets schedule and early stopping know, saves; False if interrupted."""
    variables = self.state.eval_variables
    results = evaluate(self._evaluate, variables, self.eval_feed, self._stop.asked)
    if results is None:
      return False
    if not math.isfinite(results['loss']):
      self._diverged(f'evaluation loss is not finite at step {self.step}', self.step)
    record, best = {'step': self.step, 'epoch': self._epoch(), **results}, self.progress.best
    is_best = best is None or record['top1_error'] <= best['top1_error']
    if self.plateau:
      metric = self.config.schedule.metric
      _, plateau = self.plateau.update({}, self.state.plateau, value=results[metric])
      self.state = self.state.replace(plateau=runtime.put_everywhere(plateau, self.mesh))
    stopping = self._early_stopping().update(results[self.config.early_stopping.metric])
    patience = Patience(stopping.best_metric, stopping.patience_count)
    self.progress = self.progress.after_evaluation(record, patience, is_best=is_best)
    self.reporter.write({'kind': 'eval', **record, 'wall_time_s': round(self._wall_time(), 2)})
    self._save(metrics=results)
    return True

  def _early_stopping(self) -> EarlyStopping:
    """Whether to stop, from the counts of the run so far."""
    options, counts = self.config.early_stopping, self.progress.early_stopping
    best = counts.best_metric
    return EarlyStopping(
      min_delta=options.min_delta,
      patience=options.patience,
      best_metric=float('inf') if best is None else best,
      patience_count=counts.patience_count,
      should_stop=0 < options.patience <= counts.patience_count,
    )

  def _save(self, metrics: dict[str, float] | None) -> None:
    self._share_unreadable()
    self._count_time()
    self.checkpoints.save(self.state, self.progress, metrics)

  def _share_unreadable(self) -> None:
    """Brings what each process has found to all of them, and to the checkpoint."""
    found = {k: {str(i): n for i, n in v.items()} for k, v in self.feeds.unreadable().items()}
    self._exchanges += 1
    for theirs in runtime.gather(f'unreadable/{self._exchanges}', found) if found else ():
      for split, names in theirs.items():
        self.feeds.unreadable()[split].update({int(i): name for i, name in names.items()})
        found[split].update(names)
    self.progress = dataclasses.replace(self.progress, unreadable=found)

  def _count_time(self) -> None:
    """Brings the totals of the run up to date, which a restart goes on from."""
    self.progress = self.progress.at_time(self._wall_time(), self.mesh.size)

  # --- end -----------------------------------------------------------------------------------

  def finish(self) -> None:
    """Writes summary and curves, and says where they are."""
    self._count_time()
    summary = summarize(self.state, self.progress)
    if data_feeds.streams(self.config):
      unreadable = self.feeds.unreadable().items()
      summary['unreadable_images'] = {split: sorted(v.values()) for split, v in unreadable}
    files.write_json(self.workdir / 'summary.json', summary)
    config, final, best = self.config, summary['final'], summary['best']
    split = config.data.eval_split
    title = f'{config.model.name} on {config.data.name}: {split} error {final["top1_error"]:.2f} %'
    with files.whole(self.workdir / 'curves.png') as path:
      curves.plot(read_records(self.reporter.path), path, title)
    self.reporter.say(
      f'{split} error {final["top1_error"]:.2f} % after {final["epoch"]:g} epochs '
      f'(best {best["top1_error"]:.2f} % at epoch {best["epoch"]:g}), '
      f'{self.progress.wall_time_s:.0f} s'
    )
    self.reporter.say(f'curves: {self.workdir / "curves.png"}')
    self.reporter.say(f'summary: {self.workdir / "summary.json"}')


class _Trace:
  """An XLA trace of chosen steps; a context manager, so that it ends with the run at the latest.

  Attributes:
    steps: the step before which it starts and the one after which it stops; empty for none.
  """

  def __init__(self, profile: ConfigDict, workdir: Path, say: Callable[[str], None]):
    start = profile.start
    self.steps = () if start is None else (start, start + profile.steps)
    self._directory, self._say = workdir / 'profile', say
    self._since: int | None = None
    self._last = 0

  def __enter__(self) -> None:
    pass

  def __exit__(self, *_) -> None:
    self._end()

  def at(self, step: int) -> None:
    """Starts or ends the trace if `step` is where that is wanted."""
    self._last = step
    if not self.steps:
      return
    start, stop = self.steps
    if self._since is None and start <= step < stop:
      jax.profiler.start_trace(self._directory)
      self._since = step
    elif step >= stop:
      self._end()

  def _end(self) -> None:
    if self._since is not None:
      jax.profiler.stop_trace()
      self._say(f'trace of steps {self._since} to {self._last}: {self._directory}')
      self._since = None


_add = jax.jit(StepMetrics.add)
