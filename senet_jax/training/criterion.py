"""The loss of a classification in training: of labels, of smoothed and of mixed ones."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from senet_jax.evaluation.metrics import cross_entropy


@dataclasses.dataclass(frozen=True)
class Criterion:
  """The loss of each image of a batch.

  Attributes:
    loss: `cross_entropy`, or `bce`, the mean over the classes of their binary cross-entropies, with
      no sum to 1 asked of the network (Wightman et al. 2021).
    smoothing: share of the target that is spread evenly over all classes.
    threshold: of `bce`, above which a target counts as 1 and else as 0; None: they stay shares.
  """

  loss: str = 'cross_entropy'
  smoothing: float = 0.0
  threshold: float | None = None

  @classmethod
  def create(cls, config: ConfigDict) -> 'Criterion':
    """Returns the loss of a run."""
    return cls(config.loss, config.label_smoothing, config.bce_threshold)

  def __call__(self, logits: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """Returns the losses `[N]` of `logits` `[N, K]` float32, given a batch as `Mixing` makes it."""
    mixed = 'share' in batch
    if self.loss == 'cross_entropy' and not mixed:
      return cross_entropy(logits, batch['labels'], self.smoothing)
    targets = self.targets(batch, logits.shape[-1])
    if self.loss == 'cross_entropy':
      return optax.softmax_cross_entropy(logits, targets)
    return optax.sigmoid_binary_cross_entropy(logits, targets).mean(-1)

  def targets(self, batch: dict[str, jax.Array], classes: int) -> jax.Array:
    """Returns the share of each class `[N, classes]` float32."""
    targets = jax.nn.one_hot(batch['labels'], classes)
    if 'share' in batch:
      share = batch['share'][:, None]
      targets = share * targets + (1 - share) * jax.nn.one_hot(batch['other_labels'], classes)
    targets = optax.smooth_labels(targets, self.smoothing) if self.smoothing else targets
    if self.threshold is not None:
      targets = (targets > self.threshold).astype(targets.dtype)
    return targets


# Cross-entropy with labels as they are.
PLAIN = Criterion()


def with_main_labels(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns a batch whose `labels` are those of the larger share of each image."""
  if 'share' not in batch:
    return batch
  main = jnp.where(batch['share'] < 0.5, batch['other_labels'], batch['labels'])
  return {**batch, 'labels': main}
