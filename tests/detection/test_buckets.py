"""Sizes after resizing, and the shapes that they are padded to."""

import numpy as np
import pytest

from senet_jax.detection import buckets


def detectron(height: int, width: int, shorter: int, longer: int) -> tuple[int, int]:
  """As `prep_im_for_blob` of Detectron, and OpenCV, which rounds what it scales."""
  low, high = min(height, width), max(height, width)
  scale = shorter / low
  if round(scale * high) > longer:
    scale = longer / high
  return max(round(height * scale), 1), max(round(width * scale), 1)


@pytest.mark.parametrize(('shorter', 'longer'), [(800, 1333), (256, 426), (100, 100), (33, 1000)])
def test_sizes_are_those_of_detectron_and_fit(shorter, longer):
  sizes = np.random.default_rng(0).integers(1, 3000, (2000, 2))
  sizes[:4] = [[480, 640], [640, 480], [1, 3000], [500, 500]]
  found = buckets.resized(sizes, shorter, longer)
  expected = [detectron(*size, shorter, longer) for size in sizes.tolist()]
  np.testing.assert_array_equal(found, expected)
  among = buckets.shapes(shorter, longer)
  padded = np.array(among)[buckets.assign(found, among)]
  assert (found <= padded).all() and not (np.array(among) % 32).any()
  # In none that is smaller, too.
  for size, shape in zip(found, padded, strict=True):
    assert not any(
      (size <= other).all() and np.prod(other) < np.prod(shape) for other in np.array(among)
    )


def test_shapes():
  assert buckets.shapes(800, 1333) == [(800, 1088), (1088, 800), (800, 1344), (1344, 800)]
  assert buckets.shapes(256, 256) == [(256, 256)]
  usual = buckets.resized(np.array([[480, 640], [640, 427]]), 800, 1333)
  np.testing.assert_array_equal(usual, [[800, 1067], [1199, 800]])
