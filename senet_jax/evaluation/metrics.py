"""Loss and top-k errors, averaged exactly over examples, batches and devices."""

import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics
from flax import struct

# Top-k errors that are reported, by name.
TOP_K = {'top1_error': 1, 'top3_error': 3, 'top5_error': 5}


@struct.dataclass
class Metrics(clu_metrics.Collection):
  """Averages over examples: of the loss in nats, and of the top-k errors as shares."""

  loss: clu_metrics.Average.from_output('loss')
  top1_error: clu_metrics.Average.from_output('top1_error')
  top3_error: clu_metrics.Average.from_output('top3_error')
  top5_error: clu_metrics.Average.from_output('top5_error')

  @classmethod
  def of_batch(cls, loss: jax.Array, logits: jax.Array, batch: dict[str, jax.Array]) -> 'Metrics':
    """Returns the averages over one batch, as float32 sums and counts.

    One dtype lets a train step sum them over the devices in the collective of the gradients.

    Args:
      loss: `[N]`.
      logits: `[N, K]` float32.
      batch: with `labels` `[N]`, and `mask` `[N]` where examples are to be left out.
    """
    outputs = {'loss': loss, **top_k_errors(logits, batch['labels'])}
    if 'mask' in batch:
      outputs['mask'] = batch['mask']
    return jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float32), cls.single_from_model_output(**outputs)
    )

  def report(self) -> dict[str, float]:
    """Returns the averages as Python numbers, errors in percent."""
    averages = {name: getattr(self, name) for name in ('loss', *TOP_K)}
    # Divided here, in float64: the sums of errors are whole numbers, exact in float32.
    values = {name: float(x.total) / float(x.count) for name, x in averages.items()}
    return {name: 100 * x if name in TOP_K else x for name, x in values.items()}


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
  """Returns the cross-entropy `[N]` of `logits` `[N, K]` float32 with `labels` `[N]`.

  `smoothing` is the share of the target that is spread evenly over all classes.
  """
  if not smoothing:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
  return optax.softmax_cross_entropy(logits, targets)


def top_k_errors(logits: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
  """Returns 1 for each image whose label is not among the k best classes, `[N]` float32 by name.

  Ties go to the lower class, as in `argmax`; with fewer than k classes no example is wrong.
  """
  most = min(max(TOP_K.values()), logits.shape[-1])
  hits = jax.lax.top_k(logits, most)[1] == labels[:, None]
  return {name: 1.0 - hits[:, :k].any(-1).astype(jnp.float32) for name, k in TOP_K.items()}
