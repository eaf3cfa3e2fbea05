"""The squeeze-and-excitation block and its options (SENet paper, sections 3 and 6)."""

import collections
import dataclasses
import re
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax import errors
from senet_jax.layers.channel_gate import SQUEEZES, ChannelGate

POSITIONS = ('standard', 'pre', 'post', 'identity', 'conv3x3')
EXCITATIONS = {'sigmoid': jax.nn.sigmoid, 'tanh': jnp.tanh, 'relu': jax.nn.relu}


@dataclasses.dataclass(frozen=True)
class SEConfig:
  """Options of squeeze-and-excitation; the defaults are the paper's block with the released biases.

  Attributes:
    ratio: reduction ratio r; the bottleneck has `channels // ratio` units (section 6.1).
    use_bias: biases in both fully connected layers; the section 6 ablations have none.
    squeeze: `avg`, `max` (section 6.2), or `none`, the NoSqueeze of section 7.1, whose two layers
      act on every pixel.
    excitation: the gate's nonlinearity, `sigmoid`, `tanh` or `relu` (section 6.3).
    position: where the block sits in a residual unit (section 6.5, figure 5): `standard`, `pre`,
      `post`, `identity`, or `conv3x3` (SE_3x3, after the 3x3 convolution of a bottleneck).
    stages: `all`, or a stage or several, numbered 2..5 as in the paper (section 6.4).
    without: blocks that are left out, by the names of `excitations`: `('SE_5_2', 'SE_5_3')`; only
      networks of `ResNet` can do without some.
    fused: take the squeeze from the statistics that BatchNorm takes, where SE directly follows it
      and squeezes by the average; False writes BN and SE one after the other, as the textbooks do.
      It never changes the variables. `auto`, of earlier versions, is read as True.
    hidden_divisor: the bottleneck's width is rounded to a multiple of this, to one at least; timm's
      SE networks have 8.

  Raises:
    UserError: a value is not one of those above.
  """

  ratio: int = 16
  use_bias: bool = True
  squeeze: str = 'avg'
  excitation: str = 'sigmoid'
  position: str = 'standard'
  stages: str | tuple[int, ...] = 'all'
  without: tuple[str, ...] = ()
  fused: bool = True
  hidden_divisor: int = 1

  def __post_init__(self):
    for field in ('ratio', 'hidden_divisor'):
      value = getattr(self, field)
      if type(value) is not int or value < 1:
        raise errors.UserError(f'model.se.{field}={value!r} must be an integer of at least 1.')
    errors.one_of('model.se.squeeze', self.squeeze, SQUEEZES)
    errors.one_of('model.se.excitation', self.excitation, EXCITATIONS)
    errors.one_of('model.se.position', self.position, POSITIONS)
    if self.fused == 'auto':
      object.__setattr__(self, 'fused', True)
    errors.one_of('model.se.fused', self.fused, (True, False))
    errors.one_of('model.se.use_bias', self.use_bias, (True, False))
    if self.stages != 'all':
      stages = (self.stages,) if isinstance(self.stages, int | str) else tuple(self.stages)
      for stage in stages:
        errors.one_of('model.se.stages', stage, range(2, 6), "Give some of these, or 'all'.")
      object.__setattr__(self, 'stages', stages)
    if isinstance(self.without, str) or not all(isinstance(name, str) for name in self.without):
      raise errors.UserError(
        f"model.se.without={self.without!r} must be names of SE blocks, such as ('SE_5_2', "
        "'SE_5_3'), or () for none."
      )
    object.__setattr__(self, 'without', tuple(self.without))

  def in_stage(self, stage: int) -> bool:
    """Returns whether stage `stage` (2..5) has SE blocks."""
    return self.stages == 'all' or stage in self.stages

  def in_block(self, stage: int, block: int) -> bool:
    """Returns whether unit `block` (from 1) of stage `stage` has an SE block."""
    return self.in_stage(stage) and block_name(stage, block) not in self.without


class SqueezeExcite(ChannelGate):
  """Squeeze-and-excitation: scales each channel of a map by a gate computed from all of them.

  Attributes:
    se: the options; `position`, `stages`, `without` and `fused` are the caller's business.
    full_width: channels that `se.ratio` divides; None: those of the input. A pruned unit keeps the
      bottleneck that it had.
  """

  se: SEConfig = SEConfig()
  full_width: int | None = None

  options: ClassVar[tuple[str, ...]] = (
    'ratio', 'use_bias', 'squeeze', 'excitation', 'hidden_divisor',
  )  # fmt: skip

  @classmethod
  def for_unit(cls, se: SEConfig, full_width: int | None, name: str) -> 'SqueezeExcite':
    """Returns the block of one unit of a network, as of `ChannelGate`."""
    return cls(se, full_width, name=name)

  @property
  def squeeze(self) -> str:
    """The kind of squeeze, `se.squeeze`."""
    return self.se.squeeze

  @nn.nowrap
  def estimated_weights(self, channels: int) -> float:
    """Returns 2 C² / r, the paper's equation 5 for one block."""
    return 2 * channels**2 / self.se.ratio

  def gate(self, squeezed: jax.Array) -> jax.Array:
    """Returns the excitation of equation 3, float32, of the shape of `squeezed` `[N, 1, …, 1, C]`.

    NoSqueeze has `[N, …, C]`.
    """
    channels = squeezed.shape[-1]
    width = self.full_width or channels
    hidden = width // self.se.ratio
    if not hidden:
      raise errors.UserError(
        f'model.se.ratio={self.se.ratio} leaves no hidden unit for {width} channels; '
        f'it must be at most {width}.'
      )
    divisor = self.se.hidden_divisor
    hidden = max((hidden + divisor // 2) // divisor, 1) * divisor
    # He initialisation for the layer in front of the ReLU, variance 1/fan_in for the other one.
    fc1 = nn.Dense(hidden, self.se.use_bias, kernel_init=nn.initializers.he_normal(), name='fc1')
    fc2 = nn.Dense(channels, self.se.use_bias, name='fc2')
    return EXCITATIONS[self.se.excitation](fc2(nn.relu(fc1(squeezed))))


def excitations(intermediates: Mapping) -> dict[str, jax.Array]:
  """Returns the gates that a forward pass has sown, by the paper's names.

  Args:
    intermediates: what `model.apply(..., mutable=['intermediates'])` returned under that name.

  Returns:
    `{'SE_4_6': gate, …}` (SE_stageID_blockID, blocks from 1) in network order, each float32
    `[N, C]`, or `[N, H, W, C]` for NoSqueeze. Those of the two branches of a unit are
    `SE_4_6_branch1` and `SE_4_6_branch2`; a gate outside a stage goes by its module path, and so do
    several gates of one unit or branch. Later calls of a block that is called several times have
    `#2`, `#3`, … behind. Under `nn.scan`, which needs `intermediates` among its `variable_axes`,
    the gates of all turns are in one array, by its axis there.
  """
  found = {}
  for path, gates in jax.tree.flatten_with_path(
    intermediates, is_leaf=lambda x: isinstance(x, tuple)
  )[0]:
    keys = [str(getattr(p, 'key', p)) for p in path]
    if keys[-1] == 'excitation':
      for i, gate in enumerate(gates if isinstance(gates, tuple) else (gates,), start=1):
        found['/'.join(keys[:-1]) + (f'#{i}' if i > 1 else '')] = gate
  uses = collections.Counter(map(_paper_name, found))
  names = {path: path if uses[_paper_name(path)] > 1 else _paper_name(path) for path in found}
  return {
    names[path]: found[path] for path in sorted(found, key=lambda path: _natural(names[path]))
  }


def block_name(stage: int, block: int) -> str:
  """Returns the paper's name of the SE block of unit `block` (from 1) of stage `stage`: SE_4_6."""
  return f'SE_{stage}_{block}'


def _paper_name(path: str) -> str:
  match = re.search(r'stage(\d+)_block(\d+)(?:/(branch\d+))?', path)
  if not match:
    return path
  repeated = path[path.index('#') :] if '#' in path else ''
  return '_'.join(['SE', *filter(None, match.groups())]) + repeated


def _natural(name: str) -> list:
  return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]
