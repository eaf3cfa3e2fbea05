"""Convolutions in the forms that suit CPUs and GPUs better than XLA's own.

On GPUs the first layer has one, a convolution of stride 2 on images of up to 4 channels: cuDNN's
tensor cores take channels by eights. Of the four pixels of a square it makes channels (space to
depth, as MLPerf's ResNets for TPUs), 16 with zeros.

On CPUs three kinds have one. On two cores, with jaxlib 0.10.2 and float32, XLA's own form takes
this many times as long:

- 1x1, a matrix product: 1-1.5 forward, 1.2-2 for the gradient of the images, 2-12 for that of the
  kernel.
- Depthwise, a sum of shifted images, each times its weights: 20-40 forward, 40-200 and 5-12 for the
  gradients.
- Grouped, convolutions without groups side by side, of one or more groups each, with zeros in the
  kernel where a channel is of another group: 2-8 forward, 1-8 for the gradient of the images and
  several hundred for that of the kernel.

The others are best as they are: for 3x3 and 7x7 windows and 3 to 512 channels, the gradient of the
kernel as a product of all windows with the gradient of the output (or as one product for each place
in the window) took 0.8-4 times as long.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from senet_jax.layers.derivatives import own_gradient

_IMAGES = ('NHWC', 'HWIO', 'NHWC')

# A grouped convolution becomes convolutions of at least so many channels, below which XLA:CPU runs
# them at less than full speed, and of at most so many parts, as each takes time to compile.
_LEAST_WIDTH = 32
_MOST_PARTS = 16
# Channels of an image whose squares of four pixels become channels on a GPU, and their number then.
_FEW, _ALIGNED = 4, 16

_Pair = tuple[int, int]
_Form = Callable[[jax.Array, jax.Array], jax.Array]


def conv_general_dilated(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[_Pair],
  lhs_dilation: Sequence[int] = (1, 1),
  rhs_dilation: Sequence[int] = (1, 1),
  dimension_numbers: lax.ConvGeneralDilatedDimensionNumbers = _IMAGES,
  feature_group_count: int = 1,
  precision: lax.PrecisionLike = None,
) -> jax.Array:
  """Returns `jax.lax.conv_general_dilated` of images, in the form that suits the platform.

  Compiled for a TPU, it and its gradients are those of `jax.lax`. The arguments are as
  `flax.linen.Conv` hands them over.

  Args:
    lhs: images `[N, H, W, C]`.
    rhs: kernel `[kh, kw, C / feature_group_count, K]` of the same dtype.
    window_strides: of both axes.
    padding: `SAME`, `VALID`, or the pixels before and behind of both axes.
    lhs_dilation: of the images.
    rhs_dilation: of the kernel.
    dimension_numbers: those of the shapes above.
    feature_group_count: channel groups.
    precision: of the products.

  Returns:
    `[N, H', W', K]` of the same dtype. Forward-mode derivatives of the kinds that have a form of
    their own need `plain_derivatives`.
  """
  window, strides = rhs.shape[:2], tuple(window_strides)
  plain = feature_group_count == 1 and window != (1, 1)
  if (plain and not _has_squares(lhs, strides)) or (*lhs_dilation, *rhs_dilation) != (1, 1, 1, 1):
    return lax.conv_general_dilated(
      lhs,
      rhs,
      strides,
      padding,
      lhs_dilation,
      rhs_dilation,
      dimension_numbers,
      feature_group_count,
      precision=precision,
    )
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(lhs.shape[1:3], window, strides, padding)
  return _convolution(lhs, rhs, strides, tuple(map(tuple, padding)), feature_group_count, precision)


@functools.partial(own_gradient, nondiff_argnums=(2, 3, 4, 5))
def _convolution(images, kernel, strides, padding, groups, precision):
  forms = _forms(strides, padding, groups, precision)
  return lax.platform_dependent(images, kernel, **forms)


def _forward(images, kernel, *options):
  return _convolution(images, kernel, *options), (images, kernel)


def _backward(*arguments):
  *options, (images, kernel), gradient = arguments
  # A choice that is differentiated would save what either form saves.
  forms = {platform: _transposed(form) for platform, form in _forms(*options).items()}
  return lax.platform_dependent(images, kernel, gradient, **forms)


_convolution.defvjp(_forward, _backward)


@functools.cache  # JAX traces the same function with the same shapes only once.
def _forms(
  strides: _Pair, padding: tuple[_Pair, _Pair], groups: int, precision: lax.PrecisionLike
) -> dict[str, _Form]:
  """Returns one convolution of images and kernel in its forms by platform, and `default`."""

  def default(images, kernel, feature_group_count=groups):
    return lax.conv_general_dilated(
      images,
      kernel,
      strides,
      padding,
      dimension_numbers=_IMAGES,
      feature_group_count=feature_group_count,
      precision=precision,
    )

  def pointwise(images, kernel):
    (pixels,) = _shifted(images, kernel.shape[:2], strides, padding)
    # With four axes a training step of SE-ResNet-50 takes 1.25 times as long.
    product = jnp.matmul(pixels.reshape(-1, pixels.shape[-1]), kernel[0, 0], precision=precision)
    return product.reshape(*pixels.shape[:3], -1)

  def depthwise(images, kernel):
    dtype = jnp.promote_types(images.dtype, jnp.float32)  # that of the sum
    shifted = _shifted(images.astype(dtype), kernel.shape[:2], strides, padding)
    weights = kernel.astype(dtype).reshape(-1, kernel.shape[-1])
    total: Any = sum(map(jnp.multiply, shifted, weights))
    return total.astype(images.dtype)

  def cpu(images, kernel):
    *window, width, features = kernel.shape
    one = pointwise if window == [1, 1] else functools.partial(default, feature_group_count=1)
    if groups == 1:
      return one(images, kernel)
    if width == 1 and features == groups:
      return depthwise(images, kernel)
    parts = _parts(groups, width)
    kernels = jnp.split(_without_groups(kernel, parts, groups // parts), parts, axis=-1)
    return jnp.concatenate(list(map(one, jnp.split(images, parts, axis=-1), kernels)), axis=-1)

  def gpu(images, kernel):
    if groups > 1 or not _has_squares(images, strides):
      return default(images, kernel)
    squares, kernel, pads = _squares(images, kernel, padding)
    return lax.conv_general_dilated(
      squares, kernel, (1, 1), pads, dimension_numbers=_IMAGES, precision=precision
    )

  return {'cpu': cpu, 'cuda': gpu, 'rocm': gpu, 'default': default}


def _has_squares(images: jax.Array, strides: tuple[int, ...]) -> bool:
  """Returns whether a GPU is to convolve squares of four pixels in place of the pixels."""
  few = images.shape[-1] <= _FEW and not any(size % 2 for size in images.shape[1:3])
  return strides == (2, 2) and few


def _squares(
  images: jax.Array, kernel: jax.Array, padding: Sequence[_Pair]
) -> tuple[jax.Array, jax.Array, list[_Pair]]:
  """Returns images, kernel and padding of stride 1 on squares for those of stride 2 on pixels.

  The window begins at a square, with a zero in front where the padding is odd: place `k` of the
  kernel is row `k % 2` of square `k // 2`.
  """
  outputs = [
    (size + sum(pads) - window) // 2 + 1
    for size, pads, window in zip(images.shape[1:3], padding, kernel.shape, strict=False)
  ]
  fronts = [front % 2 for front, _ in padding]
  behinds = [(window + front) % 2 for window, front in zip(kernel.shape, fronts, strict=False)]
  kernel = jnp.pad(kernel, [*zip(fronts, behinds, strict=True), (0, 0), (0, 0)])

  def squared(x):  # of the axes before the last two
    *outer, height, width, channels = x.shape
    x = x.reshape(*outer, height // 2, 2, width // 2, 2, channels)
    x = jnp.moveaxis(x, -4, -3).reshape(*outer, height // 2, width // 2, 4 * channels)
    return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, _ALIGNED - x.shape[-1])])

  images, kernel = squared(images), jnp.moveaxis(squared(jnp.moveaxis(kernel, -1, 0)), 0, -1)
  pads = []
  for size, window, output, (front, _) in zip(
    images.shape[1:3], kernel.shape, outputs, padding, strict=False
  ):
    front = (front + 1) // 2
    pads.append((front, output + window - 1 - size - front))
  return images, kernel, pads


@functools.cache
def _transposed(form: _Form) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """Returns the gradients by images and kernel of a `form` that is linear in each of them."""

  def gradients(images, kernel, gradient):
    of_images = jax.linear_transpose(lambda images: form(images, kernel), images)
    of_kernel = jax.linear_transpose(lambda kernel: form(images, kernel), kernel)
    return *of_images(gradient), *of_kernel(gradient)

  return gradients


def _shifted(
  images: jax.Array, window: _Pair, strides: _Pair, padding: Sequence[_Pair]
) -> Iterator[jax.Array]:
  """Returns for each place in the window the pixels that lie under it, `[N, H', W', C]`."""
  pads = [(0, 0), *padding, (0, 0)]
  images = lax.pad(images, jnp.zeros((), images.dtype), [(*pad, 0) for pad in pads])
  height, width = (
    size - within + 1 for size, within in zip(images.shape[1:3], window, strict=True)
  )
  for i in range(window[0]):
    for j in range(window[1]):
      yield images[:, i : i + height : strides[0], j : j + width : strides[1]]


def _parts(groups: int, width: int) -> int:
  """Returns how many convolutions stand for one with `groups` groups of `width` channels."""
  counts = [parts for parts in range(1, min(groups, _MOST_PARTS) + 1) if groups % parts == 0]
  wide = [parts for parts in counts if groups // parts * width >= _LEAST_WIDTH]
  return max(wide, default=1)


def _without_groups(kernel: jax.Array, parts: int, groups: int) -> jax.Array:
  """Returns a kernel `[kh, kw, c, K]` of `parts * groups` groups as one of `parts`.

  It is `[kh, kw, groups * c, K]`, zero where a channel is of another group.
  """
  height, width, channels, features = kernel.shape
  kernel = kernel.reshape(height, width, channels, parts, groups, -1)
  # Not a product with zeros: its gradient, a masked sum, crashes in XLA:CPU of jaxlib 0.10.2.
  rows = [
    jnp.pad(kernel[..., i, :], [(0, 0)] * 2 + [(i * channels, behind * channels)] + [(0, 0)] * 2)
    for i, behind in enumerate(reversed(range(groups)))
  ]
  return jnp.stack(rows, axis=-2).reshape(height, width, groups * channels, features)
