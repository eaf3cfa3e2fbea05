"""Channel attention in general: a squeeze, a gate, and the product with the map."""

from typing import TYPE_CHECKING, ClassVar, overload

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax.layers.normalization import DeferredAffine, materialize

if TYPE_CHECKING:
  from senet_jax.layers.squeeze_excite import SEConfig

SQUEEZES = {'avg': jnp.mean, 'max': jnp.max, 'none': None}


class ChannelGate(nn.Module):
  """The base of attention blocks that scale each channel of a map by a gate.

  A block defines `gate`. The squeeze and the gate are float32 whatever the dtype of the input: they
  are `[N, C]`, so this costs nothing, and a bfloat16 mean over thousands of pixels would lose
  digits. The gate is sown as `intermediates/excitation`. Where the squeeze is the average and BN in
  front has taken the means of its images, the squeeze comes from these, and BN, gate and what
  follows write the map once.

  Attributes:
    options: fields of `SEConfig` that the block reads, besides those that say where blocks go.
  """

  options: ClassVar[tuple[str, ...]] = ()

  @classmethod
  def for_unit(cls, se: 'SEConfig', full_width: int | None, name: str) -> 'ChannelGate':
    """Returns the block of one unit of a network.

    Args:
      se: the options.
      full_width: channels of the unit before any were pruned; None: those of the input.
      name: of the module.
    """
    del se, full_width
    return cls(name=name)

  @property
  def squeeze(self) -> str:
    """The kind of squeeze, a key of `SQUEEZES`; with `none` every pixel has a gate of its own."""
    return 'avg'

  @nn.nowrap
  def estimated_weights(self, channels: int) -> float:
    """Returns the paper's estimate of the weights without biases, its equation 5 for one block."""
    del channels
    return 0.0

  @overload
  def __call__(self, x: jax.Array) -> jax.Array: ...

  @overload
  def __call__(self, x: DeferredAffine) -> jax.Array | DeferredAffine: ...

  @nn.compact
  def __call__(self, x: jax.Array | DeferredAffine) -> jax.Array | DeferredAffine:
    """Gates `x` `[N, …, C]` of any float dtype; returns the same shape and dtype.

    A `DeferredAffine` that knows the means of its images stays deferred.
    """
    if isinstance(x, DeferredAffine):
      if self.squeeze == 'avg' and (mean := x.mean()) is not None:
        return x.times(self._sown(self.gate(mean)))
      x = materialize(x)
    squeeze = SQUEEZES[self.squeeze]
    squeezed = x.astype(jnp.float32)
    if squeeze is not None:
      squeezed = squeeze(squeezed, axis=tuple(range(1, x.ndim - 1)), keepdims=True)
    return x * self._sown(self.gate(squeezed)).astype(x.dtype)

  def gate(self, squeezed: jax.Array) -> jax.Array:
    """Returns the gate, float32, of the shape of `squeezed` `[N, 1, …, 1, C]` float32.

    Without a squeeze that is `[N, …, C]`.
    """
    raise NotImplementedError(f'{type(self).__name__} must define gate(squeezed).')

  @nn.nowrap
  def _sown(self, gate: jax.Array) -> jax.Array:
    shown = gate if self.squeeze == 'none' else gate.reshape(-1, gate.shape[-1])
    self.sow('intermediates', 'excitation', shown)
    return gate
