"""Pooling, with the alignment of the frameworks that the public weights come from."""

import jax
from flax import linen as nn

from senet_jax import errors

ALIGNMENTS = ('caffe', 'torch', 'tensorflow')


def max_pool(x: jax.Array, align: str = 'caffe') -> jax.Array:
  """3x3 max pooling with stride 2.

  All alignments halve an even size, but their windows start at different pixels.

  Args:
    x: `[N, H, W, C]`.
    align: `caffe`, no padding in front and the last window cut off by the border (the paper's
      networks), `torch`, one pixel of padding on every side, or `tensorflow`, its `SAME`: as
      `caffe` for an even size and as `torch` for an odd one.

  Returns:
    `[N, H', W', C]`.

  Raises:
    UserError: `align` is unknown.
  """
  errors.one_of('model.pool_align', align, ALIGNMENTS)
  if align == 'torch':
    padding = [(1, 1), (1, 1)]
  elif align == 'tensorflow':
    padding = 'SAME'
  else:
    padding = _ceil_padding(x, 3, 2)
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


def avg_pool(
  x: jax.Array, size: int = 3, stride: int = 1, padding: str = 'SAME', count_padding: bool = True
) -> jax.Array:
  """Average pooling.

  Args:
    x: `[N, H, W, C]`.
    size: of the square window.
    stride: of the window.
    padding: `SAME`, as TensorFlow's and, for an odd window and stride 1, half the window on every
      side; `VALID`, none; or `CEIL`, none in front and the last window cut off by the border, as
      Caffe's and torch's `ceil_mode`.
    count_padding: divide by the whole window, as Caffe and torch do with padding, instead of by
      its pixels inside the image, as TensorFlow does and all do where `CEIL` cuts a window off.

  Returns:
    `[N, H', W', C]` of the dtype of `x`.

  Raises:
    UserError: `padding` is unknown.
  """
  errors.one_of('padding', padding, ('SAME', 'VALID', 'CEIL'))
  if padding == 'CEIL':
    padding, count_padding = _ceil_padding(x, size, stride), False
  y = nn.avg_pool(x, (size, size), (stride, stride), padding, count_include_pad=count_padding)
  return y.astype(x.dtype)  # Flax divides by float32 counts.


def _ceil_padding(x: jax.Array, window: int, stride: int) -> list[tuple[int, int]]:
  """Pixels missing behind either axis of `x` so that the last, partial window counts."""
  padding = []
  for size in x.shape[1:3]:
    # One that would start behind the border is left out.
    windows = min(-(-max(size - window, 0) // stride) + 1, -(-size // stride))
    padding.append((0, max((windows - 1) * stride + window - size, 0)))
  return padding
