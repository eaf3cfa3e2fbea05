"""Takes the steps of a run, and keeps what they report until it is asked for."""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from senet_jax.runtime.programs import Programs
from senet_jax.training.plan import Plan
from senet_jax.training.progress import Clock
from senet_jax.training.step import StepMetrics, training_program
from senet_jax.training.task import Feeds, Task
from senet_jax.workdir.state import TrainState

_add = jax.jit(StepMetrics.add)


class Trainer:
  """The compiled programs of a run, and the reports of the steps since the last record."""

  def __init__(
    self,
    task: Task,
    feeds: Feeds,
    plan: Plan,
    optimizer: optax.GradientTransformation,
    *,
    steps_at_once: int,
    looped: bool,
    rules: int,
  ):
    """Compiles nothing yet.

    Args:
      task: of the run.
      feeds: of the run.
      plan: says when BN is frozen.
      optimizer: of the parameters.
      steps_at_once: the most steps of one dispatch.
      looped: the kind of program, see `step.train_program`.
      rules: see `workdir.run_progress.RULES`.
    """
    self._task, self._feeds, self._plan, self._optimizer = task, feeds, plan, optimizer
    self._at_once, self._looped = steps_at_once if looped else 1, looped
    self._rules = rules
    self._programs: dict[bool, Programs] = {}  # by whether BN is frozen
    self._pending: StepMetrics | None = None
    self._clock = Clock()
    self._waited = 0.0  # for data, in seconds

  @property
  def compiled(self) -> bool:
    """True once `compile` was called."""
    return bool(self._programs)

  def compile(self, state: TrainState, step: int) -> None:
    """Compiles what is needed from `step` on; `state` is of the shapes and places of the run's."""
    plan, feed = self._plan, self._feeds.train
    each = feed.shapes() if hasattr(feed, 'shapes') else [feed.inputs(step, 1)[0]]
    for frozen in {plan.frozen(step), plan.freeze_step < plan.total}:
      function = training_program(
        self._task,
        self._task.build_model(self._feeds, frozen_bn=frozen),
        self._optimizer,
        feed,
        self._feeds.mesh,
        looped=self._looped,
        frozen_bn=frozen,
        rules=self._rules,
      )
      programs = self._programs[frozen] = Programs(function)
      for inputs in each:
        programs.compile(state, inputs, np.int32(1))

  def run(
    self,
    state: TrainState,
    step: int,
    until: int,
    interrupted: Callable[[], bool],
    advance: Callable[[int], None],
  ) -> tuple[TrainState, int, float]:
    """Dispatches steps and waits for them.

    Args:
      state: after `step` steps; its memory is donated.
      step: the steps taken.
      until: the step to stop at.
      interrupted: is asked before each dispatch; if it says yes, the steps end there.
      advance: is told each step that is reached.

    Returns:
      The state, the step that was reached, and the seconds it took.
    """
    program, first, previous = self._programs[self._plan.frozen(step)], step, None
    self._clock.start()
    while step < until and not interrupted():
      asked = time.monotonic()
      inputs, steps = self._feeds.train.inputs(step, min(until - step, self._at_once))
      self._waited += time.monotonic() - asked
      with jax.profiler.StepTraceAnnotation('train', step_num=step):
        state, report = program(state, inputs, np.int32(steps))
      self._pending = report if self._pending is None else _add(self._pending, report)
      step += steps
      advance(step)
      # At most two dispatches in flight: an interruption never waits for a long queue.
      jax.block_until_ready(previous)
      previous = report
    jax.block_until_ready(state)
    return state, step, self._clock.stop((step - first) * self._task.config.batch_size)

  def first_bad_step(self) -> int | None:
    """Returns the first step whose numbers were not finite, None if there was none."""
    return self._pending.first_bad_step() if self._pending else None

  def take_report(self) -> dict[str, Any] | None:
    """Returns the averages since the last call, None if there were no steps.

    Beside the metrics of the task it has `images_per_second`, of training alone, and `data_wait_s`.
    """
    if self._pending is None:
      return None
    report = {
      **self._pending.report(),
      'images_per_second': self._clock.take_rate(),
      'data_wait_s': round(self._waited, 3),
    }
    self._pending, self._waited = None, 0.0
    return report
