"""Encoded images by index, for the streaming feed: data sets of tfds and folders of photos.

Both formats of tfds give any example directly: ArrayRecord has an index, and for TFRecord one is
made, by following the lengths in front of the records, and kept beside the files.
"""

import contextlib
import dataclasses
import functools
import io
import logging
import os
import pathlib
import re
import struct
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.data import arrays, datasets, image_folder, tfds_features
from senet_jax.errors import UserError
from senet_jax.storage import buckets
from senet_jax.storage.buckets import Path

IMAGE_FOLDER = 'image_folder'
_NAME = re.compile(r'\w+(/[\w.+-]+)?(:[0-9.*]+)?')
# A record of a TFRecord file: length, its CRC, the data, its CRC.
_BEFORE, _AFTER = 12, 4
# Bytes that are asked of a bucket at once.
_PIECE = 2**24
# That look at the files of a data set at the same time.
_THREADS = 16
# Records that one of them reads at once for what is kept of all.
_SCANNED = 256

_log = logging.getLogger('senet_jax')


@dataclasses.dataclass(frozen=True)
class Source:
  """A split whose examples can be read in any order.

  Attributes:
    where: data set and split, for messages.
    num_examples: of the split.
    class_names: of label 0, 1, ...
    checksum: of what tells this data from other data, short of the images themselves.
    read: `indices` `[m]` int64 to `m` encoded images and their labels, `[m]` int64; called in
      threads; it raises an `OSError` or a `RuntimeError` where one cannot be read.
    records: `indices` `[m]` int64 to the bytes that are kept of `m` examples; otherwise as `read`.
    name: tells a user which example an index is.
    labels: of all examples, `[N]` int64; of a data set of tfds they are read once and kept. It
      raises a `UserError` where one cannot be read.
  """

  where: str
  num_examples: int
  class_names: tuple[str, ...]
  checksum: int
  read: Callable[[np.ndarray], tuple[list[bytes], np.ndarray]]
  records: Callable[[np.ndarray], list[bytes]]
  name: Callable[[int], str]
  labels: Callable[[], np.ndarray]

  @property
  def num_classes(self) -> int:
    """Labels are below it."""
    return len(self.class_names)


def open_source(config: ConfigDict, split: str) -> Source:
  """Opens the split `split` of the data that `config.data` describes.

  Args:
    config: of the run.
    split: a split or a contiguous part of one: `train`, `train[:90%]`.

  Raises:
    UserError: the data is not there, or not what it should be.
  """
  if config.data.name == IMAGE_FOLDER:
    if buckets.in_bucket(config.data.dir or ''):
      raise UserError(
        f'config.data.dir={config.data.dir}: a folder of photos must be local; pack it (tools.'
        'prepare_data --image_folder), copy the packed one to the bucket, and name it.'
      )
    source = _open_folder(config.data, split)
  else:
    source = _open_tfds(config.data, split)
  if not source.num_examples:
    raise UserError(f'data split {split!r} of {config.data.name} has no examples.')
  classes = config.model.num_classes
  if classes is not None and classes < len(source.class_names):
    raise UserError(
      f'config.model.num_classes={classes} is less than the {len(source.class_names)} classes of '
      f'{config.data.name}; leave it out or use at least that many.'
    )
  return source


# --- folders of photos -----------------------------------------------------------------------


def _open_folder(data: ConfigDict, split: str) -> Source:
  if data.dir is None:
    raise UserError(
      'config.data.dir must be the folder with the photos: train/<class>/*.jpg and '
      'val/<class>/*.jpg, or <class>/*.jpg with config.data.val_fraction=0.1.'
    )
  folder = image_folder.scan(data.dir, data.val_fraction)
  _say_once(folder.describe())
  hint = 'Add val/, or set config.data.val_fraction=0.2.' if 'val' not in folder.splits else ''
  base, part = datasets.parse_split(split, folder.splits, IMAGE_FOLDER, hint)
  examples = folder.splits[base]
  chosen = part(len(examples.labels))
  paths, root = examples.paths[chosen], os.fspath(folder.root)
  labels, sizes = examples.labels[chosen].astype(np.int64), examples.sizes[chosen]
  if (sizes < 0).any():
    path = os.path.join(root, paths[int((sizes < 0).argmax())])
    try:
      why = f'it came back just now: {os.stat(path).st_size} bytes'
    except OSError as error:  # mostly a link to nothing
      why = str(error.strerror)
    raise UserError(f'{path} cannot be read: {why}; remove it, or bring back what it links to.')

  def name(index: int) -> str:
    return os.path.join(root, paths[index])

  def read(indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    return [pathlib.Path(name(i)).read_bytes() for i in indices], labels[indices]

  identity = '\n'.join(f'{path} {size}' for path, size in zip(paths, sizes, strict=True))
  return Source(
    where=f'{data.dir}, split {split}',
    num_examples=len(paths),
    class_names=folder.classes,
    checksum=zlib.crc32(os.fsencode(identity)),
    read=read,
    records=lambda indices: read(indices)[0],
    name=name,
    labels=lambda: labels,
  )


@functools.cache
def _say_once(line: str) -> None:
  if runtime.is_first():
    print(os.fsencode(line).decode(errors='replace'), flush=True)


# --- data sets of tfds -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Records:
  """The records of a split of tfds, by index.

  Attributes:
    where: data set and split, for messages.
    num_examples: of the split.
    checksum: as of `Source`.
    features: of the data set.
    read: as `Source.records`.
    name: as of `Source`.
    cache: the file beside the records, by its suffix, in which to keep what was found in them.
  """

  where: str
  num_examples: int
  checksum: int
  features: Any
  read: Callable[[np.ndarray], list[bytes]]
  name: Callable[[int], str]
  cache: Callable[[str], Path]

  def parse(self, indices: np.ndarray, features: dict[str, Any]) -> dict[str, Any]:
    """Returns tensors of the features of `m` examples, by name.

    Args:
      indices: `[m]` int64.
      features: as of `tf.io.parse_example`.

    Raises:
      OSError: an example cannot be read.
    """
    tf = runtime.import_tensorflow()
    try:
      return tf.io.parse_example(self.read(indices), features)
    # The last one of a message that quotes bytes.
    except (tf.errors.OpError, UnicodeDecodeError) as error:
      raise OSError(f'no examples of {self.where}') from error

  def scan(
    self,
    read: Callable[[np.ndarray], dict[str, np.ndarray]],
    suffix: str,
    fits: Callable[[dict[str, np.ndarray]], bool],
    otherwise: str,
  ) -> dict[str, np.ndarray]:
    """Returns what `read` finds in all examples; it is looked for once, and kept.

    Args:
      read: `indices` `[m]` int64 to arrays by name, which are put together along their first axis.
      suffix: of the file in which they are kept.
      fits: whether what was kept can be it.
      otherwise: what to do if they cannot be read, for the message.

    Raises:
      UserError: an example cannot be read.
    """
    cache, what = self.cache(suffix), suffix.removesuffix('.npz')
    try:
      with np.load(io.BytesIO(cache.read_bytes()), allow_pickle=False) as file:
        kept = dict(file)
      if fits(kept):
        return kept
    except Exception:  # as of an index
      pass
    _log.info('reading the %s of all %d examples of %s, once', what, self.num_examples, self.where)

    def block(first: int) -> dict[str, np.ndarray]:
      try:
        return read(np.arange(first, min(first + _SCANNED, self.num_examples)))
      except (OSError, RuntimeError) as error:
        raise UserError(
          f'the {what} of {self.where} cannot be read, at example {first} or behind it: {otherwise}'
        ) from error

    with futures.ThreadPoolExecutor(_THREADS) as pool:
      blocks = list(pool.map(block, range(0, self.num_examples, _SCANNED)))
    found = {name: np.concatenate([part[name] for part in blocks]) for name in blocks[0]}
    _try_to_keep(cache, **found)
    return found


def open_records(data: ConfigDict, split: str) -> Records:
  """Opens the records of a split, or of a part of one, that tfds has prepared.

  Raises:
    UserError: they are not there, or not what they should be.
  """
  runtime.import_tensorflow()
  runtime.allow_many_files()  # every shard stays open, and ImageNet has 1024
  data_dir = buckets.to_path(data.dir or arrays.default_data_dir())
  with buckets.access(data_dir):
    builder = _builder(data.name, data_dir)
  info = builder.info
  base, part = datasets.parse_split(split, info.splits, data.name)
  with _mistakes_in_description(data.name, data_dir):
    files = [str(path) for path in info.splits[base].filepaths]
  lengths = info.splits[base].shard_lengths
  read = _reader(data.name, builder, base)
  chosen = np.arange(info.splits[base].num_examples)[part(info.splits[base].num_examples)]
  first = np.cumsum([0, *lengths])

  def name(index: int) -> str:
    at = chosen[index]
    shard = int(np.searchsorted(first, at, side='right')) - 1
    return f'record {at - first[shard]} of {files[shard]}'

  identity = f'{builder.name} {builder.version} {base} {lengths} {info.splits[base].num_bytes}'
  checksum = zlib.crc32(f'{identity} {chosen[:1]} {chosen[-1:]}'.encode())
  folder = buckets.to_path(builder.data_dir)
  return Records(
    where=f'{data.name}, split {split}',
    num_examples=len(chosen),
    checksum=checksum,
    features=info.features,
    read=lambda indices: read(chosen[indices]),
    name=name,
    cache=lambda suffix: folder / f'{base}.{checksum:08x}.{suffix}',
  )


def _open_tfds(data: ConfigDict, split: str) -> Source:
  records = open_records(data, split)
  tf = runtime.import_tensorflow()
  image_key, label_key = _image_and_label(data.name, records.features)
  features = {
    image_key: tf.io.FixedLenFeature((), tf.string),
    label_key: tf.io.FixedLenFeature((), tf.int64),
  }

  def read(indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    examples = records.parse(indices, features)
    return examples[image_key].numpy().tolist(), examples[label_key].numpy()

  def labels() -> np.ndarray:
    return records.scan(
      lambda indices: {'labels': read(indices)[1]},
      'labels.npz',
      lambda kept: (
        kept['labels'].shape == (records.num_examples,) and kept['labels'].dtype == np.int64
      ),
      "prepare the data set again, or set config.data.sampling='uniform'.",
    )['labels']

  return Source(
    where=records.where,
    num_examples=records.num_examples,
    class_names=tuple(records.features[label_key].names),
    checksum=records.checksum,
    read=read,
    records=records.read,
    name=records.name,
    labels=labels,
  )


def _reader(name: str, builder: Any, base: str) -> Callable[[np.ndarray], list[bytes]]:
  """Returns what reads records of a split by index, after a look at its files.

  Raises:
    UserError: one is missing or damaged, or they are not of a kind that can be read there.
  """
  import tensorflow_datasets as tfds

  split = builder.info.splits[base]
  files, lengths = [str(path) for path in split.filepaths], split.shard_lengths
  sizes = _sizes(files)
  for file, size, length in zip(files, sizes, lengths, strict=True):
    if not 0 <= length <= size:
      raise _damaged(file, f'{size} bytes cannot hold {length} records')
  folder = buckets.to_path(builder.data_dir)
  if not files:
    raise _damaged(str(folder), f'its split {base} has no files')
  distant = buckets.in_bucket(folder)
  if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
    if distant:
      raise UserError(
        f'{name} in {folder} is in ArrayRecord files, which their library reads from a disk '
        'alone; use TFRecord files there, or mount the bucket.'
      )
    return _array_records(split.file_instructions)
  index = _tfrecord_index(files, lengths, sizes, folder / f'{base}.index.npz')
  return (_distant_records if distant else _tfrecords)(files, *index)


@contextlib.contextmanager
def _mistakes_in_description(name: str, data_dir: Path) -> Iterator[None]:
  """Turns what tfds raises on the JSON files of a data set into a `UserError`."""
  try:
    yield
  except Exception as error:  # of many kinds
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    raise UserError(f'config.data.name={name!r} in {data_dir}: tfds says: {reason}') from error


def _builder(name: str, data_dir: Path):
  import tensorflow_datasets as tfds

  if not _NAME.fullmatch(name):
    raise UserError(
      f'config.data.name={name!r} is no name of a data set; it may be followed by /CONFIG and '
      ':VERSION. Data sets of other collections, such as huggingface:..., are downloaded and run '
      'code: prepare them with tfds first, and give the name that they have in config.data.dir.'
    )
  tfds_features.check(data_dir / name.partition(':')[0].partition('/')[0])
  with _mistakes_in_description(name, data_dir):
    try:
      builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.DatasetNotFoundError:
      builder = None
  if builder is None or not builder.info.splits:
    prepared = sorted({p.parents[1].name for p in data_dir.glob('*/*/dataset_info.json')})
    if name in datasets.DATASETS:
      how = (
        f'python -m senet_jax.tools.prepare_data --dataset={name} --data_dir={data_dir} '
        '--source=DIR, with DIR where its published files are'
      )
    else:
      how = f"tensorflow_datasets.builder('{name}', data_dir='{data_dir}').download_and_prepare()"
    raise UserError(
      f'{name} is not prepared in {data_dir} (there is: {", ".join(prepared) or "nothing"}); '
      f'run: {how}; or give another directory: --config.data.dir=DIR in training (or '
      'made-up images, --config.data.fake=True), --data_dir=DIR of tools that read a run.'
    )
  return builder


def _image_and_label(name: str, features: Any) -> tuple[str, str]:
  """The features of a data set that are the image and its class."""
  import tensorflow_datasets as tfds

  def one(kind: type) -> str:
    keys = [key for key, feature in features.items() if isinstance(feature, kind)]
    if len(keys) == 1 or 'label' in keys:
      return 'label' if 'label' in keys else keys[0]
    raise UserError(f'{name} has the {kind.__name__} features {keys}; one is needed.')

  return one(tfds.features.Image), one(tfds.features.ClassLabel)


def _array_records(instructions: list) -> Callable[[np.ndarray], list[bytes]]:
  """Reads by index the files that `instructions` of tfds name, after a look at each."""
  from array_record.python.array_record_data_source import ArrayRecordDataSource

  def check(instruction) -> None:
    path, expected = instruction.filename, instruction.examples_in_shard
    try:
      found = len(ArrayRecordDataSource([path]))
    except RuntimeError as error:
      raise _damaged(path, str(error).splitlines()[0]) from error
    if found != expected:
      raise _damaged(path, f'it has {found} records of {expected}')

  with futures.ThreadPoolExecutor(_THREADS) as pool:
    list(pool.map(check, instructions))
  source = ArrayRecordDataSource(instructions)
  return lambda indices: source.__getitems__(indices.tolist())


def _tfrecords(
  files: list[str], file_of: np.ndarray, offset: np.ndarray, length: np.ndarray
) -> Callable[[np.ndarray], list[bytes]]:
  descriptors: dict[int, int] = {}
  lock = threading.Lock()

  def open_once(number: int) -> int:
    with lock:
      if number not in descriptors:
        descriptors[number] = os.open(files[number], os.O_RDONLY)
      return descriptors[number]

  def read(indices: np.ndarray) -> list[bytes]:
    found = [
      os.pread(open_once(file_of[i]), int(length[i]) + _AFTER, int(offset[i])) for i in indices
    ]
    return [_checked(data, files[file_of[i]]) for i, data in zip(indices, found, strict=True)]

  return read


def _checked(data: bytes, file: str) -> bytes:
  """Returns a record, which its CRC is behind.

  Raises:
    OSError: it is another one.
  """
  import google_crc32c

  record, expected = data[:-_AFTER], struct.unpack('<I', data[-_AFTER:])[0]
  crc = google_crc32c.value(record)
  # As TFRecord masks it.
  if (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF != expected:
    raise OSError(f'a record of {file} is damaged: its checksum differs')
  return record


def _distant_records(
  files: list[str], file_of: np.ndarray, offset: np.ndarray, length: np.ndarray
) -> Callable[[np.ndarray], list[bytes]]:
  """Reads records from a bucket as `_tfrecords` does from a disk, those of a call concurrently."""
  system = buckets.file_system(files[0])

  def read(indices: np.ndarray) -> list[bytes]:
    paths = [files[file_of[i]] for i in indices]
    starts = offset[indices].tolist()
    ends = ((offset + length)[indices] + _AFTER).tolist()
    found = system.cat_ranges(paths, starts, ends, on_error='raise')
    return list(map(_checked, found, paths))

  return read


def _sizes(files: list[str]) -> np.ndarray:
  """Returns the bytes of each file, `[n]` int64.

  Raises:
    UserError: one is missing or cannot be looked at.
  """
  try:
    with futures.ThreadPoolExecutor(_THREADS) as pool:
      stats = pool.map(lambda file: epath.Path(file).stat(), files)
      return np.array([stat.length for stat in stats], np.int64)
  except FileNotFoundError as error:
    raise _damaged(error.filename or str(error), 'it is missing') from error
  except OSError as error:
    raise _damaged(error.filename or files[0], error.strerror or str(error)) from error


def _tfrecord_index(
  files: list[str], lengths: list[int], sizes: np.ndarray, cache: Path
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns file, offset and length in bytes of every record, each `[N]` int64.

  It is kept in `cache`, if that can be written, and made anew when a file has another size.

  Raises:
    UserError: a file is missing, or has not as many whole records as it should.
  """
  try:
    with np.load(io.BytesIO(cache.read_bytes()), allow_pickle=False) as file:
      kept = dict(file)
    if np.array_equal(kept['sizes'], sizes) and _is_index(kept, sizes, sum(lengths)):
      return kept['shard'], kept['offset'], kept['length']
  except Exception:  # missing, or damaged, of which NumPy raises many kinds: made anew
    pass
  with futures.ThreadPoolExecutor(_THREADS) as pool:
    found = list(pool.map(_follow_records, files, sizes, lengths))
  counts = [len(offsets) for offsets, _ in found]
  index = {
    'shard': np.repeat(np.arange(len(files)), counts),
    'offset': np.concatenate([offsets for offsets, _ in found]),
    'length': np.concatenate([lengths for _, lengths in found]),
  }
  _try_to_keep(cache, sizes=sizes, **index)
  return index['shard'], index['offset'], index['length']


def _is_index(kept: dict[str, np.ndarray], sizes: np.ndarray, count: int) -> bool:
  """Returns whether each of `count` records lies within its file."""
  shard, offset, length = (kept[name] for name in ('shard', 'offset', 'length'))
  if any(x.dtype != np.int64 or x.shape != (count,) for x in (shard, offset, length)):
    return False
  ends = sizes[shard]  # raises if there is no such file
  return bool(((shard >= 0) & (offset >= 0) & (length >= 0) & (length <= ends - offset)).all())


def _follow_records(path: str, size: int, expected: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns offsets and lengths of the records of a TFRecord file."""
  offsets, lengths = [], []
  with _opened(path) as read:
    at = 0
    while at < size:
      head = read(at)
      length = struct.unpack('<Q', head[:8])[0] if len(head) == _BEFORE else size
      offsets.append(at + _BEFORE)
      lengths.append(length)
      at += _BEFORE + length + _AFTER
  if at != size or len(offsets) != expected:
    whole = len(offsets) - (at != size)
    raise _damaged(path, f'it has {whole} whole records of {expected}')
  return np.array(offsets, np.int64), np.array(lengths, np.int64)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[Callable[[int], bytes]]:
  """Gives what reads the bytes in front of a record that begins at a place of the file."""
  if not buckets.in_bucket(path):
    with open(path, 'rb') as file:
      yield lambda at: os.pread(file.fileno(), _BEFORE, at)
    return
  # Each request takes long, however little is wanted: all of the file comes, in large pieces.
  system, start, piece = buckets.file_system(path), 0, b''

  def read(at: int) -> bytes:
    nonlocal start, piece
    if not start <= at <= start + len(piece) - _BEFORE:
      start, piece = at, system.cat_file(path, at, at + _PIECE)
    return piece[at - start : at - start + _BEFORE]

  yield read


def _try_to_keep(cache: Path, **index: Any) -> None:
  content = io.BytesIO()
  np.savez(content, **index)
  if buckets.in_bucket(cache):
    with contextlib.suppress(Exception):  # of many kinds, where it cannot be written
      cache.write_bytes(content.getvalue())
    return
  partial = cache.with_name(f'{cache.name}.{uuid.uuid4().hex}.partial')
  try:
    partial.write_bytes(content.getvalue())
    partial.replace(cache)
  except OSError:  # data may lie where it cannot be written
    partial.unlink(missing_ok=True)


def _damaged(path: str, why: str) -> UserError:
  return UserError(f'{path} is damaged: {why}; prepare the data set again, or copy it anew.')
