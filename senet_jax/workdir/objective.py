"""The choice of the best of several evaluations."""

import dataclasses
from collections.abc import Mapping

from senet_jax.models import CLASSIFICATION, DETECTION


@dataclasses.dataclass(frozen=True)
class Objective:
  """The metric that decides which evaluation, and so which checkpoint, is the best.

  Attributes:
    metric: its name in the results of an evaluation.
    mode: `min` where the lowest value is the best, `max` where the highest is.
  """

  metric: str
  mode: str = 'min'

  def __post_init__(self):
    if self.mode not in ('min', 'max'):
      raise ValueError(f'mode={self.mode!r} must be min or max')

  def cost(self, results: Mapping[str, float]) -> float:
    """Returns a number of which a lower value is better and none is negative.

    Metrics that rise are percentages. A plateau schedule compares in proportion, which would turn
    round below zero.
    """
    value = results[self.metric]
    return value if self.mode == 'min' else 100 - value

  def as_good(self, results: Mapping[str, float], best: Mapping[str, float] | None) -> bool:
    """Returns whether `results` are at least as good as `best`; None is no evaluation yet."""
    return best is None or self.cost(results) <= self.cost(best)


# What a classification is judged by, also that of a workdir which does not say, and a detection.
TOP1, AP = Objective('top1_error'), Objective('ap', 'max')
OF_TASK = {CLASSIFICATION: TOP1, DETECTION: AP}
