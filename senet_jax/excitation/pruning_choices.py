"""Choices of what to prune, as command lines give them; imports nothing heavy."""

import argparse
from typing import NamedTuple

from senet_jax.errors import UserError

# What ranks blocks and channels, as of `pruning.block_scores`.
RANKINGS = ('gates', 'magnitude', 'random')


class Choice(NamedTuple):
  """A choice of what is dropped.

  Attributes:
    what: `blocks` or `channels`.
    amount: how many blocks, or which share of channels.
    by: what ranks them; None for blocks that are given by name.
    seed: of `random`, else None.
  """

  what: str
  amount: float
  by: str | None
  seed: int | None


def blocks(text: str) -> tuple[int, ...] | tuple[str, ...]:
  """Parses numbers of SE blocks, or their names, as the type of an argument."""
  parts = list(dict.fromkeys(filter(None, map(str.strip, text.split(',')))))
  if parts and all(part.isdecimal() and len(part) < 5 and int(part) for part in parts):
    return tuple(sorted(map(int, parts)))
  if not parts or any(part.lstrip('+-').replace('.', '').isdecimal() for part in parts):
    raise argparse.ArgumentTypeError(
      f'{text!r} must be whole numbers from 1 on, or names of SE blocks, with commas'
    )
  return tuple(parts)


def shares(text: str) -> tuple[float, ...]:
  """Parses shares of channels, as the type of an argument."""
  try:
    found = sorted({float(part) for part in text.split(',')})
  except ValueError:
    found = [0.0]
  if not all(0 < share < 1 for share in found):
    raise argparse.ArgumentTypeError(f'{text!r} must be shares between 0 and 1, such as 0.3')
  return tuple(found)


def check_numbers(drop_blocks: tuple[int, ...] | tuple[str, ...] | None) -> None:
  """Checks that blocks for a table are given by their number.

  Raises:
    UserError: they are given by their names.
  """
  if drop_blocks and isinstance(drop_blocks[0], str):
    raise UserError(
      f'--drop_blocks={",".join(drop_blocks)}: blocks have names where --to makes a network '
      'without them; the table takes numbers.'
    )


def one(
  drop_blocks: tuple[int, ...] | tuple[str, ...] | None,
  channels: tuple[float, ...] | None,
  by: str | None,
  seed: int,
) -> tuple[Choice, list[str] | None]:
  """Returns the choice that makes one network, and the names of its blocks if they are given.

  Args:
    drop_blocks: one number of blocks, or names.
    channels: one share.
    by: what ranks them; None: their gates.
    seed: of `random`.

  Raises:
    UserError: there is no choice, or there are several.
  """
  given = [*(drop_blocks or ()), *(channels or ())]
  named = drop_blocks and isinstance(drop_blocks[0], str)
  if not given or (drop_blocks and channels) or (len(given) > 1 and not named):
    raise UserError(
      '--to takes one --drop_blocks or one --channels; to drop both, first make a network with '
      'fewer channels, then take blocks from that one.'
    )
  if named:
    return Choice('blocks', len(given), None, None), given
  by = by or 'gates'
  what = 'channels' if channels else 'blocks'
  return Choice(what, given[0], by, seed if by == 'random' else None), None
