"""The order of a detector's images: every batch has one shape, and follows from the step alone.

The images of a shape are a group. Each group has an endless sequence of its own: its images in
their random order of epoch 0, then in that of epoch 1, and so on, cut into batches. In epoch e a
group of n images issues the batches that end within it, floor(n (e + 1) / B) - floor(n e / B) of
them, and those of all groups are shuffled. So nothing is lost, nothing is counted, and a run goes
on at any step on any number of hosts.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from senet_jax.data import draws


@dataclasses.dataclass(frozen=True, eq=False)
class GroupedOrder:
  """The examples that a host reads; `data.stream.Stream` describes the methods.

  Attributes:
    groups: indices of the images of each shape, `[n_g]`; none is empty.
    shapes: of the groups, height and width.
    batch_size: of all hosts.
    seed: of the shuffling, anew in each epoch; None: each image once, group by group, the last
      image of a group again to fill its last batch.
    host: number of this host.
    hosts: how many there are.
  """

  groups: tuple[np.ndarray, ...]
  shapes: tuple[tuple[int, int], ...]
  batch_size: int
  seed: int | None
  host: int = 0
  hosts: int = 1

  @classmethod
  def of(
    cls, group: np.ndarray, shapes: list[tuple[int, int]], batch_size: int, seed: int | None, **host
  ) -> 'GroupedOrder':
    """Returns the order of images of which `group` `[n]` says the shape."""
    present = np.unique(group)
    groups = tuple(np.flatnonzero(group == g) for g in present)
    return cls(groups, tuple(shapes[g] for g in present), batch_size, seed, **host)

  @functools.cached_property
  def num_examples(self) -> int:
    """Images of all groups."""
    return sum(self._sizes)

  @functools.cached_property
  def _sizes(self) -> list[int]:
    return [len(group) for group in self.groups]

  @functools.cached_property
  def _group_of(self) -> np.ndarray:
    """The group of each image, `[n]`."""
    found = np.zeros(self.num_examples, np.int64)
    for g, group in enumerate(self.groups):
      found[group] = g
    return found

  @property
  def steps(self) -> int:
    """Batches of an evaluation."""
    return sum(-(-size // self.batch_size) for size in self._sizes)

  def shape(self, step: int) -> tuple[int, int]:
    """Returns height and width of the images of a step."""
    return self.shapes[self._place(step)[0]]

  def examples(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns position, epoch and index, each `[n]` int64, of a step's examples.

    The position is that in the sequence of the group; in an evaluation it is the number of images
    or more for what only fills a batch.
    """
    g, number = self._place(step)
    local = self.batch_size // self.hosts
    position = number * self.batch_size + self.host * local + np.arange(local)
    group = self.groups[g]
    if self.seed is None:
      place = np.minimum(position, len(group) - 1)
      fills = position >= len(group)
      return np.where(fills, self.num_examples, position), np.zeros_like(place), group[place]
    epoch, offset = np.divmod(position, len(group))
    keys = np.stack([np.full_like(epoch, self.seed), epoch, np.full_like(epoch, 1 + g)], 1)
    return position, epoch, group[draws.shuffled(offset, keys, len(group))]

  def instead(self, index: int) -> Iterator[int]:
    """Yields an image and those that may take its place: of its group; in an evaluation none."""
    yield index
    if self.seed is not None:
      group = self.groups[self._group_of[index]]
      yield from np.roll(group, -1 - int(np.searchsorted(group, index)))[:-1].tolist()

  @functools.lru_cache(maxsize=16)  # noqa: B019 - it is asked for twice a step
  def _place(self, step: int) -> tuple[int, int]:
    """Returns the group of a step, and which of the batches of that group it is."""
    if self.seed is None:
      for g, size in enumerate(self._sizes):
        batches = -(-size // self.batch_size)
        if step < batches:
          return g, step
        step -= batches
      raise IndexError(step)
    epoch = self._epoch(step)
    first = self._before(epoch)
    issued = [after - before for before, after in zip(first, self._before(epoch + 1), strict=True)]
    place, count = step - sum(first), sum(issued)
    key = np.array([[self.seed, epoch, 0]])
    drawn = int(draws.shuffled(np.array([place]), key, count)[0])
    for g, batches in enumerate(issued):
      if drawn < batches:
        return g, first[g] + drawn
      drawn -= batches
    raise AssertionError

  def _before(self, epoch: int) -> list[int]:
    """Returns how many batches each group issues in front of an epoch."""
    return [size * epoch // self.batch_size for size in self._sizes]

  def _epoch(self, step: int) -> int:
    """Returns the epoch that issues the batch of a step."""
    # In front of epoch e there are N e / B batches, less at most one of each group.
    epoch = step * self.batch_size // self.num_examples
    while sum(self._before(epoch + 1)) <= step:
      epoch += 1
    return epoch
