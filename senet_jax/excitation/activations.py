"""Excitations of SE blocks by class: the analysis of section 7.2 of the paper."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from senet_jax import runtime
from senet_jax.data import class_names
from senet_jax.data.feeds import EvaluationFeed
from senet_jax.errors import UserError, one_of
from senet_jax.layers import excitations

# Of section 7.2. ImageNet's only class of the name `plane` is the carpenter's tool.
PAPER_CLASSES = ('goldfish', 'pug', 'plane', 'cliff')
# A gate outside is saturated: within a twentieth of the ends of the sigmoid and the tanh; a ReLU
# has only the lower one.
SATURATED = {'sigmoid': (0.05, 0.95), 'tanh': (-0.95, 0.95), 'relu': (0.05, math.inf)}
_FEW_CLASSES = 10


class Moments:
  """Mean and variance of vectors by class, in one pass over them (Welford), in float64.

  Attributes:
    count: vectors of each class, `[K]` int64.
    mean: of each class, `[K, C]`; 0 where there is none.
    squares: sum of the squared deviations from the mean, `[K, C]`.
  """

  def __init__(self, num_classes: int, channels: int):
    self.count = np.zeros(num_classes, np.int64)
    self.mean = np.zeros((num_classes, channels))
    self.squares = np.zeros((num_classes, channels))

  def add(self, values: np.ndarray, labels: np.ndarray) -> None:
    """Adds `values` `[N, C]` of classes `labels` `[N]`."""
    turns = ranks(labels)
    for turn in range(turns.max(initial=-1) + 1):  # at most one vector of each class in a turn
      x, k = values[turns == turn].astype(np.float64), labels[turns == turn]
      self.count[k] += 1
      before = x - self.mean[k]
      self.mean[k] += before / self.count[k, None]
      self.squares[k] += before * (x - self.mean[k])


def ranks(labels: np.ndarray) -> np.ndarray:
  """Counts how many of the labels `[N]` before each are the same, `[N]`."""
  order = np.argsort(labels, kind='stable')
  found = np.empty(len(labels), np.int64)
  found[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
  return found


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
  """The gates of one SE block, K classes of C channels.

  Attributes:
    count: images of each class, `[K]`.
    mean: of each class, `[K, C]` float64; 0 for a class without images.
    squares: sum of the squared deviations from the mean, `[K, C]` float64.
    low: share of all gates that are saturated at their lower end.
    high: and at their upper end.
  """

  count: np.ndarray
  mean: np.ndarray
  squares: np.ndarray
  low: float
  high: float

  @property
  def std(self) -> np.ndarray:
    """The deviation within each class over its images (N - 1), `[K, C]`; NaN for fewer than two."""
    degrees = np.where(self.count > 1, self.count - 1, np.nan)
    return np.sqrt(self.squares / degrees[:, None])

  @property
  def all_mean(self) -> np.ndarray:
    """The mean of the classes, each with the same weight, `[C]`."""
    return self._means.mean(0)

  @property
  def within(self) -> np.ndarray:
    """The variance within the classes, pooled, `[C]`; NaN without two images of one class."""
    degrees = (self.count - 1).clip(0).sum()
    return self.squares.sum(0) / (degrees or np.nan)

  @property
  def between(self) -> np.ndarray:
    """The variance between the classes, `[C]`; NaN for fewer than two.

    It is that of the classes' means without what comes from having few images: with 50 a class,
    classes that do not differ at all would have 2 % of the variance within. It can thus be a little
    below 0.
    """
    seen = self.count[self.count > 0]
    if len(seen) < 2:
      return np.full(self.mean.shape[1], np.nan)
    return self._means.var(0, ddof=1) - self.within * (1 / seen).mean()

  @property
  def agreement(self) -> float:
    """The correlation over the channels between the means of two classes, averaged over all pairs.

    It is 1 where the classes have one pattern, up to its scale, and NaN where fewer than two
    classes have any.
    """
    centred = self._means - self._means.mean(1, keepdims=True)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    units = centred[norms[:, 0] > 0] / norms[norms[:, 0] > 0]
    pairs = len(units) * (len(units) - 1)
    return float((np.square(units.sum(0)).sum() - len(units)) / pairs) if pairs > 0 else math.nan

  def summary(self) -> dict[str, Any]:
    """Returns one number for each question, None where the images do not answer it.

    `separation` is the variance between classes, averaged over the channels, over that within.
    Not the average of ratios: a channel whose gate hardly moves would outweigh all others.
    """
    between, within = self.between.mean(), self.within.mean()
    numbers = {
      'mean': self.all_mean.mean(),
      'spread': self.all_mean.std(),
      'between_variance': between,
      'within_variance': within,
      'separation': between / within if within else math.nan,
      'agreement': self.agreement,
      'low_share': self.low,
      'high_share': self.high,
      'saturated_share': self.low + self.high,
    }
    rounded = {name: float(x) if np.isfinite(x) else None for name, x in numbers.items()}
    return {'channels': self.mean.shape[1], **rounded}

  @property
  def _means(self) -> np.ndarray:
    return self.mean[self.count > 0]


def block_sizes(model: nn.Module, variables: dict, image_size: int) -> dict[str, int]:
  """Returns the channels of each SE block, by the paper's names in network order.

  Nothing is computed for that.

  Raises:
    UserError: there is none.
  """
  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  found: dict[str, int] = {}

  def look(variables: dict, images: jax.Array) -> None:
    # A dictionary that is returned would come back in alphabetical order, SE_2_10 before SE_2_2.
    gates = _gates(model, variables, images)
    found.update((name, gate.shape[-1]) for name, gate in gates.items())

  jax.eval_shape(look, variables, images)
  if not found:
    raise UserError('the network has no SE blocks; use one that has.')
  return found


def measure(
  model: nn.Module,
  variables: dict,
  feed: EvaluationFeed,
  mesh: Mesh,
  images_per_class: int,
  saturated: tuple[float, float] = SATURATED['sigmoid'],
) -> dict[str, Block]:
  """Measures the gates of all SE blocks over the first images of every class; for one process.

  The gate of an image is, for NoSqueeze, the mean over its pixels.

  Args:
    model: the network.
    variables: `params` and `batch_stats`.
    feed: the data.
    mesh: the devices.
    images_per_class: of each class at most; those after them are left out.
    saturated: a gate below the first or above the second number is.

  Returns:
    Each block by its name, in network order.

  Raises:
    UserError: no SE blocks, no image could be read, or gates that are no numbers.
  """
  sizes = block_sizes(model, variables, feed.transform.image_size)
  moments = Moments(feed.split.num_classes, sum(sizes.values()))
  ends = np.zeros((2, len(sizes)))
  for batch in _batches(_program(model, feed, mesh, saturated), variables, feed):
    real = batch['mask'] > 0
    labels = batch['labels'][real]
    wanted = moments.count[labels] + ranks(labels) < images_per_class
    gates = batch['gates'][real][wanted]
    if not np.isfinite(gates).all():
      raise UserError('some gates are no numbers; use another checkpoint.')
    moments.add(gates, labels[wanted])
    ends += batch['ends'][real][wanted].sum(0, dtype=np.float64)
    if (moments.count >= images_per_class).all():
      break
  total = moments.count.sum()
  if not total:
    raise UserError('none of the images could be read; change the data or the split.')
  found, first = {}, 0
  for i, (name, size) in enumerate(sizes.items()):
    here = np.s_[:, first : first + size]
    low, high = (ends[:, i] / total).tolist()
    found[name] = Block(moments.count, moments.mean[here], moments.squares[here], low, high)
    first += size
  return found


def _gates(model: nn.Module, variables: dict, images: jax.Array) -> dict[str, jax.Array]:
  _, state = model.apply(variables, images, train=False, mutable=['intermediates'])
  return excitations(state.get('intermediates', {}))


def _program(
  model: nn.Module, feed: EvaluationFeed, mesh: Mesh, saturated: tuple[float, float]
) -> Callable:
  """Compiles `(variables, inputs) -> batch`.

  That has `labels` and `mask` `[N]`, `gates` `[N, C]` of all blocks side by side, and `ends`
  `[N, 2, blocks]`, the shares of gates that are saturated.
  """
  low, high = saturated

  def run(variables: dict, inputs: dict) -> dict[str, jax.Array]:
    batch = feed.batch(inputs)
    gates = _gates(model, variables, batch['images']).values()
    pixels = [gate.reshape(gate.shape[0], -1, gate.shape[-1]) for gate in gates]
    below = jnp.stack([(gate < low).mean((1, 2)) for gate in pixels], 1)
    above = jnp.stack([(gate > high).mean((1, 2)) for gate in pixels], 1)
    return {
      'labels': batch['labels'],
      'mask': batch['mask'],
      'gates': jnp.concatenate([gate.mean(1) for gate in pixels], 1),
      'ends': jnp.stack([below, above], 1),
    }

  shares = PartitionSpec(runtime.DATA_AXIS)
  return runtime.data_parallel(run, mesh, (PartitionSpec(), feed.input_spec), shares)


def _batches(program: Callable, variables: dict, feed: EvaluationFeed) -> Iterator[dict]:
  """Yields the batches on the host, with the devices one ahead."""
  following = None
  for step in range(len(feed)):
    batch, following = following, program(variables, feed.inputs(step))
    if batch is not None:
      yield jax.device_get(batch)
  if following is not None:
    yield jax.device_get(following)


# --- what to show --------------------------------------------------------------------------------


def labels_of(given: Sequence[str], names: Sequence[str], flag: str = '--classes') -> list[int]:
  """Returns the labels of the classes that a user names, each once.

  Args:
    given: names in the data set, for ImageNet's classes also any of their names for people, or
      numbers.
    names: of label 0, 1, ... in the data set.
    flag: that they were given with, for messages.

  Raises:
    UserError: there is no such class (the message has the closest names), or there are several.
  """
  synonyms = _synonyms(names)
  by_synonym: dict[str, list[int]] = {}
  for synonym, label in synonyms:
    by_synonym.setdefault(synonym.lower(), []).append(label)
  numbers = [str(label) for label in range(len(names))]
  found = []
  for text in given:
    labels = [i for i, name in enumerate(names) if name == text]
    labels = labels or by_synonym.get(text.lower(), [])
    labels = labels or [i for i, number in enumerate(numbers) if number == text]
    if not labels:
      one_of(flag, text, dict.fromkeys([*names, *(synonym for synonym, _ in synonyms)]))
    if len(labels) > 1:
      several = ', '.join(names[i] for i in labels)
      raise UserError(f'{flag}={text!r} means several classes: {several}; give one of these.')
    found += labels
  return list(dict.fromkeys(found))


def default_labels(names: Sequence[str]) -> list[int]:
  """Returns all classes if they are few, else those of the paper, or four of equal distance."""
  if len(names) <= _FEW_CLASSES:
    return list(range(len(names)))
  try:
    return labels_of(PAPER_CLASSES, names)
  except UserError:
    return uniform(len(names), 4)


def _synonyms(names: Sequence[str]) -> list[tuple[str, int]]:
  """Returns names for people, and labels, of the classes that are called by their ImageNet ids."""
  known = dict(class_names.imagenet_classes())
  return [
    (synonym, label)
    for label, name in enumerate(names)
    if name in known
    for synonym in known[name].split(', ')
  ]


def uniform(total: int, count: int) -> list[int]:
  """Returns `count` of `0 … total - 1` at equal distances, both ends among them; at most all."""
  return np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()


def paper_blocks(names: Sequence[str]) -> list[str]:
  """Returns the blocks of the paper's figures: the last of each stage, and more of the last stage.

  In SE-ResNet-50 they are SE_2_3, SE_3_4, SE_4_6, SE_5_1, SE_5_2 and SE_5_3; a longer last stage
  has its first, its middle and its last. A unit with two branches has a block in each.

  Args:
    names: of all blocks, in network order.
  """
  stages: dict[str, dict[str, list[str]]] = {}
  for name in names:
    match = re.match(r'SE_(\d+)_(\d+)', name)
    stage, unit = match.groups() if match else ('', name)
    stages.setdefault(stage, {}).setdefault(unit, []).append(name)
  *before, last = [list(units.values()) for units in stages.values()]
  chosen = [units[-1] for units in before] + [last[i] for i in uniform(len(last), 3)]
  return [name for unit in chosen for name in unit]
