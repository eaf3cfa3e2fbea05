"""The 8x8 digits that scikit-learn ships: a real dataset that needs no download."""

import functools
import os
from typing import TYPE_CHECKING

import numpy as np

from senet_jax import errors

if TYPE_CHECKING:
  import tensorflow_datasets as tfds

SPLITS = {'train': 1437, 'test': 360}
_HOMEPAGE = 'https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits'
_CITATION = """\
@misc{alpaydin1998digits,
  author = {Alpaydin, E. and Kaynak, C.},
  title = {Optical Recognition of Handwritten Digits},
  year = {1998},
  howpublished = {UCI Machine Learning Repository},
  doi = {10.24432/C50P49}
}
"""


def load_split(split: str) -> tuple[np.ndarray, np.ndarray]:
  """Loads `train` (1437) or `test` (360), stratified by class and always the same.

  Args:
    split: `train` or `test`.

  Returns:
    images, uint8 `[N, 8, 8, 1]`, 0..255, and labels, int32 `[N]`.

  Raises:
    UserError: the split is unknown or scikit-learn is not installed.
  """
  errors.one_of('split', split, SPLITS)
  try:
    from sklearn import datasets, model_selection
  except ImportError as error:
    raise errors.UserError('digits needs scikit-learn: pip install scikit-learn') from error
  digits = datasets.load_digits()
  indices = model_selection.train_test_split(
    np.arange(len(digits.target)),
    test_size=SPLITS['test'],
    random_state=0,
    stratify=digits.target,
  )
  chosen = indices[list(SPLITS).index(split)]
  images = np.round(digits.images[chosen] * (255 / 16)).astype(np.uint8)
  return images[..., None], digits.target[chosen].astype(np.int32)


def digits_builder(data_dir: str | os.PathLike | None = None) -> 'tfds.core.DatasetBuilder':
  """The tfds builder `digits`, whose examples are those of `load_split`."""
  return _builder_class()(data_dir=data_dir)


@functools.cache
def _builder_class() -> type:
  # Inside a function: training from arrays must not import tfds.
  import tensorflow_datasets as tfds

  class Digits(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """The 8x8 digits of scikit-learn."""

    VERSION = tfds.core.Version('1.0.0')
    url_infos = None  # nothing to download

    def _info(self):
      image = tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8)
      label = tfds.features.ClassLabel(num_classes=10)
      return tfds.core.DatasetInfo(
        builder=self,
        description='Handwritten digits of 8x8 pixels, the test part of the UCI dataset, as '
        'scikit-learn ships them, with a fixed, stratified train/test split.',
        features=tfds.features.FeaturesDict({'image': image, 'label': label}),
        supervised_keys=('image', 'label'),
        homepage=_HOMEPAGE,
        citation=_CITATION,
        disable_shuffling=True,  # example i is example i of `load_split`
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
      for i, (image, label) in enumerate(zip(*load_split(split), strict=True)):
        yield f'{i:04d}', {'image': image, 'label': label}

  return Digits
