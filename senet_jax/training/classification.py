"""Image classification: cross-entropy, top-k errors, and the lowest top-1 error is the best."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax.data import feeds as data_feeds
from senet_jax.data.feeds import TrainingFeed
from senet_jax.evaluation.evaluate import eval_program, evaluate, zero_metrics
from senet_jax.evaluation.metrics import Metrics
from senet_jax.reporting import curves
from senet_jax.storage.buckets import Path
from senet_jax.training import step as step_lib
from senet_jax.training.criterion import PLAIN, Criterion, with_main_labels
from senet_jax.training.task import Feeds, Task
from senet_jax.workdir import network, saved
from senet_jax.workdir.objective import TOP1

# Of the classes that a network names, the right one counts if it is among so many.
_TOP = 5


class Classification(Task):
  """One label for each image; the task of every configuration in `configs/`."""

  objective = TOP1
  headline_metric = 'error'
  metrics = ('loss', 'top1_error', 'top3_error', 'top5_error')
  classes: int | None = None  # outputs of the network, once the data is opened

  def check(self) -> None:
    """See `Task.check`."""
    network.check_model(self.config)

  def open(self, mesh: Mesh) -> Feeds:
    """See `Task.open`."""
    config = self.config
    train = data_feeds.training_feed(config, mesh)
    evaluation = data_feeds.evaluation_feed(config, config.data.eval_split, mesh)
    feeds = Feeds(mesh, train, evaluation, data_feeds.streams(config))
    self.classes = self.num_classes(feeds)
    return feeds

  def num_classes(self, feeds: Feeds) -> int:
    """Returns the number of outputs of the network."""
    return self.config.model.num_classes or feeds.train.split.num_classes

  def build_model(self, feeds: Feeds, *, frozen_bn: bool = False) -> nn.Module:
    """See `Task.build_model`."""
    return network.build_model(self.config, self.num_classes(feeds), frozen_bn=frozen_bn)

  def loss(self, params, batch_stats, batch, *, model: nn.Module, rngs: dict):
    """See `Task.loss`; the batch is that of `loss_fn`."""
    return loss_fn(
      params,
      batch_stats,
      batch,
      model=model,
      criterion=Criterion.create(self.config),
      aux_weight=self.config.aux_loss_weight if getattr(model, 'aux', False) else 0.0,
      rngs=rngs,
    )

  def zero_metrics(self) -> Metrics:
    """See `Task.zero_metrics`."""
    return zero_metrics()

  def evaluator(self, model: nn.Module, feeds: Feeds) -> 'ClassificationEvaluator':
    """See `Task.evaluator`."""
    return ClassificationEvaluator(model, feeds, deterministic=self.config.deterministic)

  def describe(self, record: dict[str, Any]) -> str:
    """See `Task.describe`."""
    parts = [f'loss {record["loss"]:.4f}', f'top-1 error {record["top1_error"]:6.2f} %']
    # With fewer classes the right one is always among the first five.
    if record['kind'] == 'eval' and (self.classes is None or self.classes > _TOP):
      parts.append(f'top-5 error {record["top5_error"]:6.2f} %')
    return '  '.join(parts)

  def headline(self, results: dict[str, float]) -> str:
    """See `Task.headline`."""
    return f'{results["top1_error"]:.2f} %'

  def plot(self, records: list[dict[str, Any]], path: pathlib.Path, title: str) -> None:
    """See `Task.plot`."""
    curves.plot(records, path, title)

  def leave(self, workdir: Path, feeds: Feeds) -> None:
    """Writes the number of classes and their names."""
    saved.write_classes(workdir, self.num_classes(feeds), feeds.train.split.class_names)


class ClassificationEvaluator:
  """Loss and errors in percent over the evaluation split; see `training.task.Evaluator`."""

  def __init__(self, model: nn.Module, feeds: Feeds, *, deterministic: bool):
    self._feed = feeds.eval
    self._plain = eval_program(model, feeds.eval, feeds.mesh, deterministic=deterministic)
    self._program: Callable = self._plain

  def compile(self, variables: dict[str, Any]) -> None:
    """See `Evaluator.compile`."""
    lowered = self._plain.lower(zero_metrics(), variables, self._feed.inputs(0))
    self._program = lowered.compile()

  def __call__(
    self, variables: dict[str, Any], interrupted: Callable[[], bool]
  ) -> dict[str, float] | None:
    """Returns `loss`, `top1_error`, `top3_error`, `top5_error`, or None if it was given up."""
    return evaluate(self._program, variables, self._feed, interrupted)


def loss_fn(
  params,
  batch_stats,
  batch,
  *,
  model: nn.Module,
  criterion: Criterion = PLAIN,
  aux_weight: float = 0.0,
  rngs: dict[str, jax.Array] | None = None,
):
  """Returns the mean loss of a batch in training mode.

  Args:
    params: of the network.
    batch_stats: running statistics before the batch.
    batch: `images` `[N, H, W, 3]` float32, `labels` `[N]` int32, and what `Mixing` adds.
    model: the network.
    criterion: the loss of an image.
    aux_weight: of the loss of auxiliary heads; 0: they are left out.
    rngs: keys of what is random inside the network, by the names of Flax's collections.

  Returns:
    The loss, float32, and `(batch_stats, metrics)` after the batch; the metrics are those of the
    main head.
  """
  variables = {'params': params, 'batch_stats': batch_stats}
  mutable = ['batch_stats', 'intermediates'] if aux_weight else ['batch_stats']
  logits, new = model.apply(variables, batch['images'], train=True, mutable=mutable, rngs=rngs)
  with jax.named_scope('loss'):
    losses = criterion(logits, batch)
    total = losses.mean()
    if aux_weight:
      for aux_logits in new['intermediates']['aux_logits']:
        total += aux_weight * criterion(aux_logits, batch).mean()
    metrics = Metrics.of_batch(losses, logits, with_main_labels(batch))
  return total, (new['batch_stats'], metrics)


def training_program(
  config: ConfigDict,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  feed: TrainingFeed,
  mesh: Mesh,
  *,
  looped: bool,
  frozen_bn: bool = False,
) -> jax.stages.Wrapped:
  """Returns the compiled step of a classification; see `senet_jax.training.step`."""
  task = Classification(config)
  return step_lib.training_program(
    task, model, optimizer, feed, mesh, looped=looped, frozen_bn=frozen_bn
  )
