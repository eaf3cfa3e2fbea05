"""Names of classes for people to read."""

import functools
import importlib.resources

# In the order of the labels, as published.
CIFAR10 = (
  'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck'
)  # fmt: skip


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
  """The 1000 classes of ILSVRC 2012 in the order of their labels.

  Each is its WordNet 3.0 id and names: `('n01440764', 'tench, Tinca tinca')`.
  """
  file = importlib.resources.files('senet_jax.data') / 'imagenet_classes.tsv'
  return tuple(tuple(line.split('\t')) for line in file.read_text('utf-8').splitlines())


def readable(name: str) -> str:
  """The first name of a class that is called by its ImageNet id; any other name as it is."""
  return _first_names().get(name, name)


@functools.cache
def _first_names() -> dict[str, str]:
  return {wnid: names.split(', ')[0] for wnid, names in imagenet_classes()}
