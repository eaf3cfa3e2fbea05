"""The kinds of attention that a network can have, by name, and the block that one unit gets.

A network takes `attention`, a name of `register_attention`, and `se`, options that also say where
blocks go. A unit takes a `BlockAttention`, or None.
"""

import dataclasses

from senet_jax import errors
from senet_jax.layers.channel_gate import ChannelGate
from senet_jax.layers.effective_squeeze_excite import EffectiveSqueezeExcite
from senet_jax.layers.efficient_channel_attention import EfficientChannelAttention
from senet_jax.layers.gather_excite import GatherExcite
from senet_jax.layers.squeeze_excite import SEConfig, SqueezeExcite

# Fields of `SEConfig` that say where blocks go and how they are computed, for every attention.
_OF_ALL = ('position', 'stages', 'without', 'fused')
_KINDS: dict[str, type[ChannelGate]] = {}


def register_attention(name: str, block: type[ChannelGate]) -> None:
  """Makes `block` the attention that `create_model(..., attention=name)` puts into networks.

  The module of a unit is called `name` too.
  """
  _KINDS[name] = block


register_attention('se', SqueezeExcite)
register_attention('eca', EfficientChannelAttention)
register_attention('ese', EffectiveSqueezeExcite)
register_attention('ge', GatherExcite)


@dataclasses.dataclass(frozen=True)
class BlockAttention:
  """The attention of one unit: which block, with which options, at which position.

  Attributes:
    se: the options.
    kind: a name of `register_attention`, which the module has too.
  """

  se: SEConfig
  kind: str = 'se'

  @property
  def position(self) -> str:
    """The place of the gate in the unit, one of `POSITIONS`."""
    return self.se.position

  def block(self, full_width: int | None = None) -> ChannelGate:
    """Returns the module; `full_width` as of `ChannelGate.for_unit`."""
    return _KINDS[self.kind].for_unit(self.se, full_width, self.kind)

  @property
  def uses_image_means(self) -> bool:
    """True if the block can take its squeeze from the means of images that BN gives it."""
    by_mean = 'squeeze' not in _KINDS[self.kind].options or self.se.squeeze == 'avg'
    return self.se.fused and by_mean


def block_attention(
  kind: str, se: SEConfig | None, stage: int, block: int
) -> BlockAttention | None:
  """Returns the attention of unit `block` (from 1) of stage `stage` (2..5), or None."""
  return BlockAttention(se, kind) if se is not None and se.in_block(stage, block) else None


def check_attention(kind: str, se: SEConfig | None) -> None:
  """Checks that there is such an attention, and that it reads the options that are given.

  Raises:
    UserError: there is none, the network has no place for it, or an option has no effect.
  """
  errors.one_of('model.attention', kind, _KINDS, 'One of your own needs register_attention first.')
  if se is None:
    if kind != 'se':
      raise errors.UserError(
        f'model.attention={kind!r} has no effect on a network without attention; use the se_ name '
        'of the network, whose SE blocks it replaces.'
      )
    return
  for field in dataclasses.fields(se):
    value = getattr(se, field.name)
    if field.name not in (*_OF_ALL, *_KINDS[kind].options) and value != field.default:
      raise errors.UserError(
        f'model.se.{field.name}={value!r} has no effect with model.attention={kind!r}; leave it '
        'out.'
      )
