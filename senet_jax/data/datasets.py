"""The data sets: facts about each, and its arrays in memory."""

import dataclasses
import re
import zlib
from collections.abc import Callable, Iterable

import numpy as np
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.data import arrays
from senet_jax.data.builders import digits, places365, tiny_imagenet
from senet_jax.errors import UserError, one_of, shown


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
  """A data set of images.

  Attributes:
    name: as in tfds.
    num_classes: labels are 0 to `num_classes - 1`.
    image_shape: `(H, W, C)`; None if its images differ in it, so that they are streamed.
    mean: of the training images per channel, 0-255 scale.
    std: of the training images per channel, 0-255 scale.
    splits: number of examples of each split.
  """

  name: str
  num_classes: int
  image_shape: tuple[int, int, int] | None
  mean: tuple[float, ...]
  std: tuple[float, ...]
  splits: dict[str, int]


# CIFAR statistics as in fb.resnet.torch, whose training code the paper's CIFAR recipes are; of Tiny
# ImageNet those in common use (0.4802, 0.4481, 0.3975; 0.2770, 0.2691, 0.2821), of Places365 those
# of ImageNet.
DATASETS = {
  info.name: info
  for info in (
    DatasetInfo('digits', 10, (8, 8, 1), (77.87,), (95.88,), digits.SPLITS),
    DatasetInfo('cifar10', 10, (32, 32, 3), (125.3, 123.0, 113.9), (63.0, 62.1, 66.7),
                {'train': 50000, 'test': 10000}),
    DatasetInfo('cifar100', 100, (32, 32, 3), (129.3, 124.1, 112.4), (68.2, 65.4, 70.4),
                {'train': 50000, 'test': 10000}),
    DatasetInfo('imagenet2012', 1000, None, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375),
                {'train': 1281167, 'validation': 50000}),
    DatasetInfo('tiny_imagenet', tiny_imagenet.CLASSES, (64, 64, 3), (122.45, 114.27, 101.36),
                (70.64, 68.62, 71.94), tiny_imagenet.COUNTS),
    DatasetInfo('places365_challenge', 365, None, (123.675, 116.28, 103.53),
                (58.395, 57.12, 57.375), places365.COUNTS),
  )
}  # fmt: skip

# Of which nothing is known before its files are read.
_ANY = dataclasses.replace(DATASETS['imagenet2012'], name='any', num_classes=10, splits={})
# Few enough to be made in no time: small images, and those of usual photos.
_FAKE_EXAMPLES, _FAKE_PHOTOS = 2048, 256


def dataset_info(name: str) -> DatasetInfo:
  """Returns what is known about the data set `name`.

  Raises:
    UserError: there is none of that name.
  """
  one_of('data.name', name, DATASETS, "Any other is streamed: config.data.feed='stream'.")
  return DATASETS[name]


def streamed_info(name: str) -> DatasetInfo:
  """Returns `dataset_info`, or for an unknown name the statistics of ImageNet and 10 classes.

  A stream finds the classes of such a data set in its files; made-up data has these ten.
  """
  return DATASETS.get(name, _ANY)


def load(name: str, split: str, data_dir: str | None = None) -> tuple[np.ndarray, np.ndarray]:
  """Reads a split into memory.

  `digits` comes from scikit-learn, the others from the arrays that `prepare_data` wrote beside the
  files of tfds: neither needs tfds or TensorFlow.

  Args:
    name: of the data set.
    split: a split or a contiguous part of one, in tfds notation: `train`, `train[:90%]`,
      `test[100:200]`.
    data_dir: of tfds; None is $TFDS_DATA_DIR or `~/tensorflow_datasets`.

  Returns:
    Images `[N, H, W, C]` uint8 and labels `[N]` int32.

  Raises:
    UserError: no such split, the data set is not prepared, or a label is outside the range.
  """
  info = dataset_info(name)
  if info.image_shape is None:
    raise UserError(
      f"{name} is too large for config.data.feed='device'; use config.data.feed='stream'."
    )
  base, part = parse_split(split, info.splits, name)
  if name == 'digits':
    images, labels = digits.load_split(base)
  else:
    images, labels = arrays.read_arrays(name, data_dir or arrays.default_data_dir(), base)
  chosen = part(len(labels))
  images, labels = np.asarray(images[chosen]), np.asarray(labels[chosen], np.int32)
  if not len(labels):
    raise UserError(f'data split {split!r} of {name} has no examples.')
  check_labels(labels, info.num_classes, f'{name}, split {split}')
  return images, labels


def fake(
  name: str,
  split: str,
  shape: tuple[int, int, int],
  num_classes: int | None = None,
  at_least: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
  """Makes a few images up, each class of its own brightness.

  Args:
    name: of the data set that they stand for.
    split: one of its splits, or a part of one.
    shape: `(H, W, C)`.
    num_classes: None is that of the data set.
    at_least: so many examples, if the data set has as many.

  Returns:
    As of `load`.
  """
  info = streamed_info(name)
  base, part = parse_split(split, info.splits or (split.split('[')[0],), name)
  rng = np.random.default_rng(zlib.crc32(base.encode()))
  count = max(_FAKE_EXAMPLES if info.image_shape else _FAKE_PHOTOS, at_least)
  count = min(count, info.splits.get(base, count))
  num_classes = num_classes or info.num_classes
  labels = np.arange(count, dtype=np.int32) % num_classes
  images = rng.integers(0, 64, (count, *shape), np.uint8)
  images += (192 * labels // num_classes).astype(np.uint8)[:, None, None, None]
  chosen = part(count)
  if not len(labels[chosen]):  # a part that begins behind the few that there are
    chosen = slice(None)
  return images[chosen], labels[chosen]


def class_names(name: str, data_dir: str | None = None) -> tuple[str, ...] | None:
  """The names of the classes, in the order of the labels; None where they cannot be found."""
  if name == 'digits':
    return tuple('0123456789')
  version_dir = arrays.find_arrays(name, data_dir or arrays.default_data_dir())
  return tuple(arrays.read_index(version_dir)['label_names']) if version_dir else None


def eval_batch_size(config: ConfigDict, examples: int, devices: int) -> int:
  """Returns the batch of an evaluation: at most all examples, rounded up to fill the devices."""
  wanted = min(config.eval.batch_size or config.batch_size, examples)
  return runtime.fill_devices(wanted, devices)


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


def parse_split(
  split: str, splits: Iterable[str], name: str, hint: str = ''
) -> tuple[str, Callable[[int], slice]]:
  """Reads the notation of tfds for a split or a contiguous part of one.

  Args:
    split: `train`, `train[:90%]`, `test[100:200]`.
    splits: those that there are.
    name: of the data set.
    hint: what to do if the split is missing.

  Returns:
    The split's name, and what of its examples is wanted, given how many there are.

  Raises:
    UserError: another notation, or no such split.
  """
  match = re.fullmatch(r'(\w+)(?:\[(-?\d{1,15}%?)?:(-?\d{1,15}%?)?\])?', split)
  if not match:
    raise UserError(
      f'data split {shown(split)} is not of the form train, train[:90%] or test[10:20].'
    )
  one_of(f'{name}: the split', match[1], splits, hint)

  def bound(text: str | None, count: int) -> int | None:
    if text is None:
      return None
    return round(count * int(text[:-1]) / 100) if text[-1] == '%' else int(text)

  return match[1], lambda count: slice(bound(match[2], count), bound(match[3], count))
