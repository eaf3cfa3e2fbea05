"""ImageNet from its archives: small ones with the official layout and real photos."""

import io
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from senet_jax.data.builders import imagenet, official as official_files
from senet_jax.errors import UserError
from senet_jax.tools import prepare_data
from tests.helpers import stored
from tests.helpers.archives import tar_of
from tests.helpers.encoded import encoded

TRAIN, VAL, TEST = (f'ILSVRC2012_img_{split}.tar' for split in ('train', 'val', 'test'))
CMYK, PNG = 'n01739381_1309.JPEG', 'n02105855_2933.JPEG'


def write_archives(folder, train, val):
  """`train`: wnid -> file name -> bytes; `val`: file name -> bytes."""
  folder.mkdir(parents=True, exist_ok=True)
  inner = {f'{wnid}.tar': tar_of(images) for wnid, images in train.items()}
  (folder / TRAIN).write_bytes(tar_of(inner))
  (folder / VAL).write_bytes(tar_of(val))
  return folder


def run(source, data_dir, *args):
  prepare_data.main(
    ['--dataset=imagenet2012', f'--source={source}', f'--data_dir={data_dir}', *args]
  )
  return data_dir / 'imagenet2012' / '5.1.0'


def read(version_dir, split):
  """File name -> image as it is stored and wnid, in the order of the files."""
  found, names = stored.read(version_dir, split)
  return {file: (image, names[label]) for file, (image, label) in found.items()}


# Nothing is decoded, so these need not be images.
SMALL_TRAIN = {
  wnid: {f'{wnid}_{i}.JPEG': f'{wnid} {i}'.encode() * 50 for i in (18, 10026)}
  for wnid in ('n01440764', 'n15075141')
}
SMALL_VAL = {f'ILSVRC2012_val_{i:08d}.JPEG': f'val {i}'.encode() * 99 for i in range(1, 6)}


@pytest.fixture
def small(tmp_path):
  return write_archives(tmp_path / 'archives', SMALL_TRAIN, SMALL_VAL)


@pytest.fixture
def official(small, monkeypatch):
  """The small archives, as if they were all there is."""
  monkeypatch.setattr(imagenet, 'SIZES', {f: (small / f).stat().st_size for f in (TRAIN, VAL)})
  monkeypatch.setattr(imagenet, 'COUNTS', {'train': 4, 'validation': 5})
  return small


@pytest.fixture(scope='module')
def real(imagenette, imagenet_sample, tmp_path_factory):
  """Archives of real photos, and what should come out: split -> file name -> bytes, wnid."""
  expected = {'train': {}, 'validation': {}}
  for path in imagenette.glob('*/*/*.JPEG'):
    split = 'validation' if path.name.startswith('ILSVRC2012_val_') else 'train'
    expected[split][path.name] = path.read_bytes(), path.parent.name
  for i, path in enumerate(sorted(imagenet_sample.iterdir())):
    wnid = path.name[:9]
    expected['train'][f'{wnid}_{90000 + i}.JPEG'] = path.read_bytes(), wnid
  train = {}
  for name, (data, wnid) in expected['train'].items():
    train.setdefault(wnid, {})[name] = data
  # As in the official archive, not in the order of the names.
  val = dict(sorted(((n, d) for n, (d, _) in expected['validation'].items()), key=lambda e: e[1]))
  return write_archives(tmp_path_factory.mktemp('archives'), train, val), expected


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_every_real_photo(real, file_format, tmp_path, capsys):
  archives, expected = real
  version_dir = run(archives, tmp_path, '--partial', f'--file_format={file_format}')
  # imagenette sorts photos of the validation archive by class, too: labels of another origin.
  assert {split: read(version_dir, split) for split in expected} == expected
  assert capsys.readouterr().out.splitlines()[1:] == [
    str(version_dir),
    'train: 400 examples of 1,281,167 official ones',
    'validation: 500 examples of 50,000 official ones',
    f'1000 classes, {file_format} files',
  ]
  assert not (version_dir / 'arrays').exists()


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_same_files_as_tfds_alone(small, file_format, tmp_path):
  """With the photos that are no RGB JPEGs, which tfds converts, and the test images."""
  import tensorflow_datasets as tfds

  image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
  images = {CMYK: encoded(image.convert('CMYK'), 'JPEG'), PNG: encoded(image, 'PNG')}
  train = {**SMALL_TRAIN, **{name.split('_')[0]: {name: data} for name, data in images.items()}}
  write_archives(small, train, SMALL_VAL)
  (small / TEST).write_bytes(tar_of({f'test/ILSVRC2012_test_{i:08d}.JPEG': b'?' for i in (1, 2)}))
  ours = run(small, tmp_path / 'ours', '--partial', f'--file_format={file_format}')
  converted = [read(ours, 'train')[name][0] for name in images]
  assert [Image.open(io.BytesIO(data)).mode for data in converted] == ['RGB', 'RGB']
  assert [Image.open(io.BytesIO(data)).format for data in converted] == ['JPEG', 'JPEG']

  builder = tfds.builder_cls('imagenet2012')(data_dir=tmp_path / 'theirs')
  config = tfds.download.DownloadConfig(manual_dir=small)
  builder.download_and_prepare(download_config=config, file_format=file_format)
  theirs = pathlib.Path(builder.data_dir)
  names = {path.name for path in theirs.iterdir()}
  assert names == {path.name for path in ours.iterdir()}
  assert sum(file_format in name for name in names) == 3
  for name in names - {'dataset_info.json'}:
    assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name


def test_official_archives(official, tmp_path, capsys):
  version_dir = run(official, tmp_path)
  assert 'train: 4 examples\nvalidation: 5 examples\n' in capsys.readouterr().out
  train = {name: (data, name[:9]) for of in SMALL_TRAIN.values() for name, data in of.items()}
  assert read(version_dir, 'train') == train
  assert [path.name for path in version_dir.parent.iterdir()] == ['5.1.0']


@pytest.mark.parametrize('file', [TRAIN, VAL])
def test_missing_archive(small, file, tmp_path):
  (small / file).unlink()
  for source in (small, tmp_path / 'nowhere'):
    with pytest.raises(UserError, match=r'img_\w+\.tar is missing: .*https://image-net\.org'):
      run(source, tmp_path / 'tfds', '--partial')
  assert not (tmp_path / 'tfds').exists()


@pytest.mark.parametrize('args', [[], ['--source=download'], ['--partial']])
def test_how_to_get_it(args, tmp_path):
  with pytest.raises(UserError, match=rf'{TRAIN} and {VAL} in .* --source=DIR; .*image-net\.org'):
    prepare_data.main(['--dataset=imagenet2012', f'--data_dir={tmp_path}', *args])


def test_wrong_size(small, tmp_path, monkeypatch):
  size = (small / TRAIN).stat().st_size
  message = rf'{TRAIN} has {size:,} bytes, the official file 147,897,477,120: .* --partial'
  with pytest.raises(UserError, match=message):
    run(small, tmp_path / 'tfds')
  monkeypatch.setattr(imagenet, 'SIZES', {**imagenet.SIZES, TRAIN: size})
  with pytest.raises(
    UserError, match=rf'{VAL} has .* the official file 6,744,924,160: it is trunc'
  ):
    run(small, tmp_path / 'tfds')
  assert not (tmp_path / 'tfds').exists()


def test_official_size_but_not_all_images(official, tmp_path):
  """Such as a download whose end was reserved but never came."""
  data = bytearray((official / VAL).read_bytes())
  data[2048:] = bytes(len(data) - 2048)
  (official / VAL).write_bytes(data)
  with pytest.raises(
    UserError, match=r'imagenet2012 validation .* has 2 images, .* 5; get it again'
  ):
    run(official, tmp_path / 'tfds')
  assert not list((tmp_path / 'tfds').glob('*/*'))


def test_full_disk(small, tmp_path, monkeypatch):
  usage = shutil.disk_usage(tmp_path)._replace(free=12_345_678)
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage)
  monkeypatch.setattr(imagenet, 'SIZES', {TRAIN: 20_000_000, VAL: 1})
  (small / TRAIN).write_bytes(bytes(20_000_000))
  with pytest.raises(UserError, match=r'has 0\.0 GB free, imagenet2012 needs 0\.0 GB; .*data_dir'):
    run(small, tmp_path / 'new' / 'tfds', '--partial')


@pytest.mark.parametrize(
  ('file', 'content', 'message'),
  [
    (TRAIN, tar_of({'n01440764.tar': b''}), r'n01440764\.tar in \S+train\.tar is trunc.*empty'),
    (
      TRAIN,
      tar_of({'n01440764.tar': tar_of(SMALL_TRAIN['n01440764'])[:900]}),
      r'n01440764\.tar in \S+train\.tar is truncated or damaged \(unexpected end of data\); get',
    ),
    (TRAIN, tar_of({'n01440764.tar': tar_of({})}), r'train in \S+ has 0 images, .* 1,281,167'),
    (TRAIN, tar_of({}), r'train in \S+ has 0 images, the official one 1,281,167'),
    (TRAIN, b'', r'ILSVRC2012_img_train\.tar is truncated or damaged \(empty file\)'),
    (TRAIN, b'no archive' * 99, r'ILSVRC2012_img_train\.tar is truncated or damaged'),
    (
      TRAIN,
      tar_of({'train/n01440764/n01440764_18.JPEG': b''}),
      r'holds train/n01440764/n01440764_18\.JPEG, but .* archive a class, such as n01440764\.tar',
    ),
    (TRAIN, tar_of({'n00000000.tar': b''}), r'holds n00000000\.tar, but .*: it is another file'),
    (
      TRAIN,
      tar_of({'n01440764.tar': tar_of({'notes.txt': b''})}),
      r'n01440764\.tar in \S+train\.tar holds notes\.txt, but .* such as n01440764_10026\.JPEG',
    ),
    (VAL, tar_of({'ILSVRC2012_val_00050001.JPEG': b''}), r'val\.tar holds \S+50001\.JPEG, but'),
    (VAL, tar_of({'cat.jpg': b''}), r'holds cat\.jpg, but .* as ILSVRC2012_val_00000001\.JPEG'),
    (VAL, tar_of(SMALL_VAL)[:3000], r'img_val\.tar is truncated or damaged \(unexpected end'),
    (VAL, tar_of({}), r'validation in \S+ has 0 images, the official one 50,000'),
  ],
)
def test_bad_archive(small, file, content, message, tmp_path):
  (small / file).write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    run(small, tmp_path / 'tfds', '--partial')
  assert '\n' not in str(error.value)
  assert not list((tmp_path / 'tfds').glob('*/*'))


def test_an_image_that_is_there_twice(small, tmp_path):
  with tarfile.open(small / VAL, 'a') as tar:
    tar.addfile(tarfile.TarInfo('ILSVRC2012_val_00000002.JPEG'))
  with pytest.raises(UserError, match=r'val\.tar .*\(ILSVRC2012_val_00000002\.JPEG is in it twice'):
    run(small, tmp_path / 'tfds', '--partial')


def test_archives_of_other_writers(small, tmp_path):
  """`tar -cf` of a folder, on a Mac: folders, a leading ./, and hidden files."""
  inner = {f'n01440764/{name}': data for name, data in SMALL_TRAIN['n01440764'].items()}
  inner['n01440764/._n01440764_18.JPEG'] = b'of Finder'
  (small / TRAIN).write_bytes(tar_of({'./n01440764.tar': tar_of(inner), './._n01440764.tar': b''}))
  version_dir = run(small, tmp_path, '--partial')
  assert set(read(version_dir, 'train')) == set(SMALL_TRAIN['n01440764'])


def test_truncated_anywhere():
  """tarfile alone takes an archive without its end for a whole one."""
  files = {'a': b'x' * 700, 'b': b'y' * 10, 'c': b''}
  whole = tar_of(files)
  end = 512 * (1 + 2 + 1 + 1 + 1)
  for size in range(0, end + 512, 64):
    with pytest.raises(UserError, match=r'some\.tar is truncated or damaged'):
      list(official_files.members(io.BytesIO(whole[:size]), 'some.tar'))
  assert dict(official_files.members(io.BytesIO(whole[: end + 512]), 'some.tar')) == files
  damaged = bytearray(whole)
  damaged[512 * 3] ^= 1  # in the header of b
  with pytest.raises(UserError, match='truncated or damaged'):
    list(official_files.members(io.BytesIO(damaged), 'some.tar'))
