"""A pack: what a machine lacks that has JAX but neither network nor TensorFlow, in small parts.

    DIR/part1/README.txt         what to type there
        part1/pack.json          SHA-256 digests of all other files, what is in the data sets
        part1/senet_jax.tar.gz   the code, with its commit
        part1/*.whl              packages that such machines lack
        part1/cifar10_train_0.webp, cifar10_train_labels.npz, ...
        part2/...

Images are mosaics in lossless WebP, which Pillow reads. Reading runs and unpacks nothing, and looks
into a file only after its digest was compared.
"""

import gzip
import hashlib
import io
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any

import numpy as np
from PIL import Image

from senet_jax import errors, runtime
from senet_jax.data import arrays
from senet_jax.data.builders import cifar
from senet_jax.runtime.commit import COMMIT_FILE, ROOT, git, git_commit
from senet_jax.storage import files

PART_BYTES = 60_000_000
DEMO = 'python -m senet_jax.main --config=configs/digits_se_r20.py --workdir=../runs/digits'
# The packages of setup.cfg, and what they need, that do not come with JAX, Flax and Orbax.
WHEELS = ('clu', 'ml_collections', 'wrapt')
CODE_FOLDER = 'senet_jax_code'  # not `senet_jax`, which Python would take for the package

_INDEX, _README, _CODE = 'pack.json', 'README.txt', 'senet_jax.tar.gz'
_FORMAT = 'senet_jax pack 1'
_SHIPPED = ('senet_jax', 'configs', 'results', 'setup.cfg', 'pyproject.toml', 'constraints.txt',
            'constraints-latest.txt', 'README.md', 'LICENSE')  # fmt: skip
_UNTRACKED = ('--others', '--exclude-standard')
_SMALL = 100_000  # bytes of a file of results
# Pixels of a mosaic: 10,000 images of CIFAR, 17 MB as WebP. More methods and quality of the encoder
# give 1 % for twice, 1.4 % for twenty times the time.
_MOSAIC_PIXELS, _WEBP = 10_000 * 32 * 32, {'lossless': True, 'quality': 50, 'method': 2}


def pack(
  out: str | os.PathLike,
  *,
  sources: Mapping[str, str | os.PathLike],
  wheels: Sequence[str] = WHEELS,
  python_version: str | None = None,
  platform: str | None = None,
  part_bytes: int = PART_BYTES,
  commands: Sequence[str] = (DEMO,),
) -> list[pathlib.Path]:
  """Writes a pack, whole or not at all.

  Args:
    out: a directory, new or empty.
    sources: data set -> where it is: a directory of data sets where it is prepared with arrays, or
      for `cifar10` and `cifar100` the published files (see `cifar.local_builder`). They fill the
      parts in this order.
    wheels: packages that pip downloads, in the versions of `constraints.txt`.
    python_version: that of the machine, such as `3.12`; None is the one that runs.
    platform: that of the machine as in the names of wheels, such as `manylinux_2_28_x86_64`; None
      is this one.
    part_bytes: each part has fewer bytes.
    commands: the last ones that README.txt says to type, in the directory of the code.

  Returns:
    the directories of the parts, in their order.

  Raises:
    UserError: `out` has files, a data set is not there or its images are not RGB, pip cannot
      download, this code is not a checkout, or one file does not fit into a part.
  """
  out = pathlib.Path(out).expanduser().absolute()
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise errors.UserError(f'out={out} is not empty; give a new directory.')
  python_version = python_version or '.'.join(map(str, sys.version_info[:2]))
  with files.whole(out) as partial:
    loose = partial / 'loose'
    loose.mkdir(parents=True)
    commit = _write_code(loose / _CODE)
    if wheels:
      _download(wheels, loose, python_version, platform)
    datasets = {name: _write_dataset(_read_source(name, sources[name]), loose) for name in sources}
    index = {'format': _FORMAT, 'git_commit': commit, 'datasets': datasets}
    readme = _readme(index, bool(wheels), python_version, commands)
    (loose / _README).write_text(readme, encoding='utf-8')
    _distribute(loose, partial, index, part_bytes)
    shutil.rmtree(loose)
  return sorted(out.iterdir(), key=lambda part: (len(part.name), part.name))


def is_pack(folder: str | os.PathLike) -> bool:
  """Returns whether a directory holds a pack, or at least its first part."""
  return _find_index(pathlib.Path(folder).expanduser()) is not None


def holds(folder: str | os.PathLike, name: str) -> bool:
  """Returns whether a directory has a data set: in a pack, prepared as arrays, or as published.

  Whether all of it is there shows when it is read.

  Args:
    folder: see `read_pack`, and `sources` of `pack`.
    name: of the data set.

  Raises:
    UserError: the index of a pack is damaged.
  """
  folder = pathlib.Path(folder).expanduser()
  if path := _find_index(folder):
    return name in _read_index(path)['datasets']
  if arrays.find_arrays(name, folder):
    return True
  return name in cifar.LAYOUTS and cifar.has_files(name, folder)


def read_pack(folder: str | os.PathLike, name: str) -> arrays.Dataset:
  """Reads a data set from a pack, bit for bit as it was packed.

  Args:
    folder: holds the parts as they were written, or the files of all of them.
    name: of the data set.

  Raises:
    UserError: it is no pack, has no such data set, or a file is missing, damaged or of another
      pack.
  """
  folder = pathlib.Path(folder).expanduser()
  path = _find_index(folder)
  if path is None:
    raise errors.UserError(
      f'{folder} is no pack: neither {_INDEX} nor part1/{_INDEX} is in it; give the directory '
      'that holds part1, part2, ...'
    )
  index = _read_index(path)
  errors.one_of('dataset', name, index['datasets'], f'Those are all of {path}.')
  entry = index['datasets'][name]
  splits = {}
  for split, facts in entry['splits'].items():
    images = _read_images(folder, index, facts)
    labels = _read_labels(folder, index, facts)
    for kind, array in (('images', images), ('labels', labels)):
      if arrays.sha256(array) != facts[f'{kind}_sha256']:
        raise _damaged(path, f'the {kind} of {name}, {split}, are not those that it names')
    splits[split] = images, labels
  return arrays.Dataset(name, entry['version'], splits, entry['label_names'])


# --- code and packages ---------------------------------------------------------------------------


def _write_code(path: pathlib.Path) -> str | None:
  """Writes the code of this checkout, equal bytes for equal files; returns the commit that it is.

  Files that git does not know are in it, so that it works, and then there is a `+` at the commit.
  """
  if not (ROOT / 'setup.cfg').is_file():
    raise errors.UserError(f'{ROOT} is no checkout of senet_jax; pack from one.')
  commit = git_commit()
  tracked, new = (git('ls-files', '-z', *more, '--', *_SHIPPED) for more in ((), _UNTRACKED))
  if tracked is None:  # a copy, such as comes out of a pack
    found = (p for name in _SHIPPED for p in (ROOT / name, *(ROOT / name).rglob('*')))
    names = [str(p.relative_to(ROOT)) for p in found if '__pycache__' not in p.parts]
  else:
    names = f'{tracked}\0{new}'.split('\0')
    if commit and new:
      commit = commit.rstrip('+') + '+'
  contents = {name: (ROOT / name).read_bytes() for name in names if _is_shipped(name)}
  if commit:
    contents[str(COMMIT_FILE)] = f'{commit}\n'.encode()
  with (
    path.open('wb') as raw,
    gzip.GzipFile('', 'wb', fileobj=raw, mtime=0) as zipped,
    tarfile.open(fileobj=zipped, mode='w') as tar,
  ):
    for name, content in sorted(contents.items()):
      member = tarfile.TarInfo(f'{CODE_FOLDER}/{name}')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  return commit


def _is_shipped(name: str) -> bool:
  path = ROOT / name
  if not path.is_file():  # deleted, or a directory
    return False
  is_result = path.suffix == '.json' and path.stat().st_size <= _SMALL
  return is_result or not name.startswith('results/')


def _download(
  packages: Sequence[str], folder: pathlib.Path, python_version: str, platform: str | None
) -> None:
  command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', str(folder)]
  command += ['--only-binary=:all:', f'--python-version={python_version}']
  command += [f'--platform={platform}'] * bool(platform)
  command += ['--disable-pip-version-check', '--constraint', str(ROOT / 'constraints.txt')]
  done = subprocess.run([*command, *packages], capture_output=True, text=True)
  if done.returncode:
    reasons = re.findall('.*(?:error|no module).*', done.stderr, re.IGNORECASE)
    raise errors.UserError(
      f'pip cannot download {", ".join(packages)} for Python {python_version} '
      f'({(reasons or ["no reason given"])[0][:300]}); connect this machine to a package index, or '
      'leave them out with wheels=() and take them to the other machine yourself.'
    )


# --- images and labels ---------------------------------------------------------------------------


def _read_source(name: str, source: str | os.PathLike) -> arrays.Dataset:
  """A data set from arrays that are prepared or, of CIFAR, from the published files."""
  version_dir = arrays.find_arrays(name, source)
  if version_dir is None and name in cifar.LAYOUTS:
    return cifar.read_published(name, source)
  if version_dir is None:
    raise errors.UserError(f'{name} is not prepared as arrays in {source}; prepare it there first.')
  arrays.check_arrays(version_dir)
  index = arrays.read_index(version_dir)
  splits = {split: arrays.read_version(version_dir, split) for split in index['splits']}
  return arrays.Dataset(name, version_dir.name, splits, index['label_names'])


def _write_dataset(dataset: arrays.Dataset, folder: pathlib.Path) -> dict[str, Any]:
  """Writes mosaics and labels; returns what the index says of the data set."""
  splits = {}
  for split, (images, labels) in dataset.splits.items():
    stem = f'{dataset.name}_{split}'
    if images.shape[-1] != 3:
      raise errors.UserError(f'{dataset.name} has images of {images.shape[1:]}; RGB can be packed.')
    each = max(1, _MOSAIC_PIXELS // (images.shape[1] * images.shape[2]))
    pieces = [images[start : start + each] for start in range(0, len(images), each)]
    names = [f'{stem}_{i}.webp' for i in range(len(pieces))]
    with futures.ThreadPoolExecutor(runtime.usable_cores()) as pool:
      for name, mosaic in zip(names, pool.map(_to_mosaic, pieces), strict=True):
        (folder / name).write_bytes(mosaic)
    np.savez_compressed(folder / f'{stem}_labels.npz', labels=labels)
    splits[split] = {
      'image_shape': images.shape[1:],
      'images_sha256': arrays.sha256(images),
      'labels_sha256': arrays.sha256(labels),
      'images': {name: len(piece) for name, piece in zip(names, pieces, strict=True)},
      'labels': f'{stem}_labels.npz',
    }
  return {'version': dataset.version, 'label_names': list(dataset.label_names), 'splits': splits}


def _to_mosaic(images: np.ndarray) -> bytes:
  """Images `[N, H, W, 3]` in a square grid, row by row, as WebP."""
  count, height, width, channels = images.shape
  side = math.isqrt(count - 1) + 1
  grid = np.zeros((side * side, height, width, channels), np.uint8)
  grid[:count] = images
  grid = grid.reshape(side, side, height, width, channels).swapaxes(1, 2)
  file = io.BytesIO()
  Image.fromarray(grid.reshape(side * height, side * width, channels)).save(file, 'WEBP', **_WEBP)
  return file.getvalue()


def _from_mosaic(content: bytes, count: int, height: int, width: int) -> np.ndarray:
  """The first `count` images of a mosaic."""
  side = math.isqrt(count - 1) + 1
  with Image.open(io.BytesIO(content), formats=['WEBP']) as image:
    if image.size != (side * width, side * height):
      raise ValueError(f'it has {image.size} pixels')
    grid = np.asarray(image.convert('RGB'))
  grid = grid.reshape(side, height, side, width, 3).swapaxes(1, 2)
  return grid.reshape(side * side, height, width, 3)[:count]


def _read_images(folder: pathlib.Path, index: dict[str, Any], facts: dict[str, Any]) -> np.ndarray:
  height, width, _ = facts['image_shape']

  def read(item: tuple[str, int]) -> np.ndarray:
    path, content = _content(folder, index, item[0])
    try:
      return _from_mosaic(content, item[1], height, width)
    except Exception as error:  # Pillow raises many kinds
      raise _damaged(path, f'it is no mosaic: {error}') from error

  with futures.ThreadPoolExecutor(runtime.usable_cores()) as pool:
    return np.concatenate(list(pool.map(read, facts['images'].items())))


def _read_labels(folder: pathlib.Path, index: dict[str, Any], facts: dict[str, Any]) -> np.ndarray:
  path, content = _content(folder, index, facts['labels'])
  try:
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
      labels = archive['labels']
    if labels.dtype != np.int32 or labels.shape != (sum(facts['images'].values()),):
      raise ValueError(f'{labels.dtype} {labels.shape}')
    return labels
  except Exception as error:  # zipfile and NumPy raise many kinds
    raise _damaged(path, f'it holds no labels: {error}') from error


# --- parts and their index -----------------------------------------------------------------------


def _distribute(
  loose: pathlib.Path, out: pathlib.Path, index: dict[str, Any], part_bytes: int
) -> None:
  """Moves the files into parts, each into the first with room, and writes the index."""
  first = [_README, _CODE]
  last = [
    file
    for dataset in index['datasets'].values()
    for split in dataset['splits'].values()
    for file in (split['labels'], *split['images'])
  ]
  wheels = {path.name for path in loose.iterdir()}.difference(first, last)
  index['files'] = {
    name: {
      'part': 'part999',
      'bytes': (loose / name).stat().st_size,
      'sha256': _sha256((loose / name).read_bytes()),
    }
    for name in (*first, *sorted(wheels), *last)
  }
  free = [part_bytes - len(json.dumps(index, indent=2)) - 1]
  for name, entry in index['files'].items():
    number = next((i for i, room in enumerate(free) if entry['bytes'] < room), len(free))
    if number == len(free):
      free.append(part_bytes)
      if entry['bytes'] >= part_bytes or name in first:
        raise errors.UserError(
          f'part_bytes={part_bytes:,} is too small: {name} has {entry["bytes"]:,} bytes.'
        )
    free[number] -= entry['bytes']
    entry['part'] = f'part{number + 1}'
    part = out / entry['part']
    part.mkdir(exist_ok=True)
    (loose / name).rename(part / name)
  files.write_json(out / 'part1' / _INDEX, index)


def _readme(
  index: dict[str, Any], has_wheels: bool, python_version: str, commands: Sequence[str]
) -> str:
  steps = ['python -m pip install --no-index --no-deps part*/*.whl'] * has_wheels
  steps += [f'tar -xzf part1/{_CODE}', f'cd {CODE_FOLDER}']
  steps += [
    f'python -m senet_jax.tools.prepare_data --dataset={name} --arrays_only --source=..'
    for name in index['datasets']
  ]
  return '\n'.join([
    f'senet_jax {index["git_commit"] or "of an unknown commit"}, for a machine without network.',
    '',
    'Needed there: jax, flax, optax, orbax-checkpoint, numpy, scipy, scikit-learn, Pillow and',
    f'matplotlib for Python {python_version}. Not needed: TensorFlow and tfds.',
    '',
    'Bring part1, part2, ... into one directory, one by one if they are too large together, and',
    'type there:',
    '',
    *(f'  {line}' for line in (*steps, *commands)),
    '',
  ])  # fmt: skip


def _find_index(folder: pathlib.Path) -> pathlib.Path | None:
  paths = folder / 'part1' / _INDEX, folder / _INDEX
  return next((path for path in paths if path.is_file()), None)


def _read_index(path: pathlib.Path) -> dict[str, Any]:
  try:
    index = json.loads(path.read_bytes())
  except (OSError, ValueError, RecursionError) as error:
    raise _damaged(path, str(error)) from error
  match index:
    case {'format': found, 'files': {**entries}, 'datasets': {**datasets}} if found == _FORMAT:
      known = all(map(_is_file, entries, entries.values()))
      if known and all(map(_is_dataset, datasets, datasets.values())):
        return index
  raise _damaged(path, f'it has not the contents of {_FORMAT!r}')


def _is_file(name: Any, entry: Any) -> bool:
  match entry:
    case {'part': str(part), 'sha256': str()}:
      return _are_names(name, part)
  return False


def _is_dataset(name: Any, entry: Any) -> bool:
  match entry:
    case {'version': str(version), 'label_names': [*labels], 'splits': {**splits}}:
      if all(isinstance(label, str) for label in labels) and _are_names(name, version, *splits):
        return all(map(_is_split, splits.values()))
  return False


def _is_split(entry: Any) -> bool:
  match entry:
    case {
      'image_shape': [int(), int(), 3],
      'images_sha256': str(),
      'labels_sha256': str(),
      'images': {**counts},
      'labels': str(),
    }:
      return bool(counts) and all(isinstance(n, int) and n > 0 for n in counts.values())
  return False


def _are_names(*texts: Any) -> bool:
  """Returns whether paths that are made of these names stay in their directory."""
  return all(re.fullmatch(r'\w[\w.+-]*', text) for text in texts)


def _content(folder: pathlib.Path, index: dict[str, Any], name: str) -> tuple[pathlib.Path, bytes]:
  """Path and content of a file of the pack, whose digest is right."""
  if name not in index['files']:
    raise _damaged(_find_index(folder), f'it does not list {name}')
  entry = index['files'][name]
  paths = folder / entry['part'] / name, folder / name
  path = next((path for path in paths if path.is_file()), None)
  if path is None:
    raise errors.UserError(f'{folder} lacks {entry["part"]}/{name}; bring that part, too.')
  content = path.read_bytes()
  if _sha256(content) != entry['sha256']:
    raise _damaged(path, f'its SHA-256 is not that of {_INDEX}')
  return path, content


def _damaged(path: pathlib.Path | None, why: str) -> errors.UserError:
  return errors.UserError(f'{path} is damaged or of another pack ({why}); bring it again.')


def _sha256(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()
