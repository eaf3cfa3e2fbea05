"""Matching of anchors and proposals with objects, and samples: rules, ties, proportions."""

import functools

import jax
import numpy as np
import pytest

from senet_jax.detection import boxes as box_lib, matching


def plain_match(quality, usable, positive, negative):
  """Reads like the paper: the target, 1 for positive, 0 for negative and -1 for neither."""
  labels = np.full(len(quality), -1)
  for a in np.flatnonzero(usable):
    if quality[a].max() < negative:
      labels[a] = 0
    if quality[a].max() >= positive:
      labels[a] = 1
  for m in range(quality.shape[1]):
    best = quality[usable, m].max(initial=-1)
    if best > 0:
      labels[usable & (quality[:, m] == best)] = 1
  return quality.argmax(1), labels


def test_anchors():
  rng = np.random.default_rng(0)
  # Few values, so that ties are many; of the last target no anchor has a part.
  quality = rng.choice(np.float32([0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8]), (300, 40, 6))
  quality[..., 5] = 0
  quality[::3, :, 4] = -1  # padding
  usable = rng.random((300, 40)) < 0.8
  match = functools.partial(matching.match_anchors, positive=0.7, negative=0.3)
  found = jax.jit(jax.vmap(match))(quality, usable)
  for i, (target, positive, negative) in enumerate(zip(*map(np.asarray, found), strict=True)):
    expected, labels = plain_match(quality[i], usable[i], 0.7, 0.3)
    np.testing.assert_array_equal(positive, labels == 1)
    np.testing.assert_array_equal(negative, labels == 0)
    np.testing.assert_array_equal(target[usable[i]], expected[usable[i]])


def test_the_best_of_a_target_keeps_the_target_that_it_overlaps_more():
  quality = np.float32([[0.6, 0.2], [0.1, 0.0]])
  target, positive, negative = matching.match_anchors(quality, np.ones(2, bool), 0.7, 0.3)
  np.testing.assert_array_equal(target, [0, 0])
  np.testing.assert_array_equal(positive, [True, False])
  np.testing.assert_array_equal(negative, [False, True])


def test_equal_boxes_tie_to_the_last_bit():
  # Anchors around an object whose overlaps are equal by symmetry, in one compiled program.
  target = np.float32([[50, 50, 81, 81]])
  shifts = np.float32([[7, 3], [-7, 3], [7, -3], [-7, -3], [20, 20]])
  anchors = np.concatenate([np.tile(target, (5, 1))[:, :2] + shifts, target[:, 2:] + shifts], 1)

  @jax.jit
  def run(anchors):
    quality = matching.overlaps(anchors, target, np.ones(1, bool))
    return matching.match_anchors(quality, np.ones(5, bool), 0.9, 0.3)[1]

  np.testing.assert_array_equal(run(anchors), [True] * 4 + [False])


def test_proposals():
  quality = np.float32([[0.5, 0.6], [0.5, 0.2], [0.49, 0.4], [-1, -1]])
  usable = np.array([True, True, True, True])
  target, positive, negative = matching.match_proposals(quality, usable, 0.5)
  np.testing.assert_array_equal(target[:2], [1, 0])
  np.testing.assert_array_equal(positive, [True, True, False, False])
  # Without any object all is background.
  np.testing.assert_array_equal(negative, [False, False, True, True])


def test_crowds():
  boxes = np.float32([[0, 0, 10, 10], [0, 0, 40, 10], [50, 50, 50, 50]])
  crowds = np.float32([[0, 0, 20, 20], [0, 0, 40, 40]])
  share = matching.in_crowd(boxes, crowds, np.array([True, False]))
  np.testing.assert_allclose(share, [1, 0.5, 0], atol=1e-6)


def draw(priority, positive, negative, size, fraction):
  run = functools.partial(matching.sample, size=size, fraction=fraction)
  return map(np.asarray, jax.jit(jax.vmap(run))(priority, positive, negative))


@pytest.mark.parametrize(
  ('positives', 'negatives', 'expected'),
  [(50, 400, (16, 48)), (5, 400, (5, 59)), (50, 20, (16, 20)), (0, 9, (0, 9)), (3, 0, (3, 0))],
)
def test_proportions(positives, negatives, expected):
  rng = np.random.default_rng(1)
  kinds = np.array([1] * positives + [0] * negatives + [-1] * (500 - positives - negatives))
  kinds = np.stack([rng.permutation(kinds) for _ in range(30)])
  priority = rng.random(kinds.shape, np.float32)
  index, is_positive, there = draw(priority, kinds == 1, kinds == 0, 64, 0.25)
  for i in range(30):
    chosen, positive = index[i][there[i]], is_positive[i][there[i]]
    assert (positive.sum(), (~positive).sum()) == expected
    assert len(set(chosen)) == len(chosen)
    np.testing.assert_array_equal(kinds[i][chosen], positive)
    # The highest priorities of each kind are drawn.
    for kind in (1, 0):
      of_kind = np.flatnonzero(kinds[i] == kind)
      best = of_kind[np.argsort(-priority[i][of_kind], kind='stable')][: expected[1 - kind]]
      assert set(chosen[positive == kind]) == set(best)


def test_each_box_is_drawn_equally_often():
  rng = np.random.default_rng(2)
  positive = np.tile(np.arange(40) < 16, (4000, 1))
  priority = rng.random(positive.shape, np.float32)
  index, _, there = draw(priority, positive, ~positive, 16, 0.5)
  assert there.all()
  counts = np.bincount(index.ravel(), minlength=40) / 4000
  np.testing.assert_allclose(counts[:16], 8 / 16, atol=0.04)
  np.testing.assert_allclose(counts[16:], 8 / 24, atol=0.04)


def test_overlaps_with_padding_are_below_all():
  boxes = np.float32([[0, 0, 9, 9]])
  quality = matching.overlaps(boxes, np.tile(boxes, (2, 1)), np.array([True, False]))
  np.testing.assert_array_equal(quality, [[box_lib.iou(boxes, boxes)[0, 0], -1]])
