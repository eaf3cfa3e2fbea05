"""The outcome of each image of an evaluation, the figures that need it, and their files."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax.reporting import tables
from senet_jax.storage import files


def of_batch(logits: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Returns the outcome of each image, `[N]` each: `label`, `prediction`, `rank` and `mask`.

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
    """Returns the outcomes of a split from what `of_batch` gives for each batch."""
    whole = {name: np.concatenate([np.asarray(b[name]) for b in batches]) for name in batches[0]}
    valid = whole['mask'] > 0
    return cls(*(whole[name][valid] for name in ('label', 'prediction', 'rank')))

  def __len__(self) -> int:
    return len(self.labels)

  def top_k_error(self, k: int) -> float:
    """Returns the percentage of the images whose label is not among the `k` best classes."""
    return 100 * (float((self.ranks >= k).sum()) / len(self))

  def top_k_errors(self, wanted: Sequence[int] | None, num_classes: int) -> dict[str, float]:
    """Returns `top1_error`, ….

    Args:
      wanted: the ks; None: of 1, 3 and 5 those that say something, as the right class is always
        among all of them.
      num_classes: how many classes there are.
    """
    wanted = wanted or [k for k in (1, 3, 5) if k == 1 or k < num_classes]
    return {f'top{k}_error': self.top_k_error(k) for k in wanted}

  def confusion(self, num_classes: int) -> np.ndarray:
    """Counts images by label (rows) and prediction (columns), `[K, K]` int64."""
    counts = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(counts, (self.labels, self.predictions), 1)
    return counts

  def per_class(self, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts the images of each class, and those taken for another, each `[K]` int64."""
    images = np.bincount(self.labels, minlength=num_classes)
    return images, np.bincount(self.labels[self.ranks > 0], minlength=num_classes)


def write_per_class(path: pathlib.Path, outcomes: Outcomes, names: Sequence[str]) -> None:
  """Writes the error of each class in percent as CSV, empty for a class without images.

  Args:
    path: of the file.
    outcomes: of the images.
    names: of all classes.
  """
  counts = zip(names, *outcomes.per_class(len(names)), strict=True)
  rows = [[name, images, 100 * wrong / images if images else ''] for name, images, wrong in counts]
  files.write_text(path, tables.csv_text(['class', 'images', 'error'], rows))


def write_confusion(path: pathlib.Path, outcomes: Outcomes, names: Sequence[str]) -> None:
  """Writes images by label (rows) and prediction (columns).

  Args:
    path: of the file, `.csv` or `.npz`.
    outcomes: of the images.
    names: of all classes.
  """
  counts = outcomes.confusion(len(names))
  if path.suffix == '.csv':
    rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
    files.write_text(path, tables.csv_text(['class', *names], rows))
    return
  with files.whole(path) as partial, partial.open('wb') as file:
    np.savez_compressed(file, confusion=counts, class_names=np.array(names))
