"""What came of each image of an evaluation, and the figures that need to know it."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def of_batch(logits: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """The outcome of each image, `[N]` each: `label`, `prediction`, `rank` and `mask`.

  The rank is the number of classes that come before the label; ties go to the lower class.

  Args:
    logits: `[N, K]`.
    batch: with `labels` `[N]` and `mask` `[N]`.
  """
  labels = batch['labels'][:, None]
  given = jnp.take_along_axis(logits, labels, axis=-1)
  lower = jnp.arange(logits.shape[-1]) < labels
  before = (logits > given) | ((logits == given) & lower)
  return {
    'label': batch['labels'],
    'prediction': logits.argmax(-1).astype(jnp.int32),
    'rank': before.sum(-1, dtype=jnp.int32),
    'mask': batch['mask'],
  }


@dataclasses.dataclass(frozen=True, eq=False)
class Outcomes:
  """The outcomes of a split, image by image, without those that could not be read.

  Attributes:
    labels: `[N]` int32.
    predictions: `[N]` int32.
    ranks: of the labels among the predictions, `[N]` int32; 0 is right.
  """

  labels: np.ndarray
  predictions: np.ndarray
  ranks: np.ndarray

  @classmethod
  def joined(cls, batches: Sequence[dict[str, np.ndarray]]) -> 'Outcomes':
    """From what `of_batch` gives for each batch."""
    whole = {name: np.concatenate([np.asarray(b[name]) for b in batches]) for name in batches[0]}
    valid = whole['mask'] > 0
    return cls(*(whole[name][valid] for name in ('label', 'prediction', 'rank')))

  def __len__(self) -> int:
    return len(self.labels)

  def top_k_error(self, k: int) -> float:
    """Percent of the images whose label is not among the `k` best classes."""
    return 100 * (float((self.ranks >= k).sum()) / len(self))

  def confusion(self, num_classes: int) -> np.ndarray:
    """Images by label (rows) and prediction (columns), `[K, K]` int64."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (self.labels, self.predictions), 1)
    return counts

  def per_class(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each class the number of images and how many are taken for another, each `[K]` int64."""
    images = np.bincount(self.labels, minlength=num_classes)
    return images, np.bincount(self.labels[self.ranks > 0], minlength=num_classes)
