"""Pooling against torch, and against sums written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.layers import avg_pool, max_pool

SIZES = [(height, 21 - height) for height in range(1, 21)]
TORCH = {'caffe': {'ceil_mode': True, 'padding': 0}, 'torch': {'padding': 1}}


@pytest.mark.parametrize('align', TORCH)
def test_equals_torch(align):
  torch = pytest.importorskip('torch')
  for height, width in SIZES:
    # All negative, so that padding with zeros instead of -inf would show.
    x = -1 - np.random.default_rng(height).random((2, height, width, 3), np.float32)
    if align == 'caffe' and 1 in (height, width):
      continue  # Torch refuses: its window does not fit.
    expected = torch.nn.functional.max_pool2d(
      torch.from_numpy(x.transpose(0, 3, 1, 2)), 3, 2, **TORCH[align]
    )
    np.testing.assert_array_equal(
      max_pool(jnp.asarray(x), align), expected.numpy().transpose(0, 2, 3, 1), f'{height}x{width}'
    )


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
def test_average_equals_torch(ours, theirs):
  torch = pytest.importorskip('torch')
  window, stride, padding, _ = ours
  for height, width in SIZES[::3]:
    if padding != 'SAME' and min(height, width) < window:
      continue  # Torch refuses.
    x = np.random.default_rng(height).random((2, height, width, 3), np.float32)
    expected = torch.nn.functional.avg_pool2d(
      torch.from_numpy(x.transpose(0, 3, 1, 2)), window, stride, **theirs
    )
    np.testing.assert_allclose(
      avg_pool(jnp.asarray(x), *ours), expected.numpy().transpose(0, 2, 3, 1), rtol=1e-5
    )


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
