"""RoIAlign against its definition point by point in NumPy, on random and degenerate boxes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.detection.roi_align import assign_levels, roi_align
from senet_jax.layers import plain_derivatives

STRIDES, SHAPES, CHANNELS, IMAGES = (4, 8), ((12, 16), (6, 8)), 3, 2


def value(level, y, x):
  """A map `[H, W, C]` between its pixels; 0 more than a pixel outside."""
  height, width, _ = level.shape
  if not (-1 <= y <= height and -1 <= x <= width):
    return np.zeros(level.shape[-1])
  y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
  top, left = int(y), int(x)
  bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
  dy, dx = y - top, x - left
  upper = (1 - dx) * level[top, left] + dx * level[top, right]
  lower = (1 - dx) * level[bottom, left] + dx * level[bottom, right]
  return (1 - dy) * upper + dy * lower


def plain_roi_align(level, stride, box, resolution, sampling, aligned):
  x1, y1, x2, y2 = np.float64(box) / stride - (0.5 if aligned else 0)
  width, height = x2 - x1, y2 - y1
  if not aligned:
    width, height = max(width, 1), max(height, 1)
  out = np.zeros((resolution, resolution, level.shape[-1]))
  for i, j in np.ndindex(resolution, resolution):
    for k, m in np.ndindex(sampling, sampling):
      y = y1 + (i + (k + 0.5) / sampling) * height / resolution
      x = x1 + (j + (m + 0.5) / sampling) * width / resolution
      out[i, j] += value(level, y, x) / sampling**2
  return out


def random_case(count):
  rng = np.random.default_rng(3)
  maps = [rng.normal(size=(IMAGES, *shape, CHANNELS)).astype(np.float32) for shape in SHAPES]
  start = rng.uniform(-20, 70, (IMAGES, count, 2))
  boxes = np.concatenate([start, start + rng.uniform(0, 60, start.shape)], -1).astype(np.float32)
  boxes[:, ::10, 2:] = boxes[:, ::10, :2]  # points
  boxes[:, 5::10, 2] -= 90  # ends before it begins
  boxes[:, 7::10] += 300  # far outside
  return maps, boxes, rng.integers(0, 2, (IMAGES, count))


@pytest.mark.parametrize(
  ('resolution', 'sampling', 'aligned'), [(3, 2, False), (3, 2, True), (2, 1, False)]
)
def test_definition(resolution, sampling, aligned):
  maps, boxes, levels = random_case(500)
  options = {'resolution': resolution, 'sampling': sampling, 'aligned': aligned}
  run = jax.jit(functools.partial(roi_align, strides=STRIDES, **options))
  found = run(maps, boxes=boxes, levels=levels)
  expected = [
    [
      plain_roi_align(maps[level][i].astype(np.float64), STRIDES[level], box, **options)
      for box, level in zip(boxes[i], levels[i], strict=True)
    ]
    for i in range(IMAGES)
  ]
  np.testing.assert_allclose(found, expected, atol=1e-4)


def test_gradient_is_that_of_the_sums():
  maps, boxes, levels = random_case(40)
  weights = np.random.default_rng(4).normal(size=(IMAGES, 40, 3, 3, CHANNELS))

  def total(maps):
    pooled = roi_align(maps, STRIDES, boxes, levels, resolution=3)
    return (pooled * weights).sum()

  own = jax.jit(jax.grad(total))(maps)
  with plain_derivatives():
    plain = jax.jit(jax.grad(total))(maps)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), own, plain)
  assert all(np.any(gradient) for gradient in own)


def test_dtype_is_that_of_the_maps():
  maps, boxes, levels = random_case(8)
  run = jax.jit(lambda maps: roi_align(maps, STRIDES, boxes, levels, resolution=2))
  exact = run(maps)
  half = run([m.astype(jnp.bfloat16) for m in maps])
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(np.float32), exact, atol=0.05)


def test_levels():
  side = np.float32([1, 111, 112, 223, 224, 447, 448, 900, 5000])
  boxes = np.stack([0 * side, 0 * side, side, side], -1)
  expected = [2, 2, 3, 3, 4, 4, 5, 5, 5]
  np.testing.assert_array_equal(assign_levels(boxes, 2, 5), expected)
  np.testing.assert_array_equal(assign_levels(boxes, 2, 5, (0.0, 1e-6)), expected)
  # Of whole pixels the box from 0 to 223 has the side 224.
  np.testing.assert_array_equal(assign_levels(boxes[3], 2, 5, offset=1), 4)
  # An empty box.
  assert assign_levels(np.zeros(4, np.float32), 2, 5, (0.0, 1e-6)) == 2
