"""Pooling against torch, and against sums written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.layers import avg_pool, max_pool
from tests.helpers.parity import twin

SIZES = [(height, 21 - height) for height in range(1, 21)]
TORCH = {'caffe': {'ceil_mode': True, 'padding': 0}, 'torch': {'padding': 1}}


@pytest.mark.parametrize('align', TORCH)
def test_equals_torch(golden, align):
  # All negative, so that padding with zeros instead of -inf would show.
  images = {
    f'{height}x{width}': -1
    - np.random.default_rng(height).random((2, height, width, 3), np.float32)
    for height, width in SIZES
    # Torch refuses: its window does not fit.
    if align != 'caffe' or 1 not in (height, width)
  }
  for size, number in golden(twin('layers.max_pool', images, **TORCH[align])).items():
    number.check(max_pool(jnp.asarray(images[size]), align), 1e-7, size)


def test_tensorflow_is_one_of_the_others_by_the_parity_of_the_size():
  for size in range(2, 21):
    x = jnp.asarray(-1 - np.random.default_rng(size).random((2, size, size, 3), np.float32))
    expected = max_pool(x, 'torch' if size % 2 else 'caffe')
    np.testing.assert_array_equal(max_pool(x, 'tensorflow'), expected)


def test_alignments_differ_on_even_sizes():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  np.testing.assert_array_equal(max_pool(x, 'caffe')[0, :, :, 0], [[10, 11], [14, 15]])
  np.testing.assert_array_equal(max_pool(x, 'torch')[0, :, :, 0], [[5, 7], [13, 15]])


def test_one_pixel_is_kept():
  x = jnp.array([[[[-3.0]]]])
  for align in (*TORCH, 'tensorflow'):
    np.testing.assert_array_equal(max_pool(x, align), x)


def test_unknown_alignment():
  with pytest.raises(UserError, match=r"model\.pool_align='tf' is unknown.*caffe, torch"):
    max_pool(jnp.zeros((1, 4, 4, 1)), 'tf')


@pytest.mark.parametrize(
  ('ours', 'theirs'),
  [
    ((3, 1, 'SAME', True), {'padding': 1}),
    ((3, 1, 'SAME', False), {'padding': 1, 'count_include_pad': False}),
    ((5, 1, 'SAME', False), {'padding': 2, 'count_include_pad': False}),
    ((5, 3, 'VALID', True), {}),
    ((3, 2, 'CEIL', True), {'ceil_mode': True}),
    ((3, 2, 'CEIL', False), {'ceil_mode': True}),
    ((2, 3, 'CEIL', True), {'ceil_mode': True}),
    ((5, 3, 'CEIL', True), {'ceil_mode': True}),
  ],
  ids=str,
)
def test_average_equals_torch(golden, ours, theirs):
  window, stride, padding, _ = ours
  images = {
    f'{height}x{width}': np.random.default_rng(height).random((2, height, width, 3), np.float32)
    for height, width in SIZES[::3]
    if padding == 'SAME' or min(height, width) >= window  # torch refuses
  }
  for size, number in golden(twin('layers.avg_pool', images, window, stride, **theirs)).items():
    number.check(avg_pool(jnp.asarray(images[size]), *ours), 1e-5, size)


@pytest.mark.parametrize('count_padding', [True, False])
@pytest.mark.parametrize('size', range(1, 12))
def test_strided_average_over_padding_as_in_tensorflow(size, count_padding):
  window, stride = 5, 3
  x = np.random.default_rng(size).random((1, size, size, 1))
  outputs = -(-size // stride)
  before = max((outputs - 1) * stride + window - size, 0) // 2
  ends = [(max(i * stride - before, 0), i * stride - before + window) for i in range(outputs)]
  expected = [[x[0, a:b, c:d, 0].sum() / window**2 for c, d in ends] for a, b in ends]
  if not count_padding:
    expected = [[x[0, a:b, c:d, 0].mean() for c, d in ends] for a, b in ends]
  actual = avg_pool(jnp.asarray(x, jnp.float32), window, stride, 'SAME', count_padding)
  np.testing.assert_allclose(actual[0, :, :, 0], expected, rtol=1e-5)


@pytest.mark.parametrize('padding', ['SAME', 'VALID', 'CEIL'])
@pytest.mark.parametrize('count_padding', [True, False])
def test_average_keeps_the_dtype(padding, count_padding):
  x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
  assert avg_pool(x, 3, 2, padding, count_padding).dtype == jnp.bfloat16


def test_unknown_padding():
  with pytest.raises(UserError, match=r"padding='same' is unknown.*SAME, VALID, CEIL"):
    avg_pool(jnp.zeros((1, 4, 4, 1)), padding='same')
