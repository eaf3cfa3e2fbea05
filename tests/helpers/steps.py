"""A tiny network and its batches, for the tests of a training step."""

import numpy as np

from senet_jax.layers import SEConfig
from senet_jax.models import create_model


def tiny_model(**options):
  options = {'depths': (1, 1, 1), 'width': 8, 'se': SEConfig(ratio=4), **options}
  return create_model('se_resnet20_cifar', **options)


def batch_of(n: int, size: int = 8, classes: int = 10) -> dict:
  rng = np.random.default_rng(0)
  images = rng.normal(size=(n, size, size, 3)).astype(np.float32)
  return {'images': images, 'labels': rng.integers(0, classes, n).astype(np.int32)}
