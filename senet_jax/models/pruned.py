"""Units of residual networks whose branch has only some of the output channels."""

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax import errors
from senet_jax.layers.derivatives import own_gradient


def as_text(name: str, kept: np.ndarray) -> str:
  """Returns the channels that a unit keeps as one word.

  Args:
    name: of the unit's SE block, `SE_4_6`.
    kept: `[C]` bool.

  Returns:
    `SE_4_6:` and hexadecimal digits, four channels each, the first one in the highest bit.
  """
  return f'{name}:{np.packbits(np.asarray(kept, bool)).tobytes().hex()}'


def from_text(text: str) -> tuple[str, np.ndarray]:
  """Returns name and channels of `as_text`; up to seven zeros follow the last channel.

  Raises:
    UserError: `text` is something else.
  """
  name, _, digits = str(text).partition(':')
  try:
    return name, np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8)).astype(bool)
  except ValueError as error:
    raise _unreadable(text) from error


def from_texts(texts: Sequence[str], widths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
  """Returns the channels that units keep, rising, by the names of their SE blocks.

  Args:
    texts: of `as_text`, of different units.
    widths: channels of each unit of the network, by name.

  Raises:
    UserError: no unit has such a name or so many channels, or a text says something else.
  """
  found: dict[str, tuple[int, ...]] = {}
  for text in [texts] if isinstance(texts, str) else texts:
    name, bits = from_text(text)
    errors.one_of('model.kept_channels', name, widths)
    kept, width = np.flatnonzero(bits).tolist(), widths[name]
    if len(bits) != -(-width // 8) * 8 or not kept or kept[-1] >= width:
      raise _unreadable(text, f' of {width}')
    if name in found:
      raise errors.UserError(f'model.kept_channels has {name} twice; leave one out.')
    found[name] = tuple(kept)
  return found


def _unreadable(text: str, total: str = '') -> errors.UserError:
  return errors.UserError(
    f'model.kept_channels: {text!r} does not say which channels{total} a unit keeps; take it as '
    'tools.prune has written it.'
  )


@functools.partial(own_gradient, nondiff_argnums=(1, 2))
def spread(y: jax.Array, kept: tuple[int, ...], width: int) -> jax.Array:
  """Puts the channels of `y` `[…, K]` to the places `kept` of zeros `[…, width]`.

  Forward and back it gathers; a scatter runs channel by channel on CPU and TPU.
  """
  places = np.full(width, len(kept))
  places[list(kept)] = np.arange(len(kept))
  return jnp.take(y, places, axis=-1, mode='fill', fill_value=0)


def _spread_forward(y: jax.Array, kept: tuple[int, ...], width: int) -> tuple[jax.Array, None]:
  return spread(y, kept, width), None


def _spread_backward(kept: tuple[int, ...], width: int, saved: None, dy: jax.Array) -> tuple:
  del width, saved
  return (jnp.take(dy, np.array(kept), axis=-1),)


spread.defvjp(_spread_forward, _spread_backward)
