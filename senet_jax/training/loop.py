"""The run: trains, evaluates, saves, resumes and reports what a configuration describes."""

import bisect
import functools
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
from flax.training.early_stopping import EarlyStopping
from ml_collections import ConfigDict

from senet_jax import cli, config as config_lib, runtime
from senet_jax.data.device_feed import DeviceFeed, EvalFeed
from senet_jax.errors import UserError
from senet_jax.evaluation.evaluate import eval_program, evaluate
from senet_jax.training import curves, setup
from senet_jax.training.checkpoints import Checkpoints, abstract_state, check_same_run
from senet_jax.training.optimizer import make_optimizer, make_plateau, make_schedule
from senet_jax.training.progress import Clock, Reporter, read_records
from senet_jax.training.state import checksum
from senet_jax.training.step import StepMetrics, StepOptions, train_program, train_step
from senet_jax.training.summary import summarize

_STEPS_PER_DISPATCH = 100


def train(config: ConfigDict, workdir: str | pathlib.Path) -> int:
  """Trains the network of `config` in `workdir`, from its newest checkpoint if it has one.

  Args:
    config: a configuration, see `senet_jax.config`.
    workdir: takes checkpoints, metrics, curves and the summary; made if missing.

  Returns:
    The exit status: 0 if the run is complete, `cli.PREEMPTED` if SIGTERM made it save and stop.

  Raises:
    UserError: the configuration, data or workdir is not usable, or the loss is not finite.
  """
  config_lib.check(config)
  setup.build_model(config)  # a wrong option ends here, before anything is written
  setup.check_batch(config, jax.device_count())
  workdir = pathlib.Path(workdir).expanduser().absolute()
  run = Run(config, workdir)
  with Reporter(workdir, run.total, tensorboard=config.log.tensorboard) as reporter:
    with (
      Checkpoints(workdir, config.checkpoint.keep) as checkpoints,
      runtime.on_sigterm(run.interrupt),
    ):
      run.start(reporter, checkpoints)
      finished = run.steps_and_evaluations()
    if not finished:
      reporter.say(f'preempted: saved step {run.step}; the same command resumes from there.')
      return cli.PREEMPTED
    run.finish()
  return 0


class Run:
  """One training run.

  Attributes:
    total: its length in steps.
    state: the training state on the devices.
    host: what a checkpoint keeps besides: counters, results, configuration.
  """

  def __init__(self, config: ConfigDict, workdir: pathlib.Path):
    """Builds everything; nothing runs yet, and only the workdir is made."""
    self.config = config
    self.workdir = workdir
    self.mesh = runtime.data_mesh()
    self.feed = DeviceFeed.create(config, self.mesh)
    self.eval_feed = EvalFeed.create(config, config.data.eval_split, self.mesh)
    self.steps_per_epoch = self.feed.split.num_examples / config.batch_size
    self.total = setup.total_steps(config, self.feed.split.num_examples)
    self.eval_steps = setup.eval_steps(config, self.total, self.steps_per_epoch)
    self.freeze_step = self.total - round(config.bn.freeze_last_epochs * self.steps_per_epoch)
    self.schedule = make_schedule(config, self.total, self.steps_per_epoch)
    self.optimizer = make_optimizer(config, self.schedule)
    self.plateau = make_plateau(config)
    self._interrupted = False
    self._pending: StepMetrics | None = None  # of the steps since the last training record
    self._clock = Clock()
    workdir.mkdir(parents=True, exist_ok=True)

  @property
  def step(self) -> int:
    """Steps taken; waits for the device."""
    return int(self.state.step)

  def interrupt(self) -> None:
    """Asks the run to save and stop at the next opportunity."""
    self._interrupted = True

  # --- start ---------------------------------------------------------------------------------

  def start(self, reporter: Reporter, checkpoints: Checkpoints) -> None:
    """Starts afresh, or from the newest checkpoint of the same run."""
    self.reporter, self.checkpoints = reporter, checkpoints
    model = setup.build_model(self.config)
    self.state = setup.init_state(self.config, model, self.optimizer, self.plateau, self.mesh)
    self.host = self._fresh_host()
    self._restore()
    self._evaluate = eval_program(model, self.eval_feed, self.mesh)
    cli.write_json(self.workdir / 'config.json', self.config.to_dict())
    reporter.say(self._headline())
    reporter.advance(self.step)
    self._started = time.monotonic() - self.host['wall_time_s']

  def _fresh_host(self) -> dict[str, Any]:
    k = self.config.steps_per_dispatch
    if k is None:
      k = 1 if jax.default_backend() == 'cpu' else _STEPS_PER_DISPATCH
    self.steps_per_dispatch = k
    # As JSON gives it back: lists for tuples.
    identity = json.loads(json.dumps(self.config.to_dict()))
    identity['dataset'] = {
      kind: {'examples': split.num_examples, 'checksum': int(checksum(split.arrays))}
      for kind, split in (('train', self.feed.split), ('eval', self.eval_feed.split))
    }
    return {
      'identity': identity,
      # A looped and a per-step program differ in the last bits: a run keeps its kind.
      'looped': k > 1,
      'examples_seen': 0,
      'wall_time_s': 0.0,
      'train_time_s': 0.0,  # without compilation, evaluation and saving
      'evaluated_step': 0,
      'final': None,
      'best': None,
      'early_stopping': {'best_metric': None, 'patience_count': 0},
    }

  def _restore(self) -> None:
    steps = self.checkpoints.steps()
    hosts = (self.checkpoints.host(step) for step in reversed(steps))
    newest = next((host for host in hosts if host), None)
    if newest:
      check_same_run(newest['identity'], self.host['identity'], self.workdir)
    abstract = abstract_state(self.state, runtime.replicated(self.mesh))
    restored = self.checkpoints.restore_latest(abstract, self.reporter.say)
    if restored is None:
      self.reporter.resume(lambda record: False)
      return
    identity = self.host['identity']
    self.state, self.host = restored.state, {**restored.host, 'identity': identity}
    done = {'train': self.step, 'eval': self.host['evaluated_step']}
    self.reporter.resume(lambda record: record['step'] <= done[record['kind']])
    self.reporter.say(f'resumed from step {self.step} of {self.total} in {self.workdir}')

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
    while True:
      step = self.step
      due = self.host['evaluated_step'] < step and step in self.eval_steps
      if due and not self._evaluate_and_save(step):
        break
      if step >= self.total or self._early_stopping().should_stop:
        return True
      self._train_until(self._next_stop(step))
      if self._interrupted:
        break
      every = self.config.checkpoint.every_steps
      if every and self.step % every == 0 and self.step not in self.eval_steps:
        self._save(metrics=None)
    self._save(metrics=None)
    return False

  def _next_stop(self, step: int) -> int:
    """The next step at which something other than training happens."""
    config = self.config
    stops = [self.total, self.eval_steps[bisect.bisect_right(self.eval_steps, step)]]
    for every in (config.log.every_steps, config.checkpoint.every_steps):
      if every:
        stops.append((step // every + 1) * every)
    stops += [s for s in (self.freeze_step, *self._profile_range()) if s > step]
    return min(stops)

  def _train_until(self, stop: int) -> None:
    """Dispatches steps until `stop` or an interruption, then reports."""
    first = step = self.step
    program = self._program(frozen=step >= self.freeze_step)
    self._profile(step)
    self._clock.start()
    previous = None
    while step < stop and not self._interrupted:
      inputs, steps = self.feed.inputs(step, min(stop - step, self.steps_per_dispatch))
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        self.state, report = program(self.state, inputs, np.int32(steps))
      self._pending = report if self._pending is None else _add(self._pending, report)
      step += steps
      self.reporter.advance(step)
      # At most two dispatches in flight: an interruption never waits for a long queue.
      jax.block_until_ready(previous)
      previous = report
    jax.block_until_ready(self.state)
    self.host['train_time_s'] += self._clock.stop((step - first) * self.config.batch_size)
    self._profile(step)
    self._check_finite()
    if step % self.config.log.every_steps == 0 or step in self.eval_steps:
      self._report(step)

  @functools.lru_cache(maxsize=2)  # noqa: B019 (one run a process)
  def _program(self, frozen: bool):
    """The compiled training program; `frozen` for the steps at the end with BN kept as it is."""
    config = self.config
    step = functools.partial(
      train_step,
      model=setup.build_model(config, frozen_bn=frozen),
      optimizer=self.optimizer,
      options=StepOptions(
        label_smoothing=config.label_smoothing,
        accumulate=config.optimizer.accumulate,
        ema_decay=config.optimizer.ema_decay,
        frozen_bn=frozen,
      ),
    )
    program = train_program(step, self.feed, self.mesh, looped=self.host['looped'])
    inputs, _ = self.feed.inputs(self.step, 1)
    # Compiled here, so that the clock counts training alone.
    return program.lower(self.state, inputs, np.int32(1)).compile()

  def learning_rate(self, step: int) -> float:
    """Of the step after `step`."""
    return float(self.schedule(step) * self.state.scale)

  def _check_finite(self) -> None:
    bad = self._pending.first_bad_step()
    if bad is None:
      return
    good = self.checkpoints.latest()
    where = f'step {good} in {self.workdir}' if good is not None else 'none'
    raise UserError(
      f'loss or gradient is not finite at step {bad} (learning rate '
      f'{self.learning_rate(bad - 1):.4g}); last good checkpoint: {where}. Lower '
      'config.optimizer.learning_rate, or add config.schedule.warmup or '
      'config.optimizer.clip_norm, and give another --workdir.'
    )

  def _report(self, step: int) -> None:
    rate = self._clock.take_rate()
    record = {
      'kind': 'train',
      'step': step,
      'epoch': self._epoch(step),
      **self._pending.report(),
      'learning_rate': self.learning_rate(step - 1),
      'images_per_second': round(rate, 1),
      'eta_s': round((self.total - step) * self.config.batch_size / rate, 1),
      'wall_time_s': round(self._wall_time(), 2),
    }
    self._pending = None
    self.reporter.write(record)

  def _epoch(self, step: int) -> float:
    return round(step / self.steps_per_epoch, 4)

  def _wall_time(self) -> float:
    return time.monotonic() - self._started

  # --- evaluation and checkpoints ------------------------------------------------------------

  def _evaluate_and_save(self, step: int) -> bool:
    """Evaluates, lets schedule and early stopping know, saves; False if interrupted."""
    results = evaluate(
      self._evaluate, self.state.eval_variables, self.eval_feed, lambda: self._interrupted
    )
    if results is None:
      return False
    host, record = self.host, {'step': step, 'epoch': self._epoch(step), **results}
    host['evaluated_step'], host['final'] = step, record
    if host['best'] is None or record['top1_error'] <= host['best']['top1_error']:
      host['best'] = record
    if self.plateau:
      _, plateau = self.plateau.update({}, self.state.plateau, value=results['loss'])
      plateau = jax.device_put(plateau, runtime.replicated(self.mesh))
      self.state = self.state.replace(plateau=plateau)
    stopping = self._early_stopping().update(results[self.config.early_stopping.metric])
    host['early_stopping'] = {
      'best_metric': stopping.best_metric,
      'patience_count': stopping.patience_count,
    }
    self.reporter.write({'kind': 'eval', **record, 'wall_time_s': round(self._wall_time(), 2)})
    self._save(metrics=results)
    return True

  def _early_stopping(self) -> EarlyStopping:
    """Whether to stop, from the counts of the run so far."""
    options, counts = self.config.early_stopping, self.host['early_stopping']
    best = counts['best_metric']
    return EarlyStopping(
      min_delta=options.min_delta,
      patience=options.patience,
      best_metric=float('inf') if best is None else best,
      patience_count=counts['patience_count'],
      should_stop=0 < options.patience <= counts['patience_count'],
    )

  def _save(self, metrics: dict[str, float] | None) -> None:
    self.host['examples_seen'] = self.step * self.config.batch_size
    self.host['wall_time_s'] = self._wall_time()
    self.checkpoints.save(self.state, self.host, metrics)

  # --- end -----------------------------------------------------------------------------------

  def finish(self) -> None:
    """Writes summary and curves, and says where they are."""
    self.host['wall_time_s'] = self._wall_time()
    summary = summarize(self.state, self.host)
    cli.write_json(self.workdir / 'summary.json', summary)
    config, final, best = self.config, summary['final'], summary['best']
    split = config.data.eval_split
    title = f'{config.model.name} on {config.data.name}: {split} error {final["top1_error"]:.2f} %'
    curves.plot(read_records(self.reporter.path), self.workdir / 'curves.png', title)
    self.reporter.say(
      f'{split} error {final["top1_error"]:.2f} % after {self._epoch(self.step):g} epochs '
      f'(best {best["top1_error"]:.2f} % at epoch {best["epoch"]:g}), '
      f'{self.host["wall_time_s"]:.0f} s'
    )
    self.reporter.say(f'curves: {self.workdir / "curves.png"}')
    self.reporter.say(f'summary: {self.workdir / "summary.json"}')

  # --- profile -------------------------------------------------------------------------------

  def _profile_range(self) -> tuple[int, ...]:
    start = self.config.profile.start
    return () if start is None else (start, start + self.config.profile.steps)

  def _profile(self, step: int) -> None:
    """Starts or stops the trace if `step` is where that is wanted."""
    if not self._profile_range():
      return
    start, stop = self._profile_range()
    directory = self.workdir / 'profile'
    if step == start and not self._profiling:
      jax.profiler.start_trace(directory)
      self._profiling = True
    elif self._profiling and step >= min(stop, self.total):
      jax.profiler.stop_trace()
      self._profiling = False
      self.reporter.say(f'trace of steps {start} to {step}: {directory}')

  _profiling = False


_add = jax.jit(StepMetrics.add)
