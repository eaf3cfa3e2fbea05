"""Overlap, coding and clipping of boxes against float64 NumPy, degenerate boxes among them."""

import numpy as np
import pytest

from senet_jax.detection import boxes as box_lib

WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(rng, count, degenerate=True):
  start, sides = rng.uniform(0, 300, (count, 2)), rng.uniform(1, 200, (count, 2))
  boxes = np.concatenate([start, start + sides], 1)
  if degenerate:
    boxes[::7, 2] = boxes[::7, 0]  # no width
    boxes[::11, 2:] = boxes[::11, :2]  # a point
    boxes[::13, 3] = boxes[::13, 1] - 5  # ends before it begins
  return boxes.astype(np.float32)


def plain_iou(a, b, offset):
  ax1, ay1, ax2, ay2 = map(float, a)
  bx1, by1, bx2, by2 = map(float, b)
  width = max(min(ax2, bx2) - max(ax1, bx1) + offset, 0)
  height = max(min(ay2, by2) - max(ay1, by1) + offset, 0)
  areas = [
    max(x2 - x1 + offset, 0) * max(y2 - y1 + offset, 0)
    for x1, y1, x2, y2 in ((ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2))
  ]
  union = sum(areas) - width * height
  return width * height / union if union > 0 else 0.0


@pytest.mark.parametrize('offset', [0, 1])
def test_iou(offset):
  rng = np.random.default_rng(0)
  a, b = random_boxes(rng, 80), random_boxes(rng, 90)
  b[:20] = a[:20]
  expected = [[plain_iou(x, y, offset) for y in b] for x in a]
  found = np.asarray(box_lib.iou(a, b, offset))
  np.testing.assert_allclose(found, expected, atol=2e-6)
  assert np.isfinite(found).all()


def test_iou_of_whole_pixels():
  # Ten pixels and ten pixels that share five; as real numbers nine and nine that share four.
  a, b = np.float32([[0, 0, 9, 0]]), np.float32([[5, 0, 14, 0]])
  assert box_lib.iou(a, b, 1)[0, 0] == pytest.approx(5 / 15)
  assert box_lib.iou(a, b, 0)[0, 0] == 0


@pytest.mark.parametrize('offset', [0, 1])
def test_encode(offset):
  rng = np.random.default_rng(1)
  boxes, references = (random_boxes(rng, 1000, degenerate=False) for _ in range(2))
  found = box_lib.encode(boxes, references, WEIGHTS, offset)
  b, r = boxes.astype(np.float64), references.astype(np.float64)
  size, ref_size = b[:, 2:] - b[:, :2] + offset, r[:, 2:] - r[:, :2] + offset
  shift = (b[:, :2] + size / 2 - r[:, :2] - ref_size / 2) / ref_size
  expected = np.concatenate([shift, np.log(size / ref_size)], 1) * WEIGHTS
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('offset', [0, 1])
def test_decoding_undoes_encoding(offset):
  rng = np.random.default_rng(2)
  boxes, references = (random_boxes(rng, 1000, degenerate=False) for _ in range(2))
  references[:, 2:] += 8  # lest a side grows by more than decoding allows
  deltas = box_lib.encode(boxes, references, WEIGHTS, offset)
  found = box_lib.decode(deltas, references, WEIGHTS, offset)
  np.testing.assert_allclose(found, boxes, atol=2e-3)


def test_decoding_by_hand():
  reference = np.float32([10, 20, 29, 59])  # 20 and 40 pixels, centre 20, 40
  deltas = np.float32([1.0, -0.5, 5 * np.log(2), 1e9])
  found = box_lib.decode(deltas, reference, WEIGHTS, 1)
  # The centre moves by 2 and -2; widths are 40 and, cut off, 40 * 1000 / 16.
  np.testing.assert_allclose(found, [2, 38 - 1250, 41, 38 + 1250 - 1], rtol=1e-5)


def test_boxes_without_area_have_finite_deltas():
  boxes = np.float32([[5, 5, 5, 5], [9, 9, 3, 3]])
  assert np.isfinite(box_lib.encode(boxes, boxes[::-1], WEIGHTS)).all()


def test_clip():
  boxes = np.float32([[[-5, -6, 500, 600]], [[-5, 7, 8, 600]]])
  sizes = np.array([[100, 200], [50, 60]])
  np.testing.assert_array_equal(box_lib.clip(boxes, sizes), [[[0, 0, 200, 100]], [[0, 7, 8, 50]]])
  np.testing.assert_array_equal(box_lib.clip(boxes, sizes, 1), [[[0, 0, 199, 99]], [[0, 7, 8, 49]]])


def test_large_boxes():
  boxes = np.float32([[0, 0, 5, 5], [0, 0, 4.9, 5], [0, 0, 5, 0]])
  np.testing.assert_array_equal(box_lib.are_large(boxes, 5), [True, False, False])
  np.testing.assert_array_equal(box_lib.are_large(boxes, 1, 1), [True, True, True])
