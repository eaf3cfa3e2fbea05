"""Folders of photos, one folder a class: their paths, classes and splits; nothing is decoded."""

import dataclasses
import glob
import hashlib
import os
import pathlib
import sys
import unicodedata
from collections.abc import Iterable

import numpy as np

from senet_jax.data.photos import SUFFIXES
from senet_jax.errors import UserError

LAYOUT = (
  'expected are train/<class>/*.jpg and val/<class>/*.jpg, or only train/<class>/*.jpg or '
  '<class>/*.jpg, of which val_fraction=0.1 holds out a tenth'
)
# Names of classes that a message lists.
_LISTED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
  """The images of a split, by class and then by path.

  Attributes:
    paths: relative to the root, with `/` between the parts.
    labels: `[N]` int32, places in `ImageFolder.classes`.
  """

  paths: list[str]
  labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFolder:
  """The photos of a folder, by split.

  Attributes:
    root: the folder.
    classes: sorted names of the class folders.
    splits: `train` and, unless nothing is held out, `val`.
  """

  root: pathlib.Path
  classes: tuple[str, ...]
  splits: dict[str, Examples]


def scan(root: str | os.PathLike, val_fraction: float = 0.0) -> ImageFolder:
  """Lists the images of a folder; the same files always give the same.

  Images lie anywhere below a class folder and end as in `photos.SUFFIXES`, in any case. All other
  files, and hidden files and folders, are left out; links are followed.

  Args:
    root: has train/<class>/ and val/<class>/ (or validation/<class>/), only train/<class>/, or
      <class>/.
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
  train, val = _split_folder(root, 'train'), _split_folder(root, 'val', 'validation')
  if val and val_fraction:
    raise UserError(
      f'val_fraction={val_fraction}, but {root} has {val}/; leave val_fraction out, or move '
      f'{val}/ away.'
    )
  if val and not train:
    raise UserError(f'{root} has {val}/ but no train/; {LAYOUT}.')
  splits = {'train': _images_by_class(root, train)}
  if val:
    splits['val'] = _images_by_class(root, val)
  _check_names(root, dict.fromkeys(name for classes in splits.values() for name in classes))
  if val:
    _check_same_classes(root, train, val, splits)
  elif val_fraction:
    splits = _hold_out(root, train, splits['train'], val_fraction)
  classes = tuple(splits['train'])
  return ImageFolder(root, classes, {split: _examples(of) for split, of in splits.items()})


def _split_folder(root: pathlib.Path, *names: str) -> str | None:
  found = [name for name in names if (root / name).is_dir()]
  if len(found) > 1:
    raise UserError(f'{root} has {" and ".join(f"{name}/" for name in found)}; keep one of them.')
  return found[0] if found else None


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


def _images_by_class(root: pathlib.Path, folder: str | None) -> dict[str, list[str]]:
  """Class -> its images relative to `root`; both sorted."""
  parent = root / folder if folder else root
  classes = sorted(e.name for e in os.scandir(parent) if e.is_dir() and not _hidden(e.name))
  images = {
    name: [path.relative_to(root).as_posix() for path in images_below(parent / name)]
    for name in classes
  }
  if not any(images.values()):
    loose = ' but in no class folder' if any(map(_is_image, os.listdir(parent))) else ''
    raise UserError(f'{parent} has {"" if loose else "no "}images{loose}; {LAYOUT}.')
  empty = [name for name, paths in images.items() if not paths]
  if empty:
    raise UserError(
      f'class folder {parent / empty[0]} has no images ({" ".join(SUFFIXES)}); add some, or '
      'remove it.'
    )
  return images


def images_below(folder: pathlib.Path) -> list[pathlib.Path]:
  """The files below `folder` with the suffix of an image, however deep, sorted; none hidden."""
  found = []
  for parent, folders, files in os.walk(folder, followlinks=True):
    here = pathlib.Path(parent)
    # A link to a folder around itself would be followed for ever.
    around = {here.resolve(), *here.resolve().parents}
    folders[:] = [f for f in folders if not _hidden(f) and (here / f).resolve() not in around]
    found += [here / file for file in files if _is_image(file)]
  return sorted(found, key=lambda path: path.as_posix())


def _is_image(name: str) -> bool:
  return name.lower().endswith(SUFFIXES) and not _hidden(name)


def _hidden(name: str) -> bool:
  return name.startswith('.')


def _check_same_classes(
  root: pathlib.Path, train: str, val: str, splits: dict[str, dict[str, list[str]]]
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
  root: pathlib.Path, folder: str | None, images: dict[str, list[str]], fraction: float
) -> dict[str, dict[str, list[str]]]:
  """Splits each class in the order of a hash, so that hardly an image changes sides later on."""
  start = len(f'{folder}/') if folder else 0  # the same split with and without train/

  def order(path: str) -> bytes:
    return hashlib.sha256(os.fsencode(path[start:])).digest()

  splits = {'train': {}, 'val': {}}
  for name, paths in images.items():
    if len(paths) == 1:
      raise UserError(
        f'class {name} of {root} has one image only, {paths[0]}, so val_fraction={fraction} cannot '
        'hold out one and leave one; add images, or remove the class.'
      )
    count = min(max(round(fraction * len(paths)), 1), len(paths) - 1)
    held_out = set(sorted(paths, key=order)[:count])
    splits['train'][name] = [path for path in paths if path not in held_out]
    splits['val'][name] = [path for path in paths if path in held_out]
  return splits


def _examples(images: dict[str, list[str]]) -> Examples:
  paths = [path for of_class in images.values() for path in of_class]
  counts = [len(of_class) for of_class in images.values()]
  return Examples(paths, np.repeat(np.arange(len(counts), dtype=np.int32), counts))


def find_images(arguments: list[str]) -> list[str]:
  """Returns the files that files, folders and patterns stand for, each once, in this order.

  In a folder those are the files with the suffix of an image, sorted, however deep, without hidden
  ones; a file that is named or matched is taken as it is.

  Raises:
    UserError: there is nothing of that name, it is a pipe or a device, or no image is in a folder.
  """
  found = []
  for argument in arguments:
    matches = [argument]
    if not os.path.exists(argument):
      matches = sorted(glob.glob(argument, recursive=True))
    if not matches:
      raise UserError(f'there is no file or folder {argument!r}, and none that it matches.')
    images = []
    for match in matches:
      if os.path.isdir(match):
        images += filter(_is_readable, map(str, images_below(pathlib.Path(match))))
      elif _is_endless(match):
        raise UserError(f'{match!r} is a pipe or a device; save what it gives as a file.')
      else:
        images.append(match)
    if not images:
      raise UserError(f'no image ({" ".join(SUFFIXES)}) is in {argument!r}.')
    found += images
  return list(dict.fromkeys(found))


def _is_endless(path: str) -> bool:
  """Returns whether reading a path may wait for ever: it is neither a file nor broken."""
  return os.path.exists(path) and not os.path.isfile(path)


def _is_readable(path: str) -> bool:
  """Returns whether an image of a folder can be read; says so of a pipe or a device."""
  if _is_endless(path):
    print(f'senet_jax: {path} is a pipe or a device, and is left out.', file=sys.stderr)
    return False
  return True
