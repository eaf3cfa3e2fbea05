"""Random numbers from keys, against those of TensorFlow."""

import numpy as np
import pytest

from senet_jax import runtime
from senet_jax.data import draws

KEYS = np.array([[0, 0], [1, 2], [-5, 7], [2**40, -(2**50)], [2**63 - 1, -(2**63)]])


def test_uniform_and_fold_in_are_those_of_tensorflow():
  tf = runtime.import_tensorflow()
  found, folded = draws.uniform(KEYS, 41), draws.fold_in(KEYS, np.arange(5))
  for i, key in enumerate(KEYS):
    np.testing.assert_array_equal(found[i], tf.random.stateless_uniform([41], tf.constant(key)))
    np.testing.assert_array_equal(folded[i], tf.random.fold_in(tf.constant(key), np.int64(i)))


@pytest.mark.parametrize(
  'count',
  [1, 2, 3, 10, 4096, 4097, 255, 256, 257, 65535, 65536, 65537, 65538, 131073, 1281167, 2**33 + 5],
)
def test_permutations_are_those_of_tensorflow(count):
  tf = runtime.import_tensorflow()
  rng = np.random.default_rng(0)
  index = rng.integers(0, count, 300) if count > 300 else np.arange(count)
  keys = np.stack([np.full_like(index, 2**31 + 7), rng.integers(0, 90, len(index)), 0 * index], 1)
  expected = tf.raw_ops.RandomIndexShuffle(
    index=index, seed=keys, max_index=np.int64(count - 1), rounds=8
  )
  np.testing.assert_array_equal(draws.shuffled(index, keys, count), expected.numpy())


def test_a_permutation_has_each_once():
  for count in (1, 2, 17, 1000):
    found = draws.shuffled(np.arange(count), np.tile([3, 4, 0], (count, 1)), count)
    np.testing.assert_array_equal(np.sort(found), np.arange(count))
