"""A run between its events: what the loop tells to train, to evaluate and to save."""

import dataclasses
import functools
import math
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.storage import files
from senet_jax.storage.buckets import Path
from senet_jax.training import folded, initial, patience, resume, sanity, setup
from senet_jax.training.optimizer import make_optimizer, make_plateau, make_schedule
from senet_jax.training.plan import Plan
from senet_jax.training.progress import Reporter
from senet_jax.training.task import Feeds, Task
from senet_jax.training.trace import Trace
from senet_jax.training.trainer import Trainer
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState


class Run:
  """One training run, between its events.

  Attributes:
    task: what it trains for.
    plan: what happens at which step.
    stop: says whether to save and stop.
    step: steps taken.
    state: the training state on the devices.
    progress: what a checkpoint keeps besides: counters, results, configuration.
  """

  state: TrainState
  progress: RunProgress

  def __init__(
    self,
    task: Task,
    workdir: Path,
    feeds: Feeds,
    plan: Plan,
    reporter: Reporter,
    checkpoints: Checkpoints,
    tracing: Trace,
    stop: runtime.Preemption,
  ):
    """Takes what is open; nothing is computed before `begin`."""
    self.task, self.plan, self.stop, self.step = task, plan, stop, 0
    self._config, self._workdir, self._feeds = task.config, workdir, feeds
    self._reporter, self._checkpoints, self._trace = reporter, checkpoints, tracing
    self._schedule = make_schedule(task.config, plan.total, plan.steps_per_epoch)
    self._optimizer = make_optimizer(task.config, self._schedule)
    self._plateau = make_plateau(task.config)
    self._model = task.build_model(feeds)
    self._evaluator = task.evaluator(self._model, feeds)
    self._fresh_state = functools.partial(
      setup.init_state, task.config, self._model, self._optimizer, self._plateau, feeds.mesh
    )
    self._exchanges = 0  # with the other processes, of what cannot be read

  def begin(self) -> None:
    """Starts from the newest checkpoint of the same run, or afresh; and says what it is.

    Raises:
      UserError: the checkpoints are those of another run, or none of them is whole.
    """
    config, workdir, feeds, reporter = self._config, self._workdir, self._feeds, self._reporter
    found = resume.restored(
      config, feeds, self.plan.total, self._fresh_state, workdir, self._checkpoints, reporter
    )
    if found is None:
      variables = initial.initial_variables(config, self._model, feeds.mesh, reporter.say)
      if variables and self.task.normalizes and folded.is_folded(variables):
        reporter.say('its BN was folded into the convolutions: statistics are of the first batch')
        variables = folded.with_statistics(self._model, feeds, variables)
      found = self._fresh_state(variables), resume.fresh_progress(config, feeds)
    self.state, self.progress = found
    self.step = int(self.state.step)
    self._trainer = Trainer(
      self.task, feeds, self.plan, self._optimizer, looped=self.progress.looped,
      rules=self.progress.rules, steps_at_once=resume.steps_per_dispatch(config, feeds),
    )  # fmt: skip
    self._started = time.monotonic() - self.progress.wall_time_s
    if runtime.is_first():
      files.write_json(workdir / 'config.json', config.to_dict())
      self.task.leave(workdir, feeds)
    reporter.say(describe(config, feeds, self.plan.total, self.state.params))
    for line in sanity.warnings(self.task, self.plan, feeds):
      reporter.say(f'warning: {line}')
    reporter.begin(self.step, self.plan.total)

  @property
  def evaluation_is_due(self) -> bool:
    """True if an evaluation comes before the next step."""
    return self.progress.evaluated_step < self.step and self.plan.evaluates(self.step)

  @property
  def is_done(self) -> bool:
    """True if all steps are taken, or early stopping ends the run."""
    stopping = patience.early_stopping(self._config, self.progress)
    return self.step >= self.plan.total or stopping.should_stop

  def train_until(self, until: int) -> bool:
    """Takes steps until `until`, then reports; returns False if it was interrupted.

    Everything is compiled before the first step: later a preemption would have to wait for it with
    steps that are not saved yet.

    Raises:
      UserError: a loss, gradient or update is not finite.
    """
    if self.stop.noticed:
      return False
    if not self._trainer.compiled:
      self._reporter.say('compiling the programs; an interruption waits for that')
      self._trainer.compile(self.state, self.step)
      self._evaluator.compile(self.state.eval_variables)
    first = self.step
    self._trace.at(first)
    self.state, self.step, seconds = self._trainer.run(
      self.state, first, until, self.stop.asked, self._reporter.advance
    )
    images = (self.step - first) * self._config.batch_size
    self.progress = self.progress.after_training(images, seconds)
    self._trace.at(self.step)
    bad = self._trainer.first_bad_step()
    if bad is not None:
      raise self._diverged(f'loss, gradient or update is not finite at step {bad}', bad)
    if self.plan.reports(self.step) and (report := self._trainer.take_report()):
      self._write_training_record(report)
    return not self.stop.noticed

  def _write_training_record(self, report: dict[str, Any]) -> None:
    rate, waited = report.pop('images_per_second'), report.pop('data_wait_s')
    images = (self.plan.total - self.step) * self._config.batch_size
    self._reporter.write({
      'kind': 'train',
      'step': self.step,
      'epoch': self.plan.epoch(self.step),
      **report,
      'learning_rate': self._learning_rate(self.step - 1),
      'images_per_second': round(rate, 1),
      'data_wait_s': waited,
      'eta_s': round(images / rate, 1),
      'wall_time_s': round(self._wall_time(), 2),
    })  # fmt: skip

  def evaluate_and_save(self) -> bool:
    """Evaluates, lets schedule and early stopping know, saves; returns False if interrupted.

    Raises:
      UserError: a result is not finite.
    """
    results = self._evaluator(self.state.eval_variables, self.stop.asked)
    if results is None:
      return False
    for name, value in results.items():
      if not math.isfinite(value):
        raise self._diverged(f'evaluation {name} is not finite at step {self.step}', self.step)
    record = {'step': self.step, 'epoch': self.plan.epoch(self.step), **results}
    self.progress = patience.judged(self.task, self.progress, record)
    self.state = patience.lowered(self.task, self._plateau, self.state, results, self._feeds.mesh)
    self._reporter.write({'kind': 'eval', **record, 'wall_time_s': round(self._wall_time(), 2)})
    self.save(results)
    return True

  def save(self, results: dict[str, float] | None = None) -> None:
    """Saves a checkpoint, with the results of this step's evaluation if there was one."""
    self._exchanges += 1
    unreadable = shared_unreadable(self._feeds, self._exchanges)
    self.progress = dataclasses.replace(self.progress_now(), unreadable=unreadable)
    self._checkpoints.save(self.state, self.progress, results)

  def progress_now(self) -> RunProgress:
    """Returns the progress with its totals of time up to date."""
    return self.progress.at_time(self._wall_time(), self._feeds.mesh.size)

  def _learning_rate(self, step: int) -> float:
    """Returns the rate of the step after `step`."""
    return float(self._schedule(step) * self.state.scale)

  def _wall_time(self) -> float:
    return time.monotonic() - self._started

  def _diverged(self, what: str, step: int) -> UserError:
    good = self._checkpoints.latest()
    where = f'step {good} in {self._workdir}' if good is not None else 'none'
    return UserError(
      f'{what} (learning rate {self._learning_rate(step - 1):.4g}); last good checkpoint: {where}. '
      'Lower config.optimizer.learning_rate, or add config.schedule.warmup or '
      'config.optimizer.clip_norm, and give another --workdir.'
    )


def shared_unreadable(feeds: Feeds, exchange: int) -> dict[str, dict[str, str]]:
  """Returns the unreadable images that all processes have found, and lets each of them know.

  Args:
    feeds: of the run.
    exchange: a number that no exchange before had.
  """
  found = {k: {str(i): n for i, n in v.items()} for k, v in feeds.unreadable().items()}
  for theirs in runtime.gather(f'unreadable/{exchange}', found) if found else ():
    for split, names in theirs.items():
      found[split].update(names)
  feeds.know_unreadable(found)
  return found


def describe(config: ConfigDict, feeds: Feeds, total: int, params: dict[str, Any]) -> str:
  """Returns the line that begins a run: network, data, length and devices."""
  devices = feeds.mesh.size
  return (
    f'{config.model.name}, {sum(x.size for x in jax.tree.leaves(params)):,} parameters, on '
    f'{config.data.name}{" (fake)" if config.data.fake else ""}: '
    f'{feeds.train.split.num_examples} training and {feeds.eval.split.num_examples} evaluation '
    f'images, {total} steps of {config.batch_size} = {devices} x {config.batch_size // devices} '
    f'images; {runtime.describe_devices()}, jax {jax.__version__}'
  )
