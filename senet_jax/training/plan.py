"""The plan of a run: the steps at which something other than training happens."""

import bisect
import dataclasses

from ml_collections import ConfigDict

from senet_jax.config.length import steps_of_unit, total_steps
from senet_jax.errors import UserError
from senet_jax.training import setup


@dataclasses.dataclass(frozen=True)
class Plan:
  """The steps at which something other than training happens.

  Attributes:
    total: length of the run.
    steps_per_epoch: need not be whole.
    eval_steps: after which to evaluate, rising; the last one is `total`.
    drop_steps: after which the schedule lowers the learning rate; beyond `total` it does not.
    freeze_step: from which on BN keeps its running statistics; `total` if it never does.
    log_every: steps between two records of training.
    save_every: steps between two checkpoints besides those of evaluations; 0 for none.
    trace_steps: at which a trace starts and ends; empty for none.
  """

  total: int
  steps_per_epoch: float
  eval_steps: tuple[int, ...]
  drop_steps: tuple[int, ...]
  freeze_step: int
  log_every: int
  save_every: int
  trace_steps: tuple[int, ...]

  @classmethod
  def create(cls, config: ConfigDict, num_examples: int) -> 'Plan':
    """Returns the plan of a run over a training split of `num_examples`.

    Raises:
      UserError: what is to lie within the run does not.
    """
    steps_per_epoch = num_examples / config.batch_size
    unit = steps_of_unit(config, steps_per_epoch)
    total = total_steps(config, num_examples)
    freeze, start = config.bn.freeze_last_epochs, config.profile.start
    if start is not None and start >= total:
      raise UserError(f'config.profile.start={start} is past the run of {total} steps; use less.')
    return cls(
      total=total,
      steps_per_epoch=steps_per_epoch,
      eval_steps=tuple(setup.eval_steps(config, total, steps_per_epoch)),
      drop_steps=tuple(setup.drop_steps(config, total, unit)),
      freeze_step=max(total - round(freeze * steps_per_epoch), 0),
      log_every=config.log.every_steps,
      save_every=config.checkpoint.every_steps,
      trace_steps=() if start is None else (start, start + config.profile.steps),
    )

  def epoch(self, step: int) -> float:
    """Returns the epochs that the first `step` steps make, as records have them."""
    return round(step / self.steps_per_epoch, 4)

  def evaluates(self, step: int) -> bool:
    """Returns whether an evaluation follows `step`."""
    return step in self.eval_steps

  def reports(self, step: int) -> bool:
    """Returns whether a record of training follows `step`."""
    return step % self.log_every == 0 or self.evaluates(step)

  def saves(self, step: int) -> bool:
    """Returns whether a checkpoint without an evaluation follows `step`."""
    return bool(self.save_every) and step % self.save_every == 0 and not self.evaluates(step)

  def frozen(self, step: int) -> bool:
    """Returns whether BN keeps its running statistics in the step after `step`."""
    return step >= self.freeze_step

  def next_event(self, step: int) -> int:
    """Returns the next step after `step` at which something other than training happens."""
    stops = [self.total, self.eval_steps[bisect.bisect_right(self.eval_steps, step)]]
    stops += [(step // every + 1) * every for every in (self.log_every, self.save_every) if every]
    stops += [s for s in (self.freeze_step, *self.trace_steps) if s > step]
    return min(stops)
