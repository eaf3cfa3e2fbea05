"""The order of class-aware sampling, in which each class has the same share of the examples."""

import numpy as np


class ClassOrder:
  """The order of an endless sequence of examples that shows all classes equally often.

  As Shen et al. have it (Relay Backpropagation, 2016): a shuffled list of the classes is gone
  through, then one in another order, and so on; of each class it takes the next example of a
  shuffled list of its own, which is shuffled anew when it ends. All follows from the seed and the
  place, so that a run goes on from any step, on any number of hosts.
  """

  def __init__(self, labels: np.ndarray, seed: int):
    """Takes the labels of all examples, `[N]` integers from 0 on, and the seed of the shuffling."""
    by_class = np.argsort(labels, kind='stable')
    ends = np.cumsum(np.bincount(labels))
    # Classes without examples are left out.
    self._members = [members for members in np.split(by_class, ends[:-1]) if len(members)]
    self._seed = seed
    self._lists: dict[int, tuple[int, np.ndarray]] = {}  # the last one of each class

  @property
  def sizes(self) -> np.ndarray:
    """Returns the examples of each class, `[classes]` int64; those without any are left out."""
    return np.array([len(members) for members in self._members])

  def examples(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns, for places of the sequence, the epoch of the class and the index, each `[n]` int64.

    Args:
      position: `[n]` int64, places in the sequence.
    """
    traversal, slot = np.divmod(position, len(self._members))
    which, row = np.unique(traversal, return_inverse=True)
    orders = np.stack([self._shuffled(len(self._members), 0, t) for t in which])
    classes = orders[row, slot]
    rounds, index = np.empty_like(position), np.empty_like(position)
    for number in np.unique(classes):
      here = np.flatnonzero(classes == number)
      # Each traversal takes one of each class.
      rounds[here], place = np.divmod(traversal[here], len(self._members[number]))
      for lap in np.unique(rounds[here]):
        now = rounds[here] == lap
        index[here[now]] = self._list(number, lap)[place[now]]
    return rounds, index

  def _list(self, number: int, lap: int) -> np.ndarray:
    """The examples of a class in their order at the `lap`-th time."""
    kept = self._lists.get(number)
    if kept is None or kept[0] != lap:
      members = self._members[number]
      kept = lap, members[self._shuffled(len(members), 1, number, lap)]
      self._lists[number] = kept
    return kept[1]

  def _shuffled(self, count: int, *key: int) -> np.ndarray:
    return np.random.default_rng([self._seed, *map(int, key)]).permutation(count)
