"""Suppression on the device against the greedy algorithm in NumPy, on thousands of cases."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.detection.nms import nms


def greedy(boxes, valid, groups, threshold, most, offset):
  """Indices that are kept; overlaps in float32, as on the device."""
  x1, y1, x2, y2 = boxes.T
  areas = np.maximum(x2 - x1 + offset, 0) * np.maximum(y2 - y1 + offset, 0)
  width = np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1) + np.float32(offset)
  height = np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1) + np.float32(offset)
  shared = np.maximum(width, 0) * np.maximum(height, 0)
  union = areas[:, None] + areas - shared
  overlap = np.where(union > 0, shared / np.where(union > 0, union, 1), 0)
  kept = []
  for i in np.flatnonzero(valid):
    rivals = [j for j in kept if groups[j] == groups[i]]
    if len(kept) < most and not (overlap[rivals, i] > threshold).any():
      kept.append(i)
  return kept


def random_cases(rng, cases, count):
  """Crowded boxes with whole corners, so that overlaps are equal often and some boxes empty."""
  start = rng.integers(0, 40, (cases, count, 2))
  sides = rng.integers(0, 30, (cases, count, 2))
  boxes = np.concatenate([start, start + sides], -1).astype(np.float32)
  boxes[:, ::9] = boxes[:, :1]  # the same box again and again
  valid = rng.random((cases, count)) < rng.random((cases, 1)) + 0.3
  groups = rng.integers(0, rng.integers(1, 4, (cases, 1)), (cases, count))
  return boxes, valid, groups


@pytest.mark.parametrize(
  ('cases', 'count', 'threshold', 'most', 'offset'),
  [
    (1500, 20, 0.3, 20, 0),
    (1500, 20, 0.5, 5, 1),
    (12, 600, 0.43, 600, 0),  # several blocks
    (12, 600, 0.7, 37, 1),
  ],
)
def test_keeps_what_the_greedy_algorithm_keeps(cases, count, threshold, most, offset):
  boxes, valid, groups = random_cases(np.random.default_rng(count + most), cases, count)
  run = functools.partial(nms, threshold=threshold, most=most, offset=offset)
  indices, there = map(np.asarray, jax.jit(jax.vmap(run))(boxes, valid, groups))
  for i in range(cases):
    expected = greedy(boxes[i], valid[i], groups[i], threshold, most, offset)
    assert list(indices[i][there[i]]) == expected
    assert there[i].sum() == len(expected)


def test_a_chain_as_long_as_a_block():
  # Each box suppresses the next alone: every second one is kept, found in as many turns.
  start = np.arange(300, dtype=np.float32) * 4
  boxes = np.stack([start, 0 * start, start + 10, 0 * start + 10], -1)
  ones, zeros = np.ones(300, bool), np.zeros(300, np.int32)
  indices, there = jax.jit(lambda: nms(boxes, ones, zeros, 0.3, 200))()
  np.testing.assert_array_equal(np.asarray(indices)[np.asarray(there)], np.arange(0, 300, 2))


def test_nothing_valid():
  boxes = np.ones((8, 4), np.float32)
  _, there = jax.jit(lambda: nms(boxes, boxes[:, 0] > 1, np.zeros(8, np.int32), 0.5, 4))()
  assert not there.any()


def test_no_callbacks_and_static_shapes():
  boxes = jnp.zeros((5, 4))
  text = str(jax.make_jaxpr(lambda b: nms(b, b[:, 0] > 0, jnp.zeros(5, int), 0.5, 3))(boxes))
  assert 'callback' not in text
