"""Pooling, with the alignment of the frameworks that the public weights come from."""

import jax
from flax import linen as nn

from senet_jax import errors

ALIGNMENTS = ('caffe', 'torch')


def max_pool(x: jax.Array, align: str = 'caffe') -> jax.Array:
  """3x3 max pooling with stride 2.

  Both alignments halve an even size, but their windows start at different pixels.

  Args:
    x: `[N, H, W, C]`.
    align: `caffe`, no padding in front and the size rounded up (the paper's networks), or `torch`,
      one pixel of padding on every side and the size rounded down.

  Returns:
    `[N, H', W', C]`.

  Raises:
    UserError: `align` is unknown.
  """
  errors.one_of('model.pool_align', align, ALIGNMENTS)
  if align == 'torch':
    padding = [(1, 1), (1, 1)]
  else:
    padding = [(0, _ceil_padding(size)) for size in x.shape[1:3]]
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def _ceil_padding(size: int) -> int:
  """Pixels missing behind `size` so that the last, partial 3-wide window counts."""
  windows = -(-max(size - 3, 0) // 2) + 1
  return (windows - 1) * 2 + 3 - size
