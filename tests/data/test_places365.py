"""Places365-Challenge from small archives with the official layout."""

import hashlib

import numpy as np
import pytest

from senet_jax.data.builders import places365
from senet_jax.errors import UserError
from senet_jax.tools import prepare_data
from tests.helpers.archives import tar_of
from tests.helpers.encoded import encoded
from tests.helpers.stored import read

TRAIN, VAL, LISTS, CATEGORIES, LABELS = places365.MD5S
NAMES = ('airfield', 'apartment_building/outdoor', 'zen_garden')


def jpeg(seed):
  pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
  return encoded(pixels.repeat(64, 0).repeat(64, 1), 'JPEG')


# Unbalanced, as the set is.
IMAGES = {
  f'data_256/{name[0]}/{name}/{i:08d}.jpg': jpeg(10 * label + i)
  for label, name in enumerate(NAMES)
  for i in range(2 + 2 * label)
}
VALIDATION = {f'val_256/Places365_val_{i:08d}.jpg': jpeg(100 + i) for i in range(1, 5)}
VALIDATION_LABELS = [2, 0, 1, 1]
TEXTS = {
  CATEGORIES: ''.join(f'/{n[0]}/{n} {i}\n' for i, n in enumerate(NAMES)).encode(),
  LABELS: ''.join(
    f'{name.split("/")[1]} {label}\n'
    for name, label in zip(VALIDATION, VALIDATION_LABELS, strict=True)
  ).encode(),
}


def label_of(name):
  if name in VALIDATION:
    return VALIDATION_LABELS[list(VALIDATION).index(name)]
  return NAMES.index(name.split('/', 2)[2].rsplit('/', 1)[0])


@pytest.fixture
def small(tmp_path):
  folder = tmp_path / 'archives'
  folder.mkdir()
  for file, content in ((TRAIN, IMAGES), (VAL, VALIDATION), (LISTS, TEXTS)):
    (folder / file).write_bytes(tar_of(content))
  return folder


@pytest.fixture
def official(small, monkeypatch):
  """The small archives, as if they were all there is."""
  for path in small.iterdir():
    monkeypatch.setitem(places365.MD5S, path.name, hashlib.md5(path.read_bytes()).hexdigest())
  for name, content in TEXTS.items():
    monkeypatch.setitem(places365.MD5S, name, hashlib.md5(content).hexdigest())
  return small


def run(source, data_dir, *args):
  prepare_data.main(
    ['--dataset=places365_challenge', f'--source={source}', f'--data_dir={data_dir}', *args]
  )
  return data_dir / 'places365_challenge' / '1.0.0'


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
@pytest.mark.parametrize('unpacked', [False, True])
def test_every_image_with_its_label(official, unpacked, file_format, tmp_path, capsys):
  if unpacked:  # the lists
    (official / LISTS).unlink()
    for name, content in TEXTS.items():
      (official / name).write_bytes(content)
  version_dir = run(official, tmp_path, f'--file_format={file_format}')
  for split, images in (('train', IMAGES), ('validation', VALIDATION)):
    found, names = read(version_dir, split)
    assert found == {name: (data, label_of(name)) for name, data in images.items()}
    assert tuple(names) == NAMES
  out = capsys.readouterr().out
  assert 'train: 12 examples of 8,026,628 official ones\n' in out
  assert 'validation: 4 examples of 36,500 official ones\n' in out
  assert f'3 classes, {file_format} files' in out


def test_names_are_those_of_the_smaller_set():
  """Of tfds, so that a network trained on one can be evaluated on the other."""
  import tensorflow_datasets as tfds

  names = tfds.core.tfds_path('image_classification/categories_places365.txt').read_text().split()
  assert set(NAMES) <= set(names)


@pytest.mark.parametrize('file', [TRAIN, VAL, LISTS])
def test_another_file(official, file, tmp_path):
  data = bytearray((official / file).read_bytes())
  data[600] ^= 1
  (official / file).write_bytes(data)
  with pytest.raises(UserError, match=rf'{file} has MD5 .*: it is damaged or another file'):
    run(official, tmp_path / 'tfds')
  assert not (tmp_path / 'tfds').exists()


@pytest.mark.parametrize('file', [TRAIN, VAL, LISTS])
def test_missing_file(small, file, tmp_path):
  (small / file).unlink()
  missing = 'has no categories_places365.txt' if file == LISTS else f'{file} is missing'
  with pytest.raises(UserError, match=rf'{missing}: .*http://places2\.csail\.mit\.edu'):
    run(small, tmp_path / 'tfds', '--partial')


@pytest.mark.parametrize('args', [[], ['--source=download']])
def test_how_to_get_it(args, tmp_path):
  with pytest.raises(UserError, match=rf'needs {TRAIN}, {VAL} and {LISTS} .*--source=DIR: http'):
    prepare_data.main(['--dataset=places365_challenge', f'--data_dir={tmp_path}', *args])


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    (TRAIN, tar_of({'data_256/b/bar/1.jpg': b''}), r'holds data_256/b/bar/1\.jpg, but .*airfield'),
    (TRAIN, tar_of({'1.jpg': b''}), r'holds 1\.jpg, but the official archive images such as data'),
    (TRAIN, tar_of({}), 'the train archive in .* has 0 images, the official one 8,026,628'),
    (TRAIN, tar_of(IMAGES)[:5000], r'challenge\.tar is truncated or damaged'),
    (VAL, tar_of({'val_256/Places365_val_00000009.jpg': b''}), r'holds val_256/Places365_val_0'),
    (LISTS, tar_of({**TEXTS, CATEGORIES: b'/a/airfield 1\n'}), 'not the labels from 0 on'),
    (LISTS, tar_of({**TEXTS, LABELS: b'airfield\n'}), 'has not a name and a label a line'),
    (LISTS, tar_of({}), r'has no categories_places365\.txt'),
  ],
)
def test_bad_archive(small, file, content, message, tmp_path):
  (small / file).write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    run(small, tmp_path / 'tfds', '--partial')
  assert '\n' not in str(error.value)
  assert not list((tmp_path / 'tfds').glob('*/*'))
