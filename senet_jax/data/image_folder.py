"""Folders of photos, one folder a class: their paths, classes and splits; nothing is decoded."""

import collections
import dataclasses
import glob
import hashlib
import logging
import os
import pathlib
import re
import stat
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from senet_jax.data.photos import SUFFIXES
from senet_jax.errors import UserError

LAYOUT = (
  'expected are train/<class>/*.jpg and val/<class>/*.jpg, or only train/<class>/*.jpg or '
  '<class>/*.jpg, of which val_fraction=0.1 holds out a tenth'
)
# How people call the folder of a split, in lower case.
_OF_A_SPLIT = '([ _-]?(set|split|data|images?))?[ _-]?[0-9]*'
_SPLITS = {
  'train': re.compile(f'(train|training|trn){_OF_A_SPLIT}'),
  'val': re.compile(f'(val|valid|validation|dev|eval|evaluation){_OF_A_SPLIT}'),
  'test': re.compile(f'(test|testing|tst){_OF_A_SPLIT}'),
}
# What other programs leave in folders.
_JUNK = ('__MACOSX', '@eaDir')
# Names of classes that a message lists, and that the first line of a run does.
_LISTED, _DESCRIBED = 3, 12
# Seconds between two lines that say how many files were found so far.
_PROGRESS_S = 10

_log = logging.getLogger('senet_jax')


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """The images of a split, by class and then by path.

  Attributes:
    paths: relative to the root, with `/` between the parts.
    labels: `[N]` int32, places in `ImageFolder.classes`.
    sizes: `[N]` int64, bytes of each file; -1 where it cannot be read.
  """

  paths: list[str]
  labels: np.ndarray
  sizes: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
  """The photos of a folder, by split.

  Attributes:
    root: the folder.
    classes: sorted names of the class folders.
    splits: `train` and, unless nothing is held out, `val`.
    left_out: how many files were left out, by suffix or reason; folders with a `/` at the end.
  """

  root: pathlib.Path
  classes: tuple[str, ...]
  splits: dict[str, Examples]
  left_out: dict[str, int]

  def describe(self) -> str:
    """Returns classes, counts and what is left out, as one line."""
    counts = [
      np.bincount(examples.labels, minlength=len(self.classes)).tolist()
      for examples in self.splits.values()
    ]
    each = [
      f'{name} {"+".join(map(str, numbers))}'
      for name, numbers in zip(self.classes, zip(*counts, strict=True), strict=True)
    ]
    more = f', and {len(each) - _DESCRIBED} more' if len(each) > _DESCRIBED else ''
    return (
      f'{self.root}: {len(each)} classes, {"+".join(self.splits)}: {", ".join(each[:_DESCRIBED])}'
      f'{more}{describe_left_out(self.left_out)}'
    )


def scan(root: str | os.PathLike, val_fraction: float = 0.0) -> ImageFolder:
  """Lists the images of a folder, in one pass; the same files always give the same.

  Images lie anywhere below a class folder and end as in `photos.SUFFIXES`, in any case. All other
  files, hidden ones and what other programs leave behind are left out and counted; links are
  followed.

  Args:
    root: has train/<class>/ and val/<class>/, only train/<class>/, or <class>/. The splits may be
      called otherwise, in any case: training, valid, validation, dev, eval.
    val_fraction: share of each class that is held out as `val` if `root` has no such folder.

  Raises:
    UserError: there is no such folder, it has another layout, a class is empty, the classes of
      `train` and `val` differ, or nothing can be held out.
  """
  root = pathlib.Path(root).expanduser()
  if not root.is_dir():
    raise UserError(f'{root} is {"not a" if root.exists() else "no"} directory; {LAYOUT}.')
  if not 0 <= val_fraction < 1:
    raise UserError(f'val_fraction={val_fraction} must be at least 0 and less than 1.')
  left_out: collections.Counter[str] = collections.Counter()
  folders = _split_folders(root)
  train, val, test = (folders.get(split) for split in _SPLITS)
  if val and val_fraction:
    raise UserError(
      f'val_fraction={val_fraction}, but {root} has {val}/; leave val_fraction out, or move '
      f'{val}/ away.'
    )
  if (val or test) and not train:
    raise UserError(f'{root} has {val or test}/ but no train/; {LAYOUT}.')
  if train:
    others = (e.name for e in os.scandir(root) if e.is_dir() and e.name not in (train, val))
    left_out.update(f'{name}/' for name in others)
  splits = {'train': _images_by_class(root, train, left_out)}
  if val:
    splits['val'] = _images_by_class(root, val, left_out)
  _check_names(root, dict.fromkeys(name for classes in splits.values() for name in classes))
  if val and train:
    _check_same_classes(root, train, val, splits)
  elif val_fraction:
    splits = _hold_out(root, train, splits['train'], val_fraction)
  classes = tuple(splits['train'])
  found = {split: _examples(of_split) for split, of_split in splits.items()}
  return ImageFolder(root, classes, found, dict(left_out))


def _split_folders(root: pathlib.Path) -> dict[str, str]:
  """Returns the folders of the splits, by split."""
  names = sorted(e.name for e in os.scandir(root) if e.is_dir())
  found = {}
  for split, pattern in _SPLITS.items():
    of_split = [name for name in names if pattern.fullmatch(name.lower())]
    if len(of_split) > 1 and split != 'test':
      raise UserError(
        f'{root} has {" and ".join(f"{name}/" for name in of_split)}; keep one of them.'
      )
    if of_split:
      found[split] = of_split[0]
  return found


def _check_names(root: pathlib.Path, classes: Iterable[str]) -> None:
  """Checks that no two class folders have names that look alike.

  Raises:
    UserError: two have the same name in two normal forms of Unicode, as of a Mac and of Linux.
  """
  seen: dict[str, str] = {}
  for name in classes:
    other = seen.setdefault(unicodedata.normalize('NFC', name), name)
    if other != name:
      raise UserError(
        f'{root} has two class folders whose names look alike, {other!a} and {name!a}: the same '
        'letters in two normal forms of Unicode, as of a Mac and of Linux; give both one name.'
      )


def _images_by_class(
  root: pathlib.Path, folder: str | None, left_out: collections.Counter
) -> dict[str, dict[str, int]]:
  """Returns class -> its images relative to `root` -> their sizes; all sorted."""
  parent = root / folder if folder else root
  entries = sorted(os.scandir(parent), key=lambda entry: entry.name)
  classes = [e.name for e in entries if e.is_dir() and not _is_junk(e.name)]
  left_out.update(_kind(e.name) for e in entries if e.name not in classes)
  prefix = f'{folder}/' if folder else ''
  images = {}
  for name in classes:
    found = _walk(parent / name, f'{prefix}{name}/', left_out)
    images[name] = dict(sorted(found))
  if not any(images.values()):
    loose = ' but in no class folder' if any(_is_image(e.name) for e in entries) else ''
    raise UserError(f'{parent} has {"" if loose else "no "}images{loose}; {LAYOUT}.')
  empty = [name for name, paths in images.items() if not paths]
  if empty:
    raise UserError(
      f'class folder {parent / empty[0]} has no images ({" ".join(SUFFIXES)}); add some, or '
      f'remove it{describe_left_out(left_out)}.'
    )
  return images


def images_below(folder: pathlib.Path) -> tuple[list[pathlib.Path], dict[str, int]]:
  """Returns the images below a folder, however deep, sorted, and how many files are left out.

  Args:
    folder: its files with the suffix of an image are taken; none hidden.
  """
  left_out: collections.Counter[str] = collections.Counter()
  found = sorted(path for path, _ in _walk(folder, '', left_out))
  return [folder / path for path in found], dict(left_out)


def find_images(arguments: list[str]) -> list[str]:
  """Returns the files that files, folders and patterns stand for, each once, in this order.

  In a folder those are the files with the suffix of an image, sorted, however deep, without hidden
  ones; a line says how many others there are. A file that is named or matched is taken as it is.

  Raises:
    UserError: there is nothing of that name, it is a pipe or a device, or no image is in a folder.
  """
  found = []
  for argument in arguments:
    matches = [argument]
    if not os.path.exists(argument):
      matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
      raise UserError(f'there is no file or folder {argument!r}, and it matches none.')
    images: list[str] = []
    for match in matches:
      if os.path.isdir(match):
        below, left_out = images_below(pathlib.Path(match))
        images += map(str, below)
        if left_out:
          others = f'{len(below)} images in {match}{describe_left_out(left_out)}'
          print(f'senet_jax: {os.fsencode(others).decode(errors="replace")}.', file=sys.stderr)
      elif os.path.exists(match) and not os.path.isfile(match):
        raise UserError(f'{match!r} is a pipe or a device; save what it gives as a file.')
      else:
        images.append(match)
    if not images:
      raise UserError(f'no image ({" ".join(SUFFIXES)}) is in {argument!r}.')
    found += images
  return list(dict.fromkeys(found))


def describe_left_out(left_out: dict[str, int]) -> str:
  """Returns what `left_out` of a folder says, behind a semicolon; nothing if it is empty."""
  each = ', '.join(f'{count} {kind}' for kind, count in sorted(left_out.items()))
  return f'; left out: {each}' if each else ''


def _walk(
  folder: pathlib.Path, prefix: str, left_out: collections.Counter
) -> Iterator[tuple[str, int]]:
  """Yields the images below a folder, with `prefix` in front, and their sizes; -1 is unreadable."""
  said, count = time.monotonic(), 0
  # A link to a folder around itself would be followed for ever.
  top = pathlib.Path(folder).resolve()
  waiting = [(os.fspath(folder), prefix, tuple(map(_identity, (top, *top.parents))))]
  while waiting:
    parent, prefix, around = waiting.pop()
    for entry in os.scandir(parent):
      count += 1
      if _is_junk(entry.name):
        left_out[_kind(entry.name)] += 1
        continue
      try:
        found = entry.stat() if _is_image(entry.name) or entry.is_dir() else None
      except OSError:  # mostly a link to nothing
        found = None
        if _is_image(entry.name):
          yield f'{prefix}{entry.name}', -1
          continue
      if found is None:
        left_out[_kind(entry.name)] += 1
      elif stat.S_ISREG(found.st_mode):
        yield f'{prefix}{entry.name}', found.st_size
      elif not stat.S_ISDIR(found.st_mode):
        left_out['pipe or device'] += 1
      elif (itself := (found.st_dev, found.st_ino)) not in around:
        waiting.append((entry.path, f'{prefix}{entry.name}/', (*around, itself)))
    if time.monotonic() > said + _PROGRESS_S:
      said = time.monotonic()
      _log.warning('%d files of %s so far', count, folder)


def _identity(path: pathlib.Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_dev, found.st_ino


def _is_image(name: str) -> bool:
  return name.lower().endswith(SUFFIXES) and not _is_junk(name)


def _is_junk(name: str) -> bool:
  return name.startswith('.') or name in _JUNK


def _kind(name: str) -> str:
  """Returns why a file is left out."""
  if name in _JUNK:
    return f'{name}/'
  if name.startswith('.'):
    return 'hidden'
  if _is_image(name):
    return 'in no class folder'
  return os.path.splitext(name)[1].lower() or 'without suffix'


def _check_same_classes(
  root: pathlib.Path, train: str, val: str, splits: dict[str, dict[str, dict[str, int]]]
) -> None:
  differences = []
  for folder, here, there in ((train, 'train', 'val'), (val, 'val', 'train')):
    only = sorted(set(splits[here]) - set(splits[there]))
    if only:
      more = f' and {len(only) - _LISTED} more' if len(only) > _LISTED else ''
      differences.append(f'only {folder}/ has {", ".join(only[:_LISTED])}{more}')
  if differences:
    raise UserError(
      f'{train}/ and {val}/ of {root} have different classes: {"; ".join(differences)}; both need '
      'the same class folders.'
    )


def _hold_out(
  root: pathlib.Path, folder: str | None, images: dict[str, dict[str, int]], fraction: float
) -> dict[str, dict[str, dict[str, int]]]:
  """Splits each class in the order of a hash, so that hardly an image changes sides later on."""
  start = len(f'{folder}/') if folder else 0  # the same split with and without train/

  def order(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(path[start:])).digest()

  splits: dict[str, dict[str, dict[str, int]]] = {'train': {}, 'val': {}}
  for name, paths in images.items():
    if len(paths) == 1:
      raise UserError(
        f'class {name} of {root} has one image only, {next(iter(paths))}, so '
        f'val_fraction={fraction} cannot hold out one and leave one; add images, or remove the '
        'class.'
      )
    count = min(max(round(fraction * len(paths)), 1), len(paths) - 1)
    held_out = set(sorted(paths, key=order)[:count])
    splits['train'][name] = {path: n for path, n in paths.items() if path not in held_out}
    splits['val'][name] = {path: n for path, n in paths.items() if path in held_out}
  return splits


def _examples(images: dict[str, dict[str, int]]) -> Examples:
  paths = [path for of_class in images.values() for path in of_class]
  sizes = [size for of_class in images.values() for size in of_class.values()]
  counts = [len(of_class) for of_class in images.values()]
  labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  return Examples(paths, labels, np.array(sizes, np.int64))
