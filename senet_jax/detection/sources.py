"""Photos with boxes by index: the files of COCO, its records in tfds, and made-up ones."""

import dataclasses
import functools
import io
import logging
import pathlib
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from senet_jax import errors, runtime
from senet_jax.data import datasets, photos, sources as data_sources
from senet_jax.detection import coco
from senet_jax.detection.annotations import Annotations, from_records, read_instances
from senet_jax.errors import UserError
from senet_jax.storage import buckets

# `data.name` of the files as they are published, and of those that tfds has prepared.
FILES, TFDS = 'coco', 'coco/2017'
# The folder of a split's photos and the name of its file in `annotations`, the first two that are
# there. The lists of test photos have no boxes: COCO's server judges what is found on them.
_SPLITS = {
  'train': (('train2017', 'instances_train2017'), ('train', 'instances_train')),
  'validation': (('val2017', 'instances_val2017'), ('val', 'instances_val')),
  'test': (('test2017', 'image_info_test2017'), ('test', 'image_info_test')),
  'test_dev': (('test2017', 'image_info_test-dev2017'),),
}
LAYOUT = (
  'expected are train2017/*.jpg with annotations/instances_train2017.json, and val2017/*.jpg with '
  'annotations/instances_val2017.json'
)
# Sizes of made-up photos, most of them as most of COCO's.
_FAKE_SIZES = ((480, 640),) * 4 + ((427, 640),) * 2 + ((640, 480),) * 2
_FAKE_PHOTOS, _FAKE_BOXES = 256, 7

_log = logging.getLogger('senet_jax')


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """A split of photos with boxes that can be read in any order.

  Attributes:
    where: data set and split, for messages.
    annotations: of all photos, in the order of their indices.
    read: `indices` `[m]` int64 to `m` encoded images, and the indices; called in threads; it raises
      an `OSError` or a `RuntimeError` where one cannot be read.
    name: tells a user which photo an index is.
  """

  where: str
  annotations: Annotations
  read: Callable[[np.ndarray], tuple[list[bytes], np.ndarray]]
  name: Callable[[int], str]

  @property
  def num_examples(self) -> int:
    """Photos of the split."""
    return len(self.annotations)

  @property
  def num_classes(self) -> int:
    """Classes of objects, without the background."""
    return len(self.annotations.class_names)

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the classes, in their order."""
    return self.annotations.class_names

  @property
  def sizes(self) -> np.ndarray:
    """Height and width of each photo, `[n, 2]` int32."""
    return self.annotations.sizes

  @functools.cached_property
  def checksum(self) -> int:
    """Tells this data from other data, short of the pixels."""
    return self.annotations.checksum()


def open_source(config: ConfigDict, split: str) -> Source:
  """Opens the split `split` of the data that `config.data` describes.

  Args:
    config: of the run.
    split: `train`, `validation`, `test` or `test_dev`, or a part of one: `train[:32]`.

  Raises:
    UserError: the data is not there, is not what it should be, or has too many faults.
  """
  data = config.data
  if data.fake:
    return _fake(config, split)
  if data.name != FILES and not data.name.startswith(f'{FILES}/'):
    errors.one_of('data.name', data.name, (FILES, TFDS), 'A detector learns from boxes.')
  source = (_open_files if data.name == FILES else _open_tfds)(data, split)
  if not source.num_examples:
    raise UserError(f'data split {split!r} of {data.name} has no photos.')
  classes = config.model.num_classes
  if classes is not None and classes < source.num_classes:
    raise UserError(
      f'config.model.num_classes={classes} is less than the {source.num_classes} classes of '
      f'{source.where}; leave it out or use at least that many.'
    )
  return source


def _checked(annotations: Annotations, where: str, most: int) -> Annotations:
  """Returns annotations whose faults are few, and says which they are."""
  annotations.check_faults(where, most)
  if annotations.faults and runtime.is_first():
    _log.warning('%s: left out or mended: %s', where, annotations.describe_faults())
  return annotations


# --- the files of COCO -----------------------------------------------------------------------


def _open_files(data: ConfigDict, split: str) -> Source:
  if data.dir is None:
    raise UserError(f'config.data.dir must be the folder of COCO; {LAYOUT}.')
  if buckets.in_bucket(data.dir):
    raise UserError(
      f'config.data.dir={data.dir}: the folder of COCO must be local; mount the bucket, or give '
      f'config.data.name={TFDS}, which tfds has prepared there.'
    )
  root = pathlib.Path(data.dir).expanduser()
  if not root.is_dir():
    raise UserError(f'{root} is {"not a" if root.exists() else "no"} directory; {LAYOUT}.')
  there = {name: found for name in _SPLITS if (found := _find(root, name))}
  base, part = datasets.parse_split(split, there, FILES, f'In {root} {LAYOUT}.')
  folder, path = there[base]
  annotations = _checked(read_instances(path, folder), str(path), data.max_faulty)
  chosen = annotations.select(part(len(annotations)))

  def name(index: int) -> str:
    return str(folder / chosen.file_names[index])

  def read(indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    return [pathlib.Path(name(i)).read_bytes() for i in indices], indices

  return Source(f'{root}, split {split}', chosen, read, name)


def _find(root: pathlib.Path, split: str) -> tuple[pathlib.Path, pathlib.Path] | None:
  """Returns the folder of the photos of a split, and its annotations; None if it has none.

  Raises:
    UserError: several files could be its annotations.
  """
  for folder, stem in _SPLITS[split]:
    files = sorted((root / 'annotations').glob(f'{stem}*.json'))
    if len(files) > 1:
      exact = [file for file in files if file.stem == stem]
      if not exact:
        raise UserError(f'{" and ".join(map(str, files[:3]))} could both be of {split}; keep one.')
      files = exact
    if files and (root / folder).is_dir():
      return root / folder, files[0]
  return None


# --- records of tfds -------------------------------------------------------------------------


def _open_tfds(data: ConfigDict, split: str) -> Source:
  records = data_sources.open_records(data, split)
  if not records.num_examples:
    raise UserError(f'data split {split!r} of {data.name} has no photos.')
  tf = runtime.import_tensorflow()
  found = _scanned(records)
  first = np.concatenate([[0], np.cumsum(found['count'])])
  sizes, images, annotations = found['size'].tolist(), [], []
  for i, number in enumerate(found['image'].tolist()):
    height, width = sizes[i]
    name = found['name'][i].decode(errors='replace')
    images.append({'id': number, 'file_name': name, 'height': height, 'width': width})
    for j in range(first[i], first[i + 1]):
      y1, x1, y2, x2 = found['box'][j].astype(float) * (height, width, height, width)
      annotations.append({
        'id': int(found['id'][j]), 'image_id': number, 'category_id': int(found['label'][j]),
        'bbox': [x1, y1, x2 - x1, y2 - y1], 'area': int(found['area'][j]),
        'iscrowd': int(found['crowd'][j]),
      })  # fmt: skip
  names = records.features['objects']['label'].names
  categories = [{'id': i, 'name': name} for i, name in enumerate(names)]
  whole = from_records(images, annotations, categories, where=records.where)
  whole = _checked(_with_ids_of_coco(whole), records.where, data.max_faulty)
  record = {number: i for i, number in reversed(list(enumerate(found['image'].tolist())))}
  place = np.array([record[number] for number in whole.image_ids.tolist()], np.int64)

  def read(indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    parsed = records.parse(place[indices], {'image': tf.io.FixedLenFeature((), tf.string)})
    return parsed['image'].numpy().tolist(), indices

  return Source(records.where, whole, read, lambda index: records.name(int(place[index])))


def _scanned(records: data_sources.Records) -> dict[str, np.ndarray]:
  """Returns what all records say.

  That is `image`, its id, `name`, `size` and `count`, of boxes, for each image, and for each box
  `id`, `box`, `area`, `label` and `crowd`.

  Raises:
    UserError: the data set has no boxes, or a record cannot be read.
  """
  tf = runtime.import_tensorflow()
  boxes = {'id': 'id', 'box': 'bbox', 'area': 'area', 'label': 'label', 'crowd': 'is_crowd'}
  features = records.features
  if 'objects' not in features or not {*boxes.values()} <= set(features['objects'].keys()):
    raise UserError(f'{records.where} has no boxes as those of {TFDS} are; use that.')
  wanted = {
    'image': tf.io.FixedLenFeature((), tf.string),
    'image/filename': tf.io.FixedLenFeature((), tf.string),
    'image/id': tf.io.FixedLenFeature((), tf.int64),
    **{
      f'objects/{key}': tf.io.RaggedFeature(tf.float32 if key == 'bbox' else tf.int64)
      for key in boxes.values()
    },
  }

  def read(indices: np.ndarray) -> dict[str, np.ndarray]:
    parsed = records.parse(indices, wanted)
    return {
      'image': parsed['image/id'].numpy(),
      'name': np.array(parsed['image/filename'].numpy().tolist(), bytes),
      'size': np.array([_size(image) for image in parsed['image'].numpy()], np.int32),
      'count': parsed['objects/id'].row_lengths().numpy(),
      **{name: parsed[f'objects/{key}'].values.numpy() for name, key in boxes.items()},
    }

  def fits(kept: dict[str, np.ndarray]) -> bool:
    count = int(kept['count'].sum())
    # Four numbers a box, and one of all else.
    each = all(kept[name].size == count * (4 if name == 'box' else 1) for name in boxes)
    return each and len(kept['image']) == len(kept['name']) == records.num_examples

  found = records.scan(read, 'boxes.npz', fits, 'prepare the data set again.')
  if not fits(found):
    raise UserError(f'{records.where} is damaged: its boxes do not fit; prepare it again.')
  return {**found, 'box': found['box'].reshape(-1, 4)}


def _size(image: bytes) -> tuple[int, int]:
  try:
    return photos.size_of(image)
  except photos.UnreadableImage:
    return 0, 0  # which is a fault


def _with_ids_of_coco(annotations: Annotations) -> Annotations:
  """Returns annotations whose categories have COCO's ids, if they are COCO's; tfds has no ids."""
  if annotations.class_names != tuple(coco.CATEGORIES.values()):
    return annotations
  return dataclasses.replace(annotations, category_ids=tuple(coco.CATEGORIES))


# --- made-up photos --------------------------------------------------------------------------


def _fake(config: ConfigDict, split: str) -> Source:
  """Returns photos of one colour each with boxes anywhere, of COCO's usual sizes."""
  base, part = datasets.parse_split(split, ('train', 'validation'), f'{config.data.name} (fake)')
  rng = np.random.default_rng(len(base))
  classes = list(coco.CATEGORIES)[: config.model.num_classes]
  sizes = [_FAKE_SIZES[i % len(_FAKE_SIZES)] for i in range(_FAKE_PHOTOS)]
  images = [
    {'id': i, 'file_name': f'{i}.jpg', 'height': height, 'width': width}
    for i, (height, width) in enumerate(sizes)
  ]
  annotations = []
  for i in range(_FAKE_PHOTOS * _FAKE_BOXES):
    height, width = sizes[i // _FAKE_BOXES]
    x, y, w, h = rng.uniform(0.05, 0.5, 4) * (width, height, width, height)
    category = classes[rng.integers(len(classes))]
    annotations.append(
      {'id': i, 'image_id': i // _FAKE_BOXES, 'category_id': category, 'bbox': [x, y, w, h]}
    )
  categories = [{'id': c, 'name': coco.CATEGORIES[c]} for c in classes]
  where = f'{config.data.name} (fake), split {split}'
  whole = from_records(images, annotations, categories, where=where)
  chosen = whole.select(part(len(whole)))
  encoded = {size: _photo(size) for size in set(sizes)}

  def read(indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    return [encoded[tuple(chosen.sizes[i].tolist())] for i in indices], indices

  return Source(where, chosen, read, lambda index: chosen.file_names[index])


def _photo(size: tuple[int, int]) -> bytes:
  """Returns a JPEG of noise that is as long as one of a photo."""
  small = np.random.default_rng(0).integers(0, 256, (size[0] // 4, size[1] // 4, 3), np.uint8)
  content = io.BytesIO()
  Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC).save(content, 'JPEG')
  return content.getvalue()
