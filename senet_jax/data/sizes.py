"""The sizes of images in training: one, or several, one after the other (progressive resizing).

The step alone says which it is, so that a resumed run, and any number of hosts and devices, have
the same. Each size is one compiled program.
"""

import bisect
import dataclasses

from ml_collections import ConfigDict

from senet_jax.config.length import steps_of_unit, total_steps
from senet_jax.data.preprocessing import evaluation_transform


def training_sizes(config: ConfigDict) -> tuple[int, ...]:
  """Returns the sides of the square images in training, in pixels, in their order."""
  return config.data.train_size or (evaluation_transform(config).image_size,)


@dataclasses.dataclass(frozen=True)
class Sizes:
  """The sizes of a run, by step.

  Attributes:
    sides: of the square images, in pixels, one after the other.
    starts: the steps that they begin at, rising from 0.
  """

  sides: tuple[int, ...]
  starts: tuple[int, ...]

  @classmethod
  def create(cls, config: ConfigDict, num_examples: int) -> 'Sizes | None':
    """Returns those of a run over a training split of `num_examples`; None if there is one."""
    sides, boundaries = training_sizes(config), config.data.train_size_boundaries
    if len(sides) == 1:
      return None
    if boundaries:
      unit = steps_of_unit(config, num_examples / config.batch_size)
      starts = [boundary * unit for boundary in boundaries]
    else:
      part = total_steps(config, num_examples) / len(sides)
      starts = [k * part for k in range(1, len(sides))]
    return cls(sides, (0, *map(round, starts)))

  def at(self, step: int) -> int:
    """Returns the side in the step after `step` steps."""
    return self.sides[bisect.bisect_right(self.starts, step) - 1]

  def steps_left(self, step: int, limit: int) -> int:
    """Returns how many steps from `step` on, `limit` at most, have the same side."""
    return min([limit, *(start - step for start in self.starts if start > step)])
