"""Max pooling against torch."""

import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.layers import max_pool

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


def test_alignments_differ_on_even_sizes():
  x = jnp.arange(16.0).reshape(1, 4, 4, 1)
  np.testing.assert_array_equal(max_pool(x, 'caffe')[0, :, :, 0], [[10, 11], [14, 15]])
  np.testing.assert_array_equal(max_pool(x, 'torch')[0, :, :, 0], [[5, 7], [13, 15]])


def test_one_pixel_is_kept():
  x = jnp.array([[[[-3.0]]]])
  for align in TORCH:
    np.testing.assert_array_equal(max_pool(x, align), x)


def test_unknown_alignment():
  with pytest.raises(UserError, match=r"model\.pool_align='tf' is unknown.*caffe, torch"):
    max_pool(jnp.zeros((1, 4, 4, 1)), 'tf')
