"""The boxes of a data set, as COCO's instances JSON has them: read, checked and mended.

Whatever is invalid in a record, such as an empty box, a category that nobody declared or
an id used twice, is a fault: the record is left out, or mended, and the fault is counted and listed
by kind. Nobody has to fix a file of a million boxes for the sake of two of them.
"""

import collections
import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeGuard

import numpy as np

from senet_jax.errors import UserError, shown
from senet_jax.storage import files

# Kinds of faults.
OUTSIDE, EMPTY, NO_BOX = 'box outside its image', 'empty box', 'malformed box'
CATEGORY, IMAGE = 'unknown category', 'unknown image'
TWICE, MISSING, RECORD = 'id used twice', 'missing photo', 'malformed record'
CROWD = 'iscrowd neither 0 nor 1'
# Pixels beyond the border that are rounding: COCO has hundredths of them. They stay as they are.
_ROUNDING = 1.0
# Larger numbers are no coordinates, and larger images no photos.
_LARGEST, _MOST_PIXELS = 1e7, 2**20
# Faults that a message shows.
_LISTED = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
  """The boxes of a split, image by image.

  Attributes:
    image_ids: `[n]` int64, rising.
    file_names: of the images, n of them.
    sizes: height and width of each image, `[n, 2]` int32.
    first: `[n + 1]` int64; image `i` has the boxes from `first[i]` up to `first[i + 1]`.
    boxes: x1, y1, x2, y2 in pixels of the image, x2 - x1 is the width, `[m, 4]` float64.
    classes: from 0, `[m]` int32.
    crowd: `[m]` bool, of boxes around many objects that nobody has told apart.
    areas: of the objects, in pixels, `[m]` float64; they are small, medium or large by it.
    ids: of the annotations, `[m]` int64.
    category_ids: of class 0, 1, …, in the files that other programs read.
    class_names: of class 0, 1, …
    faults: what was left out or mended, by kind.
  """

  image_ids: np.ndarray
  file_names: tuple[str, ...]
  sizes: np.ndarray
  first: np.ndarray
  boxes: np.ndarray
  classes: np.ndarray
  crowd: np.ndarray
  areas: np.ndarray
  ids: np.ndarray
  category_ids: tuple[int, ...]
  class_names: tuple[str, ...]
  faults: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    return len(self.image_ids)

  def of(self, image: int) -> slice:
    """Returns which boxes are those of an image, by its index."""
    return slice(int(self.first[image]), int(self.first[image + 1]))

  @property
  def counts(self) -> np.ndarray:
    """The number of boxes of each image, `[n]` int64."""
    return np.diff(self.first)

  def select(self, images: slice) -> 'Annotations':
    """Returns those of some images; the faults stay."""
    chosen = np.arange(len(self))[images]
    counts = self.counts[chosen]
    first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    boxes = np.repeat(self.first[chosen] - first[:-1], counts) + np.arange(first[-1])
    return dataclasses.replace(
      self,
      image_ids=self.image_ids[chosen],
      file_names=tuple(self.file_names[i] for i in chosen),
      sizes=self.sizes[chosen],
      first=first,
      **{name: getattr(self, name)[boxes] for name in _OF_BOXES},
    )

  def checksum(self) -> int:
    """Returns the CRC-32 of all but the faults."""
    text = '\0'.join((*self.file_names, *map(str, self.category_ids), *self.class_names))
    value = zlib.crc32(text.encode(errors='backslashreplace'))
    for name in ('image_ids', 'sizes', 'first', *_OF_BOXES):
      value = zlib.crc32(np.ascontiguousarray(getattr(self, name)).tobytes(), value)
    return value

  @property
  def has_objects(self) -> bool:
    """True if there is an object, and not only crowds."""
    return not self.crowd.all()

  def check_objects(self, where: str) -> None:
    """Checks that there is an object, and not only crowds.

    Raises:
      UserError: there is none; the message says `where`.
    """
    if not self.has_objects:
      raise UserError(f'there is no object in {where}: nothing is to be learned or found.')

  def check_faults(self, where: str, most: int) -> None:
    """Checks how many faults there are.

    Args:
      where: the annotations are from.
      most: that are tolerated.

    Raises:
      UserError: there are more.
    """
    count = sum(map(len, self.faults.values()))
    if count > most:
      raise UserError(
        f'{where} has {count} faults, more than config.data.max_faulty={most} allows: '
        f'{self.describe_faults()}; correct the file, or raise the limit.'
      )

  def describe_faults(self) -> str:
    """Returns the number of each kind and the first few, as one line; empty if there are none."""
    kinds = ', '.join(f'{len(found)} x {kind}' for kind, found in self.faults.items())
    each = [what for found in self.faults.values() for what in found]
    more = '; …' if len(each) > _LISTED else ''
    return f'{kinds} ({"; ".join(each[:_LISTED])}{more})' if each else ''


def write_faults(path: str | os.PathLike, splits: Mapping[str, Annotations]) -> None:
  """Writes all faults of splits as a JSON, by split and kind, unless there are none."""
  found = {split: dict(one.faults) for split, one in splits.items() if one.faults}
  if found:
    files.write_json(path, found)


_OF_BOXES = ('boxes', 'classes', 'crowd', 'areas', 'ids')


def read_instances(path: str | os.PathLike, photos: str | os.PathLike | None = None) -> Annotations:
  """Reads an instances JSON of COCO, or a list of images without annotations.

  Args:
    path: of the JSON.
    photos: the folder of the photos, where a photo that is not there is a fault; None: nobody
      looks.

  Raises:
    UserError: the file cannot be read, or is not such a JSON.
  """
  path = pathlib.Path(path)
  try:
    with _without_collection():
      content = json.loads(path.read_bytes())
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror or error}.') from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is no JSON, or damaged ({error}); copy it again.') from error
  parts = []
  for name in ('images', 'annotations', 'categories'):
    # Photos that others judge have no annotations.
    missing: list | None = [] if name == 'annotations' else None
    part = content.get(name, missing) if isinstance(content, dict) else None
    if not isinstance(part, list):
      raise UserError(
        f'{path} has no list {name!r}; expected is an instances JSON of COCO, an object with '
        'images, annotations and categories.'
      )
    parts.append(part)
  with _without_collection():
    return from_records(*parts, where=str(path), photos=photos)


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
  """Keeps Python from looking again and again through millions of objects that are all in use."""
  was = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was:
      gc.enable()


def from_records(
  images: Iterable[Any],
  annotations: Iterable[Any],
  categories: Iterable[Any],
  *,
  where: str,
  photos: str | os.PathLike | None = None,
) -> Annotations:
  """Returns the annotations that records of COCO's JSON say.

  Args:
    images: dictionaries with `id`, `file_name`, `height`, `width`.
    annotations: with `id`, `image_id`, `category_id`, `bbox` (x, y, width, height), and perhaps
      `iscrowd` and `area`.
    categories: with `id` and `name`.
    where: they are from, for messages.
    photos: as of `read_instances`.

  Raises:
    UserError: there is no category.
  """
  faults = _Faults()
  names = dict(sorted(_categories(categories, faults)))
  if not names:
    raise UserError(f'{where} has no categories; expected is an instances JSON of COCO.')
  listed = _images(images, faults)
  found = dict(sorted(_with_photos(listed, photos, faults)))
  rows = _boxes(annotations, found, listed, {c: i for i, c in enumerate(names)}, faults)
  counts = [len(rows[image]) for image in found]
  flat = [row for image in found for row in rows[image]]
  ids, classes, crowd, areas, boxes = zip(*flat, strict=True) if flat else ([],) * 5
  return Annotations(
    image_ids=np.array(list(found), np.int64),
    file_names=tuple(name for name, _ in found.values()),
    sizes=np.array([size for _, size in found.values()], np.int32).reshape(-1, 2),
    first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    boxes=np.array(boxes, np.float64).reshape(-1, 4),
    classes=np.array(classes, np.int32),
    crowd=np.array(crowd, bool),
    areas=np.array(areas, np.float64),
    ids=np.array(ids, np.int64),
    category_ids=tuple(names),
    class_names=tuple(names.values()),
    faults=faults.by_kind(),
  )


class _Faults:
  """Counts and lists faults."""

  def __init__(self):
    self._found: dict[str, list[str]] = collections.defaultdict(list)

  def add(self, kind: str, what: str) -> None:
    """Notes one."""
    self._found[kind].append(what)

  def by_kind(self) -> dict[str, tuple[str, ...]]:
    """Returns all that was noted."""
    return {kind: tuple(found) for kind, found in self._found.items()}


def _records(kind: str, records: Iterable[Any], faults: _Faults) -> Iterator[tuple[int, dict]]:
  """Yields the records with an id of their own, and it."""
  seen = set()
  for place, record in enumerate(records):
    if not isinstance(record, dict) or not is_id(record.get('id')):
      faults.add(RECORD, f'{kind} at place {place} has no id: {shown(record)}')
    elif record['id'] in seen:
      faults.add(TWICE, f'{kind} {record["id"]}, at place {place}')
    else:
      seen.add(record['id'])
      yield record['id'], record


def _categories(records: Iterable[Any], faults: _Faults) -> Iterator[tuple[int, str]]:
  """Yields id and name of each; no two have one name."""
  names = set()
  for number, record in _records('category', records, faults):
    name = record.get('name')
    if not isinstance(name, str) or not name or name in names:
      faults.add(RECORD, f'category {number} has no name of its own: {shown(name)}')
      name = f'category {number}'
    names.add(name)
    yield number, name


def _images(records: Iterable[Any], faults: _Faults) -> dict[int, tuple[str, tuple] | None]:
  """Returns file name and size of each image by its id; None of one that cannot be used."""
  found: dict[int, tuple[str, tuple] | None] = {}
  for number, record in _records('image', records, faults):
    name, size = record.get('file_name'), (record.get('height'), record.get('width'))
    found[number] = None
    if not isinstance(name, str) or not _stays_inside(name):
      faults.add(RECORD, f'image {number} has no name of a file: {shown(name)}')
    elif not all(is_id(side) and 0 < side <= _MOST_PIXELS for side in size):
      faults.add(RECORD, f'image {number} has no height and width: {shown(size)}')
    else:
      found[number] = name, size
  return found


def _stays_inside(name: str) -> bool:
  path = pathlib.PurePosixPath(name)
  return bool(path.name) and not path.is_absolute() and '..' not in path.parts and '\0' not in name


def _with_photos(
  images: Mapping[int, tuple[str, tuple] | None],
  photos: str | os.PathLike | None,
  faults: _Faults,
) -> Iterator[tuple[int, tuple[str, tuple]]]:
  """Yields the images that are usable and have a photo."""
  there = set()
  if photos is not None:
    there = {entry.name for entry in os.scandir(os.fspath(photos)) if entry.is_file()}
  for number, image in images.items():
    if image is None:
      continue
    name = image[0]
    # One look at the folder instead of one at each photo, unless they are in folders of it.
    if photos is not None and name not in there and not os.path.isfile(os.path.join(photos, name)):
      faults.add(MISSING, f'image {number}: {name}')
    else:
      yield number, image


def _boxes(
  records: Iterable[Any],
  images: Mapping[int, tuple[str, tuple]],
  listed: Mapping[int, Any],
  classes: Mapping[int, int],
  faults: _Faults,
) -> dict[int, list[tuple]]:
  """Returns id, class, crowd, area and box of each annotation, by image.

  Args:
    records: of annotations.
    images: that are usable.
    listed: all; the boxes of those that are not usable go with them.
    classes: by category.
    faults: that are found.
  """
  found: dict[int, list[tuple]] = collections.defaultdict(list)
  for number, record in _records('annotation', records, faults):
    image, category, bbox = (record.get(key) for key in ('image_id', 'category_id', 'bbox'))
    kind: str | None = None
    if not is_id(image) or image not in listed:
      kind = IMAGE
    elif not is_id(category) or category not in classes:
      kind = CATEGORY
    elif not is_box(bbox):
      kind = NO_BOX
    elif image in images:
      kind, box = _mended(bbox, *images[image][1])
      if box:
        row = number, classes[category], _crowd(record, faults), _area(record, box), box
        found[image].append(row)
    if kind:
      place = f'annotation {number} of image {shown(image)}'
      faults.add(kind, f'{place}: category {shown(category)}, bbox {shown(bbox)}')
  return found


def _crowd(record: dict, faults: _Faults) -> bool:
  crowd = record.get('iscrowd')
  if crowd not in (0, 1, None):
    faults.add(CROWD, f'annotation {record["id"]}: iscrowd {shown(crowd)}, taken for 0')
  return crowd == 1


def _area(record: dict, box: tuple[float, ...]) -> float:
  area: Any = record.get('area')
  if not is_number(area) or area < 0:
    area = (box[2] - box[0]) * (box[3] - box[1])
  return float(area)


def _mended(
  bbox: list[float], height: int, width: int
) -> tuple[str | None, tuple[float, ...] | None]:
  """Returns what is wrong with a box, and x1, y1, x2, y2 of what is left of it in its image."""
  x, y, across, down = map(float, bbox)
  if across <= 0 or down <= 0:
    return EMPTY, None
  x2, y2 = x + across, y + down
  if min(x, y) >= -_ROUNDING and x2 <= width + _ROUNDING and y2 <= height + _ROUNDING:
    return None, (x, y, x2, y2)
  box = (max(x, 0.0), max(y, 0.0), min(x2, float(width)), min(y2, float(height)))
  return OUTSIDE, box if box[2] > box[0] and box[3] > box[1] else None


def is_id(value: Any) -> TypeGuard[int]:
  """Returns whether a value of a JSON can be an id."""
  return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def is_number(value: Any) -> TypeGuard[float]:
  """Returns whether a value of a JSON is a finite number, of a size that photos have."""
  kind = isinstance(value, int | float) and not isinstance(value, bool)
  return kind and abs(value) < _LARGEST**2  # no NaN is


def is_box(value: Any) -> TypeGuard[list[float]]:
  """Returns whether a value of a JSON is four coordinates."""
  if not isinstance(value, list | tuple) or len(value) != 4:
    return False
  return all(is_number(x) and abs(x) < _LARGEST for x in value)
