"""Batch normalisation whose statistics have a named scope, fused with what follows it.

A unit of a residual network ends in BN, squeeze-and-excitation, an addition and ReLU. Written one
after the other they read the map several times. Here BN gives a `DeferredAffine`, its input with
the scale and shift of each channel; SE takes its squeeze from the sums that BN has taken and
multiplies scale and shift; `materialize` writes the map once.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn, struct
from jax.typing import DTypeLike

from senet_jax import errors
from senet_jax.layers.derivatives import own_gradient
from senet_jax.runtime import DATA_AXIS

SCOPES = ('local', 'global', 'ghost')


@dataclasses.dataclass(frozen=True)
class BatchNormConfig:
  """Options of batch normalisation, one set for a whole network.

  Attributes:
    scope: over which images a training step takes its statistics: `local`, those of one device
      (the paper's multi-GPU training); `global`, the whole batch; `ghost`, groups of `ghost_size`
      images of one device.
    ghost_size: images a group under `ghost`; it must divide the images of one device.
    momentum: weight of the old running statistics in their update (1 - PyTorch's momentum).
    epsilon: added to the variance.
    frozen: training normalises by the running statistics and leaves them as they are; everywhere
      (True), or in the network's modules whose names begin with one of these.
    axis_name: the mesh axis that `global` averages over.

  Raises:
    UserError: `scope` is unknown or `ghost_size` is missing.
  """

  scope: str = 'local'
  ghost_size: int = 0
  momentum: float = 0.9
  epsilon: float = 1e-5
  frozen: bool | tuple[str, ...] = False
  axis_name: str = DATA_AXIS

  def __post_init__(self):
    errors.one_of('bn.scope', self.scope, SCOPES)
    if self.scope == 'ghost' and self.ghost_size < 1:
      raise errors.UserError(
        f'bn.ghost_size={self.ghost_size} must be at least 1 under bn.scope=ghost; 32 is usual.'
      )

  def is_frozen(self, path: tuple[str, ...]) -> bool:
    """Returns whether the BN at `path`, from the network on, keeps its running statistics."""
    if isinstance(self.frozen, bool):
      return self.frozen
    return '/'.join(path).startswith(self.frozen)


class DeferredAffine(struct.PyTreeNode):
  """A map that is not in memory yet: `(x - center)·scale + shift`.

  Attributes:
    x: `[N, H, W, C]`, the input of the normalisation.
    center: `[C]` float32, a constant near the mean of `x`.
    scale: `[N, 1, 1, C]`, or `[1, 1, 1, C]` for all images; float32.
    shift: of the shape of `scale`, float32.
    image_mean: `[N, 1, 1, C]` float32, the mean of `x - center` over each image, or None.
    dtype: of the map.
  """

  x: jax.Array
  center: jax.Array
  scale: jax.Array
  shift: jax.Array
  image_mean: jax.Array | None
  dtype: DTypeLike = struct.field(pytree_node=False)

  def mean(self) -> jax.Array | None:
    """Returns the mean over each image, `[N, 1, 1, C]` float32, by the linearity of the mean.

    None where `image_mean` is.
    """
    if self.image_mean is None:
      return None
    return self.image_mean * self.scale + self.shift

  def materialize(self, residual: jax.Array | None = None, *, relu: bool = False) -> jax.Array:
    """Returns the map, plus another one, and ReLU of that, in one pass with its own gradient.

    Args:
      residual: `[N, H, W, C]` of `self.dtype`, or None.
      relu: whether to take the ReLU.

    Returns:
      `[N, H, W, C]` of `self.dtype`.
    """
    arrays = (self.x, self.center, self.scale, self.shift, residual)
    return _materialize(*arrays, relu, self.dtype)

  def times(self, gate: jax.Array) -> 'DeferredAffine':
    """Returns this map with each channel of an image times `gate` `[N, 1, 1, C]` float32."""
    return self.replace(scale=self.scale * gate, shift=self.shift * gate)


def materialize(
  y: jax.Array | DeferredAffine, residual: jax.Array | None = None, *, relu: bool = False
) -> jax.Array:
  """Returns a map, plus another one, and ReLU of that, whether `y` is deferred or in memory.

  Args:
    y: `[N, H, W, C]`.
    residual: of the shape and dtype of `y`, or None.
    relu: whether to take the ReLU.

  Returns:
    `[N, H, W, C]` of the dtype of `y`.
  """
  if isinstance(y, DeferredAffine):
    return y.materialize(residual, relu=relu)
  y = y if residual is None else residual + y
  return nn.relu(y) if relu else y


def _affine(x, center, scale, shift) -> jax.Array:
  """Returns `(x - center)·scale + shift`, float32, in the form that moves the fewest bytes."""
  return x.astype(jnp.float32) * scale + (shift - center * scale)


@functools.partial(own_gradient, nondiff_argnums=(5, 6))
def _materialize(x, center, scale, shift, residual, relu: bool, dtype) -> jax.Array:
  y = _affine(x, center, scale, shift)
  if residual is not None:
    # Lest XLA computes the units before this one again, from their convolutions.
    y += _kept_apart_on_gpu(residual).astype(jnp.float32)
  return (jnp.maximum(y, 0) if relu else y).astype(dtype)


def _materialize_forward(x, center, scale, shift, residual, relu, dtype):
  y = _materialize(x, center, scale, shift, residual, relu, dtype)
  # The next layer keeps `y` anyway. Without a residual, ReLU's mask follows from `x`, which the
  # gradient of `scale` needs too.
  output = y if relu and residual is not None else None
  return y, (x, center, scale, shift, output, residual is not None)


def _materialize_backward(relu, dtype, saved, dy):
  """Passes over `x` and `dy` twice: for the gradients of `scale` and `shift`, and for that of `x`.

  The first takes sums of `x - center`: sums of `x` would lose digits where |mean| >> std.
  """
  del dtype
  x, center, scale, shift, y, has_residual = saved

  def masked(scale, shift):
    if not relu:
      return dy.astype(jnp.float32)
    active = _affine(x, center, scale, shift) if y is None else y
    return jnp.where(active > 0, dy, 0).astype(jnp.float32)

  # Each pass has a mask of its own, lest XLA for GPU writes the masked `dy` to memory in between.
  scale_again, shift_again = _kept_apart_on_gpu((scale, shift))
  g = masked(scale_again, shift_again)
  axes = (1, 2) if scale.shape[0] == x.shape[0] else (0, 1, 2)
  dscale, dshift = _sums(g * (x.astype(jnp.float32) - center), g, axes)
  scale_again, shift_again = _kept_apart_on_gpu((scale_again, shift_again))
  g = masked(scale_again, shift_again)
  dresidual = g.astype(dy.dtype) if has_residual else None
  return (g * scale).astype(x.dtype), None, dscale, dshift, dresidual


_materialize.defvjp(_materialize_forward, _materialize_backward)


@functools.partial(own_gradient, nondiff_argnums=(2,))
def _moments(x, center, axes) -> tuple[jax.Array, jax.Array]:
  """Means of `x - center` and of its square over `axes`, which stay with size 1; float32."""
  x = x.astype(jnp.float32) - center
  return x.mean(axes, keepdims=True), (x * x).mean(axes, keepdims=True)


def _moments_forward(x, center, axes):
  return _moments(x, center, axes), (x, center)


def _moments_backward(axes, saved, cotangents):
  """Differentiates as autodiff, but from `x` as it is: a loop would keep a float32 copy a turn."""
  x, center = saved
  dmean, dsquare = cotangents
  count = math.prod(x.shape[axis] for axis in axes)
  dx = (dmean + 2 * (x.astype(jnp.float32) - center) * dsquare) / count
  return dx.astype(x.dtype), None


_moments.defvjp(_moments_forward, _moments_backward)


def _kept_apart_on_gpu(arrays):
  """Returns `arrays`, which XLA for GPU takes for others; on TPU that would cost bytes."""
  identity = lambda arrays: arrays  # noqa: E731
  return jax.lax.platform_dependent(
    arrays, cuda=jax.lax.optimization_barrier, rocm=jax.lax.optimization_barrier, default=identity
  )


def _sums(a, b, axes) -> tuple[jax.Array, jax.Array]:
  """Sums of two arrays over `axes`, which stay with size 1; on GPU in one reduction, one kernel."""

  def together(a, b):
    add = lambda x, y: (x[0] + y[0], x[1] + y[1])  # noqa: E731
    sums = jax.lax.reduce((a, b), (jnp.float32(0), jnp.float32(0)), add, axes)
    return tuple(jnp.expand_dims(total, axes) for total in sums)

  def apart(a, b):
    return a.sum(axes, keepdims=True), b.sum(axes, keepdims=True)

  return jax.lax.platform_dependent(a, b, cuda=together, rocm=together, default=apart)


def _image_mean(x, center, cheaper: Callable[[], jax.Array] | None) -> jax.Array:
  """Returns the mean of `x - center` over each image, `[N, 1, 1, C]` float32."""

  def by_reading():
    return (x.astype(jnp.float32) - center).mean((1, 2), keepdims=True)

  if cheaper is None:
    return by_reading()
  by_product = lambda: cheaper() - center  # noqa: E731
  # On a CPU, and where multiply-adds are counted, as published: its product is none of the paper's.
  return jax.lax.platform_dependent(
    tpu=by_product, cuda=by_product, rocm=by_product, default=by_reading
  )


class BatchNorm(nn.Module):
  """Batch normalisation over `[N, H, W]`, statistics and arithmetic in float32.

  Statistics come from sums of `x - c` and `(x - c)²` with `c` the running mean: one pass over `x`,
  yet, unlike plain sums of squares, no loss of digits where `|mean| >> std`, once the running mean
  is near. The running variance is the biased one, as in Flax (PyTorch and Caffe store the unbiased
  one).

  Attributes:
    bn: the options.
    dtype: of the output.
    scale_init: initialiser of the scale γ.
    deferred: return a `DeferredAffine`.
    image_means: return a `DeferredAffine` with the means of the images, from which SE takes its
      squeeze; the statistics come from sums over each image then.
  """

  bn: BatchNormConfig = BatchNormConfig()
  dtype: DTypeLike = jnp.float32
  scale_init: nn.initializers.Initializer = nn.initializers.ones
  deferred: bool = False
  image_means: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, image_mean_of_x: Callable[[], jax.Array] | None = None
  ) -> jax.Array | DeferredAffine:
    """Normalises `x` `[N, H, W, C]`; returns `[N, H, W, C]` of `self.dtype`.

    Args:
      x: the map.
      train: normalise by the statistics of the batch and update the running ones.
      image_mean_of_x: returns the means of `x` over each image, `[N, 1, 1, C]` float32, where there
        is a cheaper way than to read `x`, for running statistics on GPUs and TPUs. Statistics of
        a batch read `x` anyway.

    Raises:
      UserError: `ghost_size` does not divide N.
    """
    channels = x.shape[-1]
    scale = self.param('scale', self.scale_init, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (channels,), jnp.float32)
    center = jax.lax.stop_gradient(running_mean.value)

    image_mean = None
    if not train or self.bn.is_frozen(self.path):
      mean, var = jnp.zeros((1, 1, 1, channels)), running_var.value
      if self.image_means:
        image_mean = _image_mean(x, center, image_mean_of_x)
    else:
      mean, var, image_mean = self._statistics(x, center)
      if not self.is_initializing():
        keep = self.bn.momentum
        running_mean.value = keep * running_mean.value + (1 - keep) * (
          center + mean.mean((0, 1, 2))
        )
        running_var.value = keep * running_var.value + (1 - keep) * var.mean((0, 1, 2))
    scale = jnp.broadcast_to(jax.lax.rsqrt(var + self.bn.epsilon) * scale, mean.shape)
    y = DeferredAffine(x, center, scale, bias - mean * scale, image_mean, self.dtype)
    return y if self.deferred or self.image_means else y.materialize()

  def _statistics(
    self, x: jax.Array, center: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Returns the mean of `x - center`, the biased variance and, if wanted, the mean of each image.

    The first two are `[1, 1, 1, C]`, or `[N, 1, 1, C]` with the same numbers for the images of a
    group; the last is `[N, 1, 1, C]`.
    """
    n, grouped = x.shape[0], self.bn.scope == 'ghost'
    by_image = self.image_means or grouped
    axes = (1, 2) if by_image else (0, 1, 2)
    mean, square = _moments(x, center, axes)
    image_mean = mean if self.image_means else None
    if by_image:
      size = self._group_size(n)
      sums = jnp.stack([mean, square]).reshape(2, n // size, size, 1, 1, -1)
      mean, square = sums.mean(2)
    # Under `init` there is no mesh; its output is thrown away.
    if self.bn.scope == 'global' and not self.is_initializing():
      mean, square = jax.lax.pmean(jnp.stack([mean, square]), self.bn.axis_name)
    var = jnp.maximum(square - mean * mean, 0.0)
    if grouped:
      mean, var = jnp.repeat(mean, size, 0), jnp.repeat(var, size, 0)
    return mean, var, image_mean

  def _group_size(self, n: int) -> int:
    """Returns how many of the `n` images of this device share statistics."""
    size = self.bn.ghost_size if self.bn.scope == 'ghost' else n
    if n % size:
      if self.is_initializing():
        return n
      raise errors.UserError(
        f'bn.ghost_size={size} does not divide the {n} images a device has of each batch; '
        'change bn.ghost_size or batch_size.'
      )
    return size
