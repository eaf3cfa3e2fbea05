"""Batch normalisation whose statistics have a named scope."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax import errors
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
    """Whether the BN at `path`, from the network on, keeps its running statistics."""
    if isinstance(self.frozen, bool):
      return self.frozen
    return '/'.join(path).startswith(self.frozen)


class BatchNorm(nn.Module):
  """Batch normalisation over `[N, H, W]`, statistics and arithmetic in float32.

  Statistics come from sums of `x - c` and `(x - c)²` with `c` the running mean: one pass over `x`,
  yet, unlike plain sums of squares, no loss of digits where |mean| >> std, once the running mean is
  near. The running variance is
  the biased one, as in Flax (PyTorch and Caffe store the unbiased one).

  Attributes:
    bn: the options.
    dtype: of the output.
    scale_init: initialiser of the scale γ.
  """

  bn: BatchNormConfig = BatchNormConfig()
  dtype: jnp.dtype = jnp.float32
  scale_init: nn.initializers.Initializer = nn.initializers.ones

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Normalises `x` `[N, H, W, C]`; returns `[N, H, W, C]` of `self.dtype`.

    Raises:
      UserError: `ghost_size` does not divide N.
    """
    channels = x.shape[-1]
    scale = self.param('scale', self.scale_init, (channels,), jnp.float32)
    bias = self.param('bias', nn.initializers.zeros, (channels,), jnp.float32)
    running_mean = self.variable('batch_stats', 'mean', jnp.zeros, (channels,), jnp.float32)
    running_var = self.variable('batch_stats', 'var', jnp.ones, (channels,), jnp.float32)
    x = x.astype(jnp.float32)
    if not train or self.bn.is_frozen(self.path):
      return self._normalize(x, running_mean.value, running_var.value, scale, bias)

    shape = x.shape
    grouped = self._groups(x)
    mean, var = self._statistics(grouped, running_mean.value)
    if not self.is_initializing():
      keep = self.bn.momentum
      running_mean.value = keep * running_mean.value + (1 - keep) * mean.mean((0, 1, 2, 3))
      running_var.value = keep * running_var.value + (1 - keep) * var.mean((0, 1, 2, 3))
    return self._normalize(grouped, mean, var, scale, bias).reshape(shape)

  def _groups(self, x: jax.Array) -> jax.Array:
    """`[G, N / G, H, W, C]`: the groups of images that share statistics on this device."""
    n = x.shape[0]
    size = self.bn.ghost_size if self.bn.scope == 'ghost' else n
    if self.bn.scope == 'ghost' and n % size:
      if self.is_initializing():
        size = n
      else:
        raise errors.UserError(
          f'bn.ghost_size={size} does not divide the {n} images a device has of each batch; '
          'change bn.ghost_size or batch_size.'
        )
    return x.reshape(n // size, size, *x.shape[1:])

  def _statistics(self, x: jax.Array, center: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance, each `[G, 1, 1, 1, C]`, of `x` `[G, N, H, W, C]`."""
    center = jax.lax.stop_gradient(center)
    x = x - center
    sums = jnp.stack([x.mean((1, 2, 3), keepdims=True), (x * x).mean((1, 2, 3), keepdims=True)])
    # Under `init` there is no mesh; its output is thrown away.
    if self.bn.scope == 'global' and not self.is_initializing():
      sums = jax.lax.pmean(sums, self.bn.axis_name)
    mean, mean_of_squares = sums
    return center + mean, jnp.maximum(mean_of_squares - mean * mean, 0.0)

  def _normalize(self, x, mean, var, scale, bias) -> jax.Array:
    return ((x - mean) * (jax.lax.rsqrt(var + self.bn.epsilon) * scale) + bias).astype(self.dtype)
