"""The consequences of an evaluation: the best so far, the plateau schedule, early stopping."""

from typing import Any

import optax
from flax.training.early_stopping import EarlyStopping
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.training.task import Task
from senet_jax.workdir.run_progress import Patience, RunProgress
from senet_jax.workdir.state import TrainState


def judged(task: Task, progress: RunProgress, record: dict[str, Any]) -> RunProgress:
  """Returns the progress of a run after an evaluation.

  Args:
    task: knows which metrics are to fall and which to rise.
    progress: before the evaluation.
    record: `step`, `epoch` and results.
  """
  cost = task.cost(task.config.early_stopping.metric, record)
  counts = early_stopping(task.config, progress).update(cost)
  patience = Patience(counts.best_metric, counts.patience_count)
  is_best = task.objective.as_good(record, progress.best)
  return progress.after_evaluation(record, patience, is_best=is_best)


def early_stopping(config: ConfigDict, progress: RunProgress) -> EarlyStopping:
  """Returns what says whether to stop, from the counts of the run so far."""
  options, counts = config.early_stopping, progress.early_stopping
  best = counts.best_metric
  return EarlyStopping(
    min_delta=options.min_delta,
    patience=options.patience,
    best_metric=float('inf') if best is None else best,
    patience_count=counts.patience_count,
    should_stop=0 < options.patience <= counts.patience_count,
  )


def lowered(
  task: Task,
  plateau: optax.GradientTransformationExtraArgs | None,
  state: TrainState,
  results: dict[str, float],
  mesh: Mesh,
) -> TrainState:
  """Returns the state with the learning rate that a plateau schedule wants after an evaluation."""
  if plateau is None:
    return state
  cost = task.cost(task.config.schedule.metric, results)
  _, after = plateau.update({}, state.plateau, value=cost)
  return state.replace(plateau=runtime.put_everywhere(after, mesh))
