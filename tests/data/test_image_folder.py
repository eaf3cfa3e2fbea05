"""Folders of photos: what is found in them, what is held out, and the packed data set."""

import io
import os
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from senet_jax.data import arrays, image_folder, prepare
from senet_jax.errors import UserError
from senet_jax.tools import prepare_data
from tests.helpers.photos import fill


def many(folder, count):
  return [f'{folder}/{i:03d}.jpg' for i in range(count)]


def of_class(examples, label):
  return {path for path, n in zip(examples.paths, examples.labels, strict=True) if n == label}


@pytest.mark.parametrize('val', ['val', 'validation'])
def test_train_and_val(val, tmp_path):
  fill(tmp_path, 'train/cat/b.jpg', 'train/cat/a.JPEG', 'train/dog/x.png', 'train/cat/in/c.WebP')
  fill(tmp_path, f'{val}/dog/1.jpeg', f'{val}/cat/1.Jpg', 'test/bird/1.jpg')
  fill(tmp_path, 'train/cat/.a.jpg', 'train/.bird/b.jpg', 'train/dog/x.txt', 'train/notes.txt')
  fill(tmp_path, 'train/cat/.cache/c.jpg', 'README', 'train/loose.jpg', 'train/dog/y.jpg.part')
  folder = image_folder.scan(tmp_path)
  assert folder.root == tmp_path
  assert folder.classes == ('cat', 'dog')
  assert list(folder.splits) == ['train', 'val']
  train, held_out = folder.splits.values()
  assert train.paths == [
    'train/cat/a.JPEG',
    'train/cat/b.jpg',
    'train/cat/in/c.WebP',
    'train/dog/x.png',
  ]
  assert held_out.paths == [f'{val}/cat/1.Jpg', f'{val}/dog/1.jpeg']
  np.testing.assert_array_equal(train.labels, [0, 0, 0, 1])
  assert train.labels.dtype == np.int32
  np.testing.assert_array_equal(held_out.labels, [0, 1])


@pytest.mark.parametrize('folder', ['', 'train/'])
def test_train_only(folder, tmp_path):
  fill(tmp_path, f'{folder}cat/a.jpg', f'{folder}dog/a.jpg')
  found = image_folder.scan(str(tmp_path))
  assert list(found.splits) == ['train']
  assert found.splits['train'].paths == [f'{folder}cat/a.jpg', f'{folder}dog/a.jpg']


def test_links_and_home(tmp_path, monkeypatch):
  fill(tmp_path / 'photos', 'a.jpg', 'more/b.jpg')
  root = tmp_path / 'root'
  fill(root, 'dog/1.jpg')
  (root / 'cat').symlink_to(tmp_path / 'photos')
  (root / 'dog' / '2.jpg').symlink_to(tmp_path / 'photos' / 'a.jpg')
  (root / 'dog' / 'more').symlink_to(tmp_path / 'photos' / 'more')
  (root / 'dog' / 'round').symlink_to(root)
  (root / 'dog' / 'self').symlink_to(root / 'dog')
  monkeypatch.setenv('HOME', str(tmp_path))
  paths = image_folder.scan('~/root').splits['train'].paths
  assert paths == ['cat/a.jpg', 'cat/more/b.jpg', 'dog/1.jpg', 'dog/2.jpg', 'dog/more/b.jpg']


@pytest.mark.parametrize(
  ('fraction', 'held_out'), [(0.1, 10), (0.125, 12), (0.001, 1), (0.999, 99)]
)
def test_held_out_share(fraction, held_out, tmp_path):
  fill(tmp_path, *many('a', 100), *many('b', 100), 'c/1.jpg', 'c/2.jpg')
  splits = image_folder.scan(tmp_path, fraction).splits
  assert list(splits) == ['train', 'val']
  np.testing.assert_array_equal(np.bincount(splits['val'].labels), [held_out, held_out, 1])
  np.testing.assert_array_equal(
    np.bincount(splits['train'].labels), [100 - held_out, 100 - held_out, 1]
  )
  everything = image_folder.scan(tmp_path).splits['train'].paths
  assert sorted(splits['train'].paths + splits['val'].paths) == everything
  for examples in splits.values():
    assert examples.paths == sorted(examples.paths)
  # Each class has an order of its own, and it is not that of the names.
  chosen = [{p[2:] for p in of_class(splits['val'], label)} for label in (0, 1)]
  if fraction == 0.1:
    assert chosen[0] != chosen[1]
    assert chosen[0] != {f'{i:03d}.jpg' for i in range(10)}


def test_held_out_images_hardly_change(tmp_path):
  fill(tmp_path / 'one', *many('a', 200), *many('b', 100))
  before = image_folder.scan(tmp_path / 'one', 0.2).splits['val']
  # Written here, so that a later version holds out the same.
  assert before.paths[:4] == ['a/022.jpg', 'a/024.jpg', 'a/037.jpg', 'a/043.jpg']
  # The same elsewhere, and below train/.
  fill(tmp_path / 'two', *many('train/a', 200), *many('train/b', 100))
  again = image_folder.scan(tmp_path / 'two', 0.2).splits['val']
  assert again.paths == [f'train/{path}' for path in before.paths]
  # A tenth more images of class a.
  fill(tmp_path / 'one', *[f'a/new{i}.jpg' for i in range(20)])
  after = image_folder.scan(tmp_path / 'one', 0.2).splits['val']
  assert of_class(after, 1) == of_class(before, 1)
  assert len(of_class(after, 0)) == 44
  assert len(of_class(before, 0) - of_class(after, 0)) <= 4


@pytest.mark.parametrize(
  ('files', 'fraction', 'message'),
  [
    (None, 0, r'root is no directory; expected are train/<class>/\*\.jpg'),
    ([], 0, r'root has no images; expected are train/<class>'),
    (['readme.txt', 'sub/readme.txt'], 0, r'root has no images; expected are train/<class>'),
    (['a.jpg', 'b.jpg'], 0, r'root has images but in no class folder; expected are'),
    (['train/a.jpg', 'val/cat/a.jpg'], 0, r'root/train has images but in no class folder'),
    (['train/cat/a.jpg', 'val/a.jpg'], 0, r'root/val has images but in no class folder; expected'),
    (['train/cat/a.jpg', 'val/.x'], 0, r'root/val has no images; expected are'),
    (['val/cat/a.jpg', 'x/a.jpg'], 0, r'root has val/ but no train/; expected are'),
    (['train/a/1.jpg', 'val/a/1.jpg', 'validation/a/1.jpg'], 0, r'has val/ and validation/; keep'),
    (
      ['a/1.jpg', 'b/1.svg'],
      0,
      r'class folder \S+root/b has no images \(\.jpg .*\); add .*1 \.svg',
    ),
    (['train/a/1.jpg', 'train/b/x', 'val/a/1.jpg'], 0, r'class folder \S+train/b has no images'),
    (
      ['train/a/1.jpg', 'train/b/1.jpg', 'val/a/1.jpg', 'val/b/x'],
      0,
      r'class folder \S+val/b has no images',
    ),
    (
      [*(f'train/{c}/1.jpg' for c in 'abcdef'), 'validation/a/1.jpg', 'validation/z/1.jpg'],
      0,
      r'train/ and validation/ of \S+root have different classes: only train/ has b, c, d and 2 '
      r'more; only validation/ has z; both need',
    ),
    (
      ['train/a/1.jpg', 'train/b/1.jpg', 'val/a/1.jpg'],
      0,
      r'have different classes: only train/ has b; both need',
    ),
    (
      ['train/a/1.jpg', 'val/a/1.jpg'],
      0.1,
      r'val_fraction=0\.1, but \S+root has val/; leave val_f',
    ),
    (
      ['a/1.jpg', 'a/2.jpg', 'b/1.jpg'],
      0.5,
      r'class b of \S+ has one image only, b/1\.jpg, so val',
    ),
    (['a/1.jpg'], 1, r'val_fraction=1 must be at least 0 and less than 1'),
    (['a/1.jpg'], -0.1, r'val_fraction=-0\.1 must be'),
    (['a/1.jpg'], float('nan'), r'val_fraction=nan must be'),
  ],
)
def test_wrong_folders(files, fraction, message, tmp_path):
  root = tmp_path / 'root'
  if files is not None:
    root.mkdir()
    fill(root, *files)
  with pytest.raises(UserError, match=message) as error:
    image_folder.scan(root, fraction)
  assert '\n' not in str(error.value)


def test_a_file_is_no_folder(tmp_path):
  fill(tmp_path, 'photos.zip')
  with pytest.raises(UserError, match=r'photos\.zip is not a directory; expected are'):
    image_folder.scan(tmp_path / 'photos.zip')


def test_real_folder(imagenette):
  folder = image_folder.scan(imagenette)
  assert len(folder.classes) == 10
  assert {split: len(e.paths) for split, e in folder.splits.items()} == {'train': 600, 'val': 200}
  for examples in folder.splits.values():
    for path, label in zip(examples.paths, examples.labels, strict=True):
      assert path.split('/')[1] == folder.classes[label]
      assert (imagenette / path).is_file()


# --- packed ----------------------------------------------------------------------------------


def pack(name, root, data_dir, *args):
  prepare_data.main(
    [f'--dataset={name}', f'--image_folder={root}', f'--data_dir={data_dir}', *args]
  )
  return data_dir / name / '1.0.0'


def read(builder, split):
  """File name -> image as it is stored, and label."""
  import tensorflow_datasets as tfds

  encoded = {'image': tfds.decode.SkipDecoding()}
  if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
    examples = list(builder.as_data_source(split, decoders=encoded))
  else:
    examples = list(builder.as_dataset(split, decoders=encoded).as_numpy_iterator())
  found = {os.fsdecode(e['filename']): (e['image'], int(e['label'])) for e in examples}
  assert len(found) == len(examples) == builder.info.splits[split].num_examples
  return found


def photo(path, size=(6, 4), seed=0, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
  Image.fromarray(pixels).save(path, **options)
  return pixels


@pytest.fixture
def photo_folder(tmp_path):
  for i, name in enumerate(('cat/1.jpg', 'cat/2.png', 'dog/1.jpg', 'dog/2.jpg')):
    photo(tmp_path / 'root' / name, seed=i)
  return tmp_path / 'root'


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_packed_real_photos(imagenette, file_format, tmp_path, capsys):
  import tensorflow_datasets as tfds

  version_dir = pack('nette_10', imagenette, tmp_path, f'--file_format={file_format}')
  first, *others = capsys.readouterr().out.splitlines()
  assert first.startswith(f'{imagenette}: 10 classes, train+val: n01440764 60+20, ')
  assert others == [
    f'preparing {version_dir} ...',
    str(version_dir),
    'train: 600 examples',
    'val: 200 examples',
    f'10 classes, {file_format} files',
  ]
  folder = image_folder.scan(imagenette)
  expected = {
    split: {
      path: ((imagenette / path).read_bytes(), label)
      for path, label in zip(examples.paths, examples.labels.tolist(), strict=True)
    }
    for split, examples in folder.splits.items()
  }
  for builder in (
    tfds.builder_from_directory(version_dir),
    tfds.builder('nette_10', data_dir=tmp_path),
  ):
    assert tuple(builder.info.features['label'].names) == folder.classes
    assert builder.info.features['image'].shape == (None, None, 3)
    assert {split: read(builder, split) for split in expected} == expected
  # Decoded, as anybody would read it.
  if file_format == 'array_record':
    example = tfds.data_source('nette_10', split='val', data_dir=tmp_path)[3]
  else:
    example = next(iter(tfds.load('nette_10', split='val', data_dir=tmp_path).as_numpy_iterator()))
  image = np.asarray(Image.open(imagenette / os.fsdecode(example['filename'])))
  assert np.abs(example['image'].astype(int) - image).mean() < 2  # decoders differ in rounding
  assert arrays.find_arrays('nette_10', tmp_path) is None


def test_packed_val_fraction(photo_folder, tmp_path):
  version_dir = pack('pets', photo_folder, tmp_path, '--val_fraction=0.5')
  info = prepare.read_info(version_dir)
  assert info == {'splits': {'train': 2, 'val': 2}, 'file_format': 'tfrecord', 'num_classes': 2}


def test_packed_photos_are_plain(photo_folder, tmp_path):
  """What a plain decoder would get wrong is stored upright and as RGB."""
  import tensorflow_datasets as tfds

  exif = Image.Exif()
  exif[0x0112] = 6  # turn clockwise
  photo(photo_folder / 'cat' / 'turned.jpg', exif=exif)
  expected = {
    'cat/turned.jpg': Image.open(photo_folder / 'cat' / 'turned.jpg').rotate(-90, expand=1)
  }
  expected['cat/a.webp'] = Image.fromarray(photo(photo_folder / 'cat/a.webp', lossless=True))
  plain = ('cat/1.jpg', 'cat/2.png', 'dog/1.jpg', 'dog/2.jpg')
  version_dir = pack('pets', photo_folder, tmp_path)
  stored = read(tfds.builder_from_directory(version_dir), 'train')
  assert set(stored) == {*plain, *expected}
  for name in plain:
    assert stored[name][0] == (photo_folder / name).read_bytes()
  for name, image in expected.items():
    found = Image.open(io.BytesIO(stored[name][0]))
    assert (found.format, found.mode) == ('PNG', 'RGB')
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image))


def test_packed_strange_names(photo_folder, tmp_path):
  import tensorflow_datasets as tfds

  (photo_folder / 'dog').rename(photo_folder / 'Hündchen, kleine')
  os.rename(photo_folder / 'cat' / '1.jpg', os.fsencode(photo_folder / 'cat') + b'/\xff 1.jpg')
  builder = tfds.builder_from_directory(pack('pets', photo_folder, tmp_path))
  assert builder.info.features['label'].names == ['Hündchen, kleine', 'cat']
  assert set(read(builder, 'train')) == set(image_folder.scan(photo_folder).splits['train'].paths)


def test_unreadable_photo(photo_folder, tmp_path):
  (photo_folder / 'dog' / '2.jpg').write_bytes(b'no photo')
  with pytest.raises(UserError, match=r'root/dog/2\.jpg cannot be read \(.*\); replace or remove'):
    pack('pets', photo_folder, tmp_path / 'tfds')
  assert not list((tmp_path / 'tfds').glob('*/*'))


def test_packed_stays(photo_folder, tmp_path, capsys):
  version_dir = pack('pets', photo_folder, tmp_path)
  info = version_dir / 'dataset_info.json'
  written = info.stat().st_mtime_ns
  pack('pets', photo_folder, tmp_path)
  assert 'already prepared' in capsys.readouterr().out
  with pytest.raises(
    UserError, match=r'already prepared as tfrecord, not .*array_record; .* --overwrite'
  ):
    pack('pets', photo_folder, tmp_path, '--file_format=array_record')
  with pytest.raises(UserError, match='no directory'):
    pack('pets', tmp_path / 'nowhere', tmp_path, '--overwrite')
  assert info.stat().st_mtime_ns == written
  photo(photo_folder / 'bird' / '1.jpg')
  pack('pets', photo_folder, tmp_path, '--overwrite', '--file_format=array_record')
  assert prepare.read_info(version_dir) == {
    'splits': {'train': 5},
    'file_format': 'array_record',
    'num_classes': 3,
  }
  assert [path.name for path in version_dir.parent.iterdir()] == ['1.0.0']


def test_full_disk(photo_folder, tmp_path, monkeypatch):
  import tensorflow as tf
  import tensorflow_datasets as tfds

  text = 'a/b; No space left on device'
  for problem in (tf.errors.ResourceExhaustedError(None, None, text), RuntimeError(text)):
    fail = mock.Mock(side_effect=problem)
    monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', fail)
    with pytest.raises(UserError, match=rf'the disk of {tmp_path} is full; .* another --data_dir'):
      pack('pets', photo_folder, tmp_path)


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('Pets', r"dataset='Pets' cannot name .* lower-case letters, digits and _"),
    ('my-pets', "dataset='my-pets' cannot name"),
    ('1pets', 'cannot name'),
    ('../pets', 'cannot name'),
    ('', 'cannot name'),
    ('cifar10', "dataset='cifar10' is the name of another data set; choose one of your own"),
    ('digits', 'name of another'),
    ('imagenette', 'name of another'),
    ('image_folder', 'name of another'),
  ],
)
def test_wrong_names(name, message, photo_folder, tmp_path):
  with pytest.raises(UserError, match=message):
    pack(name, photo_folder, tmp_path / 'tfds')
  assert not (tmp_path / 'tfds').exists()


def test_scanning_is_light():
  code = (
    'import sys; from senet_jax.data import image_folder, prepare;'
    'assert not {"tensorflow", "tensorflow_datasets"} & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
