"""What is known about each data set, and its arrays in memory."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from senet_jax.data import arrays
from senet_jax.data.builders import digits
from senet_jax.errors import UserError, one_of


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """A data set of images.

  Attributes:
    name: as in tfds.
    num_classes: labels are 0 to `num_classes - 1`.
    image_shape: `(H, W, C)`.
    mean: of the training images per channel, 0-255 scale.
    std: of the training images per channel, 0-255 scale.
    splits: number of examples of each split.
  """

  name: str
  num_classes: int
  image_shape: tuple[int, int, int]
  mean: tuple[float, ...]
  std: tuple[float, ...]
  splits: dict[str, int]


# CIFAR statistics as in fb.resnet.torch, whose training code the paper's CIFAR recipes are.
DATASETS = {
  info.name: info
  for info in (
    DatasetInfo('digits', 10, (8, 8, 1), (77.87,), (95.88,), digits.SPLITS),
    DatasetInfo('cifar10', 10, (32, 32, 3), (125.3, 123.0, 113.9), (63.0, 62.1, 66.7),
                {'train': 50000, 'test': 10000}),
    DatasetInfo('cifar100', 100, (32, 32, 3), (129.3, 124.1, 112.4), (68.2, 65.4, 70.4),
                {'train': 50000, 'test': 10000}),
  )
}  # fmt: skip

# Enough for any usual batch, few enough to be made in no time.
_FAKE_EXAMPLES = 2048


def dataset_info(name: str) -> DatasetInfo:
  """What is known about the data set `name`.

  Raises:
    UserError: there is none of that name.
  """
  one_of('data.name', name, DATASETS)
  return DATASETS[name]


def load(
  name: str, split: str, data_dir: str | None = None, *, fake: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """Reads a split into memory.

  `digits` comes from scikit-learn, the others from the arrays that `prepare_data` wrote beside the
  files of tfds: neither needs tfds or TensorFlow.

  Args:
    name: of the data set.
    split: a split or a contiguous part of one, in tfds notation: `train`, `train[:90%]`,
      `test[100:200]`.
    data_dir: of tfds; None is $TFDS_DATA_DIR or `~/tensorflow_datasets`.
    fake: make a few images up instead, each class of its own brightness.

  Returns:
    Images `[N, H, W, C]` uint8 and labels `[N]` int32.

  Raises:
    UserError: no such split, the data set is not prepared, or a label is outside the range.
  """
  info = dataset_info(name)
  base, part = _parse_split(split, info)
  if fake:
    images, labels = _fake(info, base)
  elif name == 'digits':
    images, labels = digits.load_split(base)
  else:
    images, labels = arrays.read_arrays(name, data_dir or arrays.default_data_dir(), base)
  chosen = part(len(labels))
  images, labels = np.asarray(images[chosen]), np.asarray(labels[chosen], np.int32)
  if not len(labels):
    raise UserError(f'data split {split!r} of {name} has no examples.')
  check_labels(labels, info.num_classes, f'{name}, split {split}')
  return images, labels


def check_labels(labels: np.ndarray, num_classes: int, where: str) -> None:
  """Checks that `labels` `[N]` are classes.

  Raises:
    UserError: names the first that is not, with its place.
  """
  wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
  if wrong.size:
    raise UserError(
      f'label {labels[wrong[0]]} of example {wrong[0]} ({where}) is outside 0 to '
      f'{num_classes - 1}; change the data or config.model.num_classes.'
    )


def _parse_split(split: str, info: DatasetInfo) -> tuple[str, Callable[[int], slice]]:
  """The split's name, and what of its examples is wanted, given how many there are."""
  match = re.fullmatch(r'(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?', split)
  if not match:
    raise UserError(f'data split {split!r} is not of the form train, train[:90%] or test[10:20].')
  one_of(f'split of {info.name}', match[1], info.splits)

  def bound(text: str | None, count: int) -> int | None:
    if text is None:
      return None
    return round(count * int(text[:-1]) / 100) if text[-1] == '%' else int(text)

  return match[1], lambda count: slice(bound(match[2], count), bound(match[3], count))


def _fake(info: DatasetInfo, split: str) -> tuple[np.ndarray, np.ndarray]:
  rng = np.random.default_rng(list(info.splits).index(split))
  count = min(_FAKE_EXAMPLES, info.splits[split])
  labels = np.arange(count, dtype=np.int32) % info.num_classes
  brightness = 256 * labels / info.num_classes
  noise = rng.uniform(-64, 64, (count, *info.image_shape))
  return np.clip(brightness[:, None, None, None] + noise, 0, 255).astype(np.uint8), labels
