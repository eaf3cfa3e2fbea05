"""Images that an evaluation leaves out, such as those of a blacklist."""

import collections
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from senet_jax import runtime
from senet_jax.data.sources import Source
from senet_jax.errors import UserError

# Longer numbers are no index.
_DIGITS = 18
# Records that are read at once.
_BLOCK = 256
# What the data sets of tfds call the file that an image came from.
_FILE_NAMES = ('file_name', 'filename')


def read_list(path: str | os.PathLike) -> list[str]:
  """Reads the lines of a list of images, without empty ones.

  Raises:
    UserError: there is none.
  """
  lines = [line.strip() for line in os.fsdecode(pathlib.Path(path).read_bytes()).splitlines()]
  if not any(lines):
    raise UserError(f'{path} is empty; give one index or file name a line.')
  return [line for line in lines if line]


def only_indices(lines: Sequence[str]) -> bool:
  """Returns whether no line is a file name, so that nobody need know the images' names."""
  return all(map(_is_index, lines))


def find(lines: Sequence[str], count: int, names: Sequence[str] | None, where: str) -> np.ndarray:
  """Returns the indices of the images that a list names, sorted, each once.

  A line is an index from 0 on, or a file name with so many of the folders above it that it is the
  only one.

  Args:
    lines: from `read_list`.
    count: of the images.
    names: their paths, by index; None where they have none.
    where: data set and split, for messages.

  Raises:
    UserError: a line is none of the images or several of them, or none would be left.
  """
  by_file = collections.defaultdict(list)
  for index, name in enumerate(names or ()):
    by_file[name.rpartition('/')[2]].append(index)

  def one(line: str) -> int:
    if _is_index(line):
      if int(line) < count:
        return int(line)
      raise UserError(f'index {line} of the list is outside 0 to {count - 1}, those of {where}.')
    if names is None:
      raise UserError(f'{line!r} of the list is no index, and the images of {where} have no names.')
    same = by_file.get(line.rpartition('/')[2], ())
    found = [i for i in same if f'/{names[i]}'.endswith(f'/{line}')]
    if not found:
      raise UserError(f'{line!r} of the list is no image of {where}; remove the line.')
    if len(found) > 1:
      raise UserError(
        f'{line!r} of the list may be {names[found[0]]} or {names[found[1]]} of {where}; write the '
        'folder in front of it.'
      )
    return found[0]

  indices = np.unique([one(line) for line in lines])
  if len(indices) == count:
    raise UserError(f'the list leaves out all {count} images of {where}; nothing is evaluated.')
  return indices


def file_names(source: Source, folder: bool) -> list[str] | None:
  """Returns the path of each image, by index; None where the records of tfds hold none.

  Args:
    source: of a folder of photos, or of tfds, whose records are all read for this.
    folder: whether it is a folder.

  Raises:
    UserError: a record cannot be read.
  """
  indices = range(source.num_examples)
  if folder:
    return [source.name(index) for index in indices]
  tf = runtime.import_tensorflow()
  features = {name: tf.io.FixedLenFeature((), tf.string, '') for name in _FILE_NAMES}
  names = []
  for first in indices[::_BLOCK]:
    try:
      records = source.records(np.asarray(indices[first : first + _BLOCK]))
      parsed = tf.io.parse_example(records, features)
    except (tf.errors.OpError, OSError, RuntimeError) as error:
      raise UserError(
        f'the file names of {source.where} cannot be read, at {source.name(first)} or behind it; '
        'give indices, or prepare the data set again.'
      ) from error
    both = zip(*(parsed[name].numpy() for name in _FILE_NAMES), strict=True)
    names += [os.fsdecode(one or other) for one, other in both]
  return names if any(names) else None


def without(source: Source, left_out: np.ndarray) -> Source:
  """Returns the source without the images at some indices; those behind them move up."""
  kept = np.delete(np.arange(source.num_examples), left_out)
  return dataclasses.replace(
    source,
    num_examples=len(kept),
    read=lambda indices: source.read(kept[indices]),
    records=lambda indices: source.records(kept[indices]),
    name=lambda index: source.name(int(kept[index])),
  )


def _is_index(line: str) -> bool:
  return line.isdecimal() and len(line) <= _DIGITS
