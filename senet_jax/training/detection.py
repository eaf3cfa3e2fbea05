"""Object detection: the losses of Faster R-CNN; the highest average precision is the best."""

import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn, struct
from jax.sharding import Mesh

from senet_jax import detection
from senet_jax.detection import annotations, average_precision, evaluate
from senet_jax.detection.feeds import DetectionEvalFeed, DetectionFeed
from senet_jax.errors import UserError
from senet_jax.reporting import curves
from senet_jax.runtime.programs import Programs
from senet_jax.storage.buckets import Path
from senet_jax.training.task import Feeds, Task
from senet_jax.workdir import network, saved
from senet_jax.workdir.objective import AP

LOSSES = ('rpn_objectness', 'rpn_boxes', 'roi_classes', 'roi_boxes')


class Losses(struct.PyTreeNode):
  """The losses of detectors, summed over images.

  Attributes:
    sums: by name.
    count: of images, float32.
  """

  sums: dict[str, jax.Array]
  count: jax.Array

  def report(self) -> dict[str, float]:
    """Returns the means: `loss`, which is that of their sum, and each of `LOSSES`."""
    means = {name: float(self.sums[name] / self.count) for name in LOSSES}
    return {'loss': sum(means.values()), **means}


class Detection(Task):
  """Boxes and classes of the objects in a photo, by a detector of `senet_jax.detection`."""

  objective = AP
  headline_metric = 'AP'
  higher_is_better = frozenset({'ap', 'ap50', 'ap75'})
  # Evaluations have no loss: the default metric of schedules and early stopping is AP.
  metrics = ('loss', 'ap', 'ap50', 'ap75')
  normalizes = False

  def check(self) -> None:
    """See `Task.check`."""
    if (self.config.steps_per_dispatch or 1) > 1:
      raise UserError(
        f'config.steps_per_dispatch={self.config.steps_per_dispatch} needs all images on the '
        'device; a detector reads one batch at a time: leave it out.'
      )
    average_precision.check_installed()
    network.check_model(self.config)

  def open(self, mesh: Mesh) -> Feeds:
    """See `Task.open`."""
    train = DetectionFeed.create(self.config, mesh)
    evaluation = DetectionEvalFeed.create(self.config, self.config.data.eval_split, mesh)
    for split in (train.split, evaluation.split):
      split.annotations.check_objects(split.where)
    return Feeds(mesh, train, evaluation, streamed=True)

  def num_classes(self, feeds: Feeds) -> int:
    """Returns the number of classes, without the background."""
    return self.config.model.num_classes or feeds.train.split.num_classes

  def build_model(self, feeds: Feeds, *, frozen_bn: bool = False) -> nn.Module:
    """See `Task.build_model`; all running statistics are always kept."""
    return network.build_model(self.config, self.num_classes(feeds), frozen_bn=frozen_bn)

  def loss(self, params, batch_stats, batch, *, model: nn.Module, rngs: dict):
    """See `Task.loss`."""
    total, losses = detection.loss_fn(params, batch_stats, batch, model=model, rngs=rngs)
    images = jnp.asarray(batch['images'].shape[0], jnp.float32)
    sums = {name: jax.lax.stop_gradient(value) * images for name, value in losses.items()}
    return total, (batch_stats, Losses(sums, images))

  def zero_metrics(self) -> Losses:
    """See `Task.zero_metrics`."""
    zero = jnp.zeros((), jnp.float32)
    return Losses(dict.fromkeys(LOSSES, zero), zero)

  def evaluator(self, model: nn.Module, feeds: Feeds) -> 'DetectionEvaluator':
    """See `Task.evaluator`."""
    return DetectionEvaluator(model, feeds, deterministic=self.config.deterministic)

  def describe(self, record: dict[str, Any]) -> str:
    """See `Task.describe`."""
    if record['kind'] == 'eval':
      return f'AP {record["ap"]:6.2f} %  AP50 {record["ap50"]:6.2f} %  AP75 {record["ap75"]:6.2f} %'
    anchors, regions = (record[a] + record[b] for a, b in (LOSSES[:2], LOSSES[2:]))
    return f'loss {record["loss"]:.4f} = anchors {anchors:.4f} + regions {regions:.4f}'

  def headline(self, results: dict[str, float]) -> str:
    """See `Task.headline`."""
    return f'{results["ap"]:.2f} % (AP50 {results["ap50"]:.2f} %)'

  def plot(self, records: list[dict[str, Any]], path: pathlib.Path, title: str) -> None:
    """See `Task.plot`."""
    curves.plot(records, path, title)

  def leave(self, workdir: Path, feeds: Feeds) -> None:
    """Writes the number of classes and their names, and in `faults.json` what was left out."""
    saved.write_classes(workdir, self.num_classes(feeds), feeds.train.split.class_names)
    splits = {'train': feeds.train.split, 'eval': feeds.eval.split}
    annotations.write_faults(
      workdir / 'faults.json', {name: split.annotations for name, split in splits.items()}
    )

  def cost(self, metric: str, results: dict[str, float]) -> float:
    """See `Task.cost`; `loss` stands for AP, as evaluations have none."""
    return super().cost(self.objective.metric if metric == 'loss' else metric, results)


class DetectionEvaluator:
  """Average precision in percent over the evaluation split; see `training.task.Evaluator`."""

  def __init__(self, model: nn.Module, feeds: Feeds, *, deterministic: bool):
    self._feed, self._annotations = feeds.eval, feeds.eval.split.annotations
    detector: Any = model
    self._offset = detector.options.box_offset
    plain = evaluate.eval_program(model, feeds.eval, feeds.mesh, deterministic=deterministic)
    self._programs = Programs(plain)

  def compile(self, variables: dict[str, Any]) -> None:
    """See `Evaluator.compile`."""
    for inputs in self._feed.shapes():
      self._programs.compile(variables, inputs)

  def __call__(
    self, variables: dict[str, Any], interrupted: Callable[[], bool]
  ) -> dict[str, float] | None:
    """Returns what `average_precision` does, or None if it was given up.

    The average precision of a network that outputs NaN or infinity is NaN.
    """
    found = evaluate.detect(
      self._programs, variables, self._feed, self._annotations, self._offset, interrupted
    )
    if found is None:
      return None
    if not found.finite:
      return {AP.metric: math.nan}
    return average_precision.average_precision(self._annotations, found.rows)
