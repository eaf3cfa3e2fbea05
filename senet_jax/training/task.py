"""The task of a run: all that the loop does not know by itself.

The loop, the step, checkpoints, resumption and preemption are the same for every `Task`: that of
`senet_jax.training.classification`, that of `senet_jax.training.detection`, or another.
"""

import abc
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax.storage.buckets import Path
from senet_jax.workdir.objective import Objective


@dataclasses.dataclass(frozen=True)
class Feeds:
  """The data of a run, opened.

  Attributes:
    mesh: all devices.
    train: the training split; a feed of `senet_jax.data`, or what has its methods.
    eval: the evaluation split.
    streamed: whether images are read while the run goes on, instead of before.
  """

  mesh: Mesh
  train: Any
  eval: Any
  streamed: bool = False

  def identity(self) -> dict[str, Any]:
    """Returns what tells data sets apart."""
    splits = {'train': self.train.split, 'eval': self.eval.split}
    return {k: {'examples': s.num_examples, 'checksum': s.checksum} for k, s in splits.items()}

  def unreadable(self) -> dict[str, dict[int, str]]:
    """Returns the images of streams that could not be decoded: names by index, by split."""
    feeds = {'train': self.train, 'eval': self.eval}
    return {split: feed.damaged for split, feed in feeds.items() if hasattr(feed, 'damaged')}

  def know_unreadable(self, found: Mapping[str, Mapping[str, str]]) -> None:
    """Tells streams of images that could not be decoded: names by index in decimal, by split."""
    for split in self.unreadable():
      names = found.get(split, {})
      getattr(self, split).know({int(index): name for index, name in names.items()})


class Evaluator(Protocol):
  """Evaluates a network on the whole evaluation split."""

  def compile(self, variables: dict[str, Any]) -> None:
    """Compiles what a call needs, so that no evaluation has to wait for it."""

  def __call__(
    self, variables: dict[str, Any], interrupted: Callable[[], bool]
  ) -> dict[str, float] | None:
    """Returns the results by name, or None if `interrupted` said yes on the way."""


class Task(abc.ABC):
  """The data, network, loss and judgement of a run.

  Attributes:
    config: of the run.
    objective: says which evaluation is the best.
    metrics: of an evaluation, by which a schedule or early stopping can go.
    normalizes: whether training normalises by the statistics of batches.
    headline_metric: what the result of a run is called on the console.
    higher_is_better: metrics that are to rise, in percent; all others are to fall.
  """

  objective: Objective
  headline_metric: str
  higher_is_better: frozenset[str] = frozenset()
  metrics: tuple[str, ...] = ()
  normalizes: bool = True

  def __init__(self, config: ConfigDict):
    """Keeps the configuration; reads and writes nothing."""
    self.config = config

  @abc.abstractmethod
  def check(self) -> None:
    """Checks, without any computation, that the network can be built and run.

    Raises:
      UserError: it cannot.
    """

  @abc.abstractmethod
  def open(self, mesh: Mesh) -> Feeds:
    """Reads both splits onto the devices, or opens them.

    Raises:
      UserError: the data is not usable.
    """

  @abc.abstractmethod
  def build_model(self, feeds: Feeds, *, frozen_bn: bool = False) -> nn.Module:
    """Returns the network; with `frozen_bn` training keeps all running statistics."""

  @abc.abstractmethod
  def loss(self, params, batch_stats, batch, *, model: nn.Module, rngs: dict):
    """Returns the mean loss of a batch in training mode; pure, runs in the compiled step.

    Args:
      params: of the network.
      batch_stats: running statistics before the batch.
      batch: this device's share, as the training feed makes it.
      model: the network.
      rngs: keys of what is random inside the network, by the names of Flax's collections.

    Returns:
      The loss, float32, and `(batch_stats, metrics)` after the batch. The metrics are a pytree of
      float32 sums, as `zero_metrics` is: over micro-batches, devices and steps they are added.
    """

  @abc.abstractmethod
  def zero_metrics(self) -> Any:
    """Returns the metrics of no examples; `report()` makes them a dictionary of averages."""

  @abc.abstractmethod
  def evaluator(self, model: nn.Module, feeds: Feeds) -> Evaluator:
    """Returns what evaluates `model`; its results have the metric of `objective`."""

  @abc.abstractmethod
  def describe(self, record: dict[str, Any]) -> str:
    """Returns the results of a record of `metrics.jsonl` for the console."""

  @abc.abstractmethod
  def headline(self, results: dict[str, float]) -> str:
    """Returns the one number of an evaluation that people ask for, with its unit."""

  @abc.abstractmethod
  def plot(self, records: list[dict[str, Any]], path: pathlib.Path, title: str) -> None:
    """Draws the curves of a run as a PNG.

    Args:
      records: of `metrics.jsonl`.
      path: of the picture.
      title: above it.
    """

  @abc.abstractmethod
  def leave(self, workdir: Path, feeds: Feeds) -> None:
    """Writes into the workdir what only the data tells and a reader of the run needs."""

  def cost(self, metric: str, results: dict[str, float]) -> float:
    """Returns the `Objective.cost` of a metric, of which a lower value is better."""
    mode = 'max' if metric in self.higher_is_better else 'min'
    return Objective(metric, mode).cost(results)
