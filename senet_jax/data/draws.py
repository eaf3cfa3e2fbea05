"""Random numbers and permutations that follow from a key alone, the same on every machine.

They are those of `tf.random.stateless_uniform`, `tf.random.fold_in` and `RandomIndexShuffle` of
TensorFlow, bit for bit, in NumPy.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_U = np.uint64
_LOW, _32 = _U(0xFFFFFFFF), _U(32)
# Philox-4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
_MULTIPLIERS = _U(0xD2511F53), _U(0xCD9E8D57)
_WEYL = _U(0x9E3779B9), _U(0xBB67AE85)
_PHILOX_ROUNDS = 10
# With which TensorFlow mixes the two halves of a key.
_MIXING = _U(0x3EC8F720), _U(0x02461E29)
# The cipher Simon (Beaulieu et al. 2013), on blocks of any even number of bits from 16 on.
_SIMON_C, _SIMON_Z = 0xFFFFFFFC, 0x7369F885192C0EF5
_SIMON_ROUNDS, _LEAST_BITS = 8, 16
# Examples of which the whole permutation is kept: as many as the smallest block has values.
_FEW = 1 << _LEAST_BITS


def uniform(keys: np.ndarray, count: int) -> np.ndarray:
  """Returns draws, uniform in [0, 1).

  Args:
    keys: `[m, 2]` int64.
    count: of draws for each key.

  Returns:
    `[m, count]` float32.
  """
  mantissa = _bits(keys, count) & np.uint32(0x7FFFFF)
  return (mantissa | np.uint32(127 << 23)).view(np.float32) - np.float32(1)


def fold_in(keys: np.ndarray, data: np.ndarray) -> np.ndarray:
  """Returns new keys, `[m, 2]` int64, that depend on `keys` `[m, 2]` and on `data` `[m]`, int64."""
  low, high = _bits(keys, 2).astype(_U).T
  return np.stack([(low | (high << _32)).view(np.int64), np.asarray(data, np.int64)], 1)


def shuffled(index: np.ndarray, keys: np.ndarray, count: int) -> np.ndarray:
  """Returns the places of examples in permutations of `count`.

  Args:
    index: `[m]` int64, from 0 to `count - 1`.
    keys: `[m, 3]` integers, of whose lower 32 bits each makes another permutation.
    count: how many are permuted.

  Returns:
    `[m]` int64, from 0 to `count - 1`; for one key, of all indices, each once.
  """
  found = np.array(index, np.int64)
  if count == 1:
    return np.zeros_like(found)
  if count <= _FEW:
    different, which = np.unique(keys, axis=0, return_inverse=True)
    tables = np.stack([_permutation(*map(int, key), count) for key in different])
    return tables[which.reshape(-1), found]
  bits = math.ceil(math.log2(count - 1))
  word = max(bits + bits % 2, _LEAST_BITS) // 2
  rounds = _round_keys(np.asarray(keys).astype(_U) & _LOW, word)
  outside = np.ones(found.shape, bool)
  while outside.any():  # the blocks are of a power of two
    found[outside] = _encrypted(found[outside].astype(_U), [k[outside] for k in rounds], word)
    outside = found >= count
  return found


@functools.lru_cache(maxsize=16)
def _permutation(a: int, b: int, c: int, count: int) -> np.ndarray:
  """Returns a whole permutation of few; one index at a time would be sought among all blocks."""
  blocks = np.arange(1 << _LEAST_BITS, dtype=_U)
  keys = np.tile(np.array([a, b, c]).astype(_U) & _LOW, (len(blocks), 1))
  rounds = _round_keys(keys, _LEAST_BITS // 2)
  following = _encrypted(blocks, rounds, _LEAST_BITS // 2).astype(np.int64)
  # From a block that is no index to the first index behind it: twice as far each time.
  reached = np.where(blocks < count, np.arange(len(blocks)), following)
  for _ in range(_LEAST_BITS):
    reached = reached[reached]
  return reached[following[:count]]


def _bits(keys: np.ndarray, count: int) -> np.ndarray:
  """Returns `[m, count]` uint32 for keys `[m, 2]`."""
  halves = np.ascontiguousarray(keys, np.int64).view(_U)
  words = [halves[:, 0] & _LOW, halves[:, 0] >> _32, halves[:, 1] & _LOW, halves[:, 1] >> _32]
  mixed = [word[:, None] for word in _philox(words, _MIXING)]
  blocks = np.arange(-(-count // 4), dtype=_U)[None]
  counter = [blocks + mixed[0] * _U(0), mixed[0] * _U(0), mixed[2], mixed[3]]
  drawn = np.broadcast_arrays(*_philox(counter, mixed[:2]))
  return np.stack(drawn, -1).reshape(len(halves), -1)[:, :count].astype(np.uint32)


def _philox(counter: list[np.ndarray], key: Sequence[Any]) -> list[np.ndarray]:
  for _ in range(_PHILOX_ROUNDS):
    first, second = _MULTIPLIERS[0] * counter[0], _MULTIPLIERS[1] * counter[2]
    counter = [
      (second >> _32) ^ counter[1] ^ key[0],
      second & _LOW,
      (first >> _32) ^ counter[3] ^ key[1],
      first & _LOW,
    ]
    key = [(k + weyl) & _LOW for k, weyl in zip(key, _WEYL, strict=True)]
  return counter


def _round_keys(keys: np.ndarray, word: int) -> list[np.ndarray]:
  """Returns the keys of Simon's rounds, `[m]` uint64 each, for keys `[m, 3]`."""
  mask = _U((1 << word) - 1)
  found = [key & mask for key in keys.T]
  for i in range(3, _SIMON_ROUNDS):
    last = found[i - 1]
    constant = _U(_SIMON_C) ^ _U(_SIMON_Z >> (i - 3) & 1)
    turned = _left(last, word - 3, word) ^ _left(last, word - 4, word)
    found.append((constant & mask) ^ found[i - 3] ^ turned)
  return found


def _encrypted(block: np.ndarray, rounds: list[np.ndarray], word: int) -> np.ndarray:
  mask = _U((1 << word) - 1)
  left, right = (block >> _U(word)) & mask, block & mask
  for key in rounds:
    mixed = (_left(right, 1, word) & _left(right, 8, word)) ^ _left(right, 2, word)
    left, right = right, left ^ mixed ^ key
  return (left << _U(word)) | right


def _left(x: np.ndarray, by: int, word: int) -> np.ndarray:
  """Rotates words to the left."""
  return ((x << _U(by)) | (x >> _U(word - by))) & _U((1 << word) - 1)
