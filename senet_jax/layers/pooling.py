"""Pooling, with the alignment of the frameworks that the public weights come from."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax import errors
from senet_jax.layers.derivatives import own_gradient

ALIGNMENTS = ('caffe', 'torch', 'tensorflow')


@jax.named_scope('max_pool')
def max_pool(x: jax.Array, align: str = 'caffe') -> jax.Array:
  """Pools by the maximum over 3x3 pixels with stride 2.

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
    padding = jax.lax.padtype_to_pads(x.shape[1:3], (3, 3), (2, 2), 'SAME')
  else:
    padding = _ceil_padding(x, 3, 2)
  return _max_pool(x, tuple(padding))


def plain_max_pool(x: jax.Array, padding) -> jax.Array:
  """Returns Flax's max pooling of `x`, whose gradient is that of XLA."""
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=padding)


@functools.partial(own_gradient, nondiff_argnums=(1,))
def _max_pool(x: jax.Array, padding: tuple[tuple[int, int], ...]) -> jax.Array:
  return plain_max_pool(x, padding)


def _max_pool_forward(x, padding):
  y = _max_pool(x, padding)
  return y, (x, y)


def _max_pool_backward(padding, saved, dy):
  """Sends the gradient of each window to the first of its largest pixels.

  XLA for GPU finds them by four int32 arrays of the size of `dy`, and on CPU its way is slow:
  comparing again moves a quarter of the bytes, and takes a third of the time. On TPU it moves more.
  """
  x, y = saved
  compare = functools.partial(compare_again, padding=padding)

  def own_way(x, y, dy):
    del y
    return jax.vjp(lambda x: plain_max_pool(x, padding), x)[1](dy)[0]

  return (jax.lax.platform_dependent(x, y, dy, default=compare, tpu=own_way),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def compare_again(x, y, dy, padding) -> jax.Array:
  """Returns the gradient of `_max_pool`; without sums over a scatter it is deterministic, too."""
  padded = jnp.pad(x, [(0, 0), *padding, (0, 0)], constant_values=-jnp.inf)
  spans = [2 * size - 1 for size in y.shape[1:3]]
  place = jnp.full(y.shape, 9, jnp.int8)
  for k in reversed(range(9)):  # the first one is written last
    i, j = divmod(k, 3)
    pixels = padded[:, i : i + spans[0] : 2, j : j + spans[1] : 2]
    place = jnp.where(pixels == y, jnp.int8(k), place)
  # Without it XLA would compare nine times over for each pixel.
  place = jax.lax.optimization_barrier(place)
  dx = jnp.zeros(padded.shape, jnp.float32)
  for k in range(9):
    borders = [
      (first, size - span - first, 1)
      for first, size, span in zip(divmod(k, 3), padded.shape[1:3], spans, strict=True)
    ]
    share = jnp.where(place == k, dy, 0).astype(jnp.float32)
    dx += jax.lax.pad(share, jnp.float32(0), [(0, 0, 0), *borders, (0, 0, 0)])
  (top, bottom), (left, right) = padding
  return dx[:, top : dx.shape[1] - bottom, left : dx.shape[2] - right].astype(x.dtype)


@jax.named_scope('avg_pool')
def avg_pool(
  x: jax.Array, size: int = 3, stride: int = 1, padding: str = 'SAME', count_padding: bool = True
) -> jax.Array:
  """Pools by the average.

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
  pads: str | list[tuple[int, int]] = padding
  if padding == 'CEIL':
    pads, count_padding = _ceil_padding(x, size, stride), False
  y = nn.avg_pool(x, (size, size), (stride, stride), pads, count_include_pad=count_padding)
  return y.astype(x.dtype)  # Flax divides by float32 counts.


def _ceil_padding(x: jax.Array, window: int, stride: int) -> list[tuple[int, int]]:
  """Pixels missing behind either axis of `x` so that the last, partial window counts."""
  padding = []
  for size in x.shape[1:3]:
    # One that would start behind the border is left out.
    windows = min(-(-max(size - window, 0) // stride) + 1, -(-size // stride))
    padding.append((0, max((windows - 1) * stride + window - size, 0)))
  return padding
