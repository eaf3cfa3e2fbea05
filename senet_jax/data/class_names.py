"""Names of classes for people to read."""

import functools
import importlib.resources
from collections.abc import Sequence

# In the order of the labels, as published.
CIFAR10 = (
  'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'
)  # fmt: skip


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
  """Returns the 1000 classes of ILSVRC 2012 in the order of their labels.

  Each is its WordNet 3.0 id and names: `('n01440764', 'tench, Tinca tinca')`.
  """
  file = importlib.resources.files('senet_jax.data') / 'imagenet_classes.tsv'
  rows = (line.split('\t') for line in file.read_text('utf-8').splitlines())
  return tuple((wnid, names) for wnid, names in rows)


def readable(name: str) -> str:
  """Returns the first name of a class called by its ImageNet id; any other name as it is."""
  return _first_names().get(name, name)


def distinct(names: Sequence[str], labels: Sequence[int]) -> dict[str, int]:
  """Returns labels by `readable` names of their classes; where two have one name, by others.

  Args:
    names: of all classes in the data set, by label.
    labels: of the classes to name.
  """
  shown = [readable(names[label]) for label in labels]
  return {
    name if shown.count(name) == 1 else names[label]: label
    for name, label in zip(shown, labels, strict=True)
  }


def complete(names: Sequence[str] | None, count: int) -> list[str]:
  """Returns names of `count` classes: those that are known, and `class 7` for others.

  A network may have more outputs than its data has classes, or fewer.
  """
  names = names or ()
  return [*names, *(f'class {i}' for i in range(len(names), count))][:count]


@functools.cache
def _first_names() -> dict[str, str]:
  return {wnid: names.split(', ')[0] for wnid, names in imagenet_classes()}
