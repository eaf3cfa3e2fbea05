"""The preparation of datasets: digits, CIFAR from local files, and the arrays beside them."""

import collections
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from senet_jax.data import arrays, prepare
from senet_jax.data.builders import cifar, digits
from senet_jax.errors import UserError
from senet_jax.tools import prepare_data
from tests.helpers import paths
from tests.helpers.evil import Evil
from tests.helpers.fake_cifar import FAKE_BATCH_SIZE, FakeCifar, md5

REAL_DATA = paths.SHARED_DATA
CIFAR_SETS = ('cifar10', 'cifar100')


@pytest.fixture(params=CIFAR_SETS)
def fake(request, monkeypatch):
  fake = FakeCifar(request.param)
  fake.patch(monkeypatch)
  return fake


@pytest.fixture
def fake10(monkeypatch):
  fake = FakeCifar('cifar10')
  fake.patch(monkeypatch)
  return fake


@pytest.fixture(scope='module')
def digits_dir(tmp_path_factory):
  data_dir = tmp_path_factory.mktemp('tfds')
  assert prepare.prepare('digits', data_dir) == data_dir / 'digits' / '1.0.0'
  return data_dir


def examples(images, labels):
  return collections.Counter((i.tobytes(), int(n)) for i, n in zip(images, labels, strict=True))


def read_tfds(name, data_dir, split):
  import tensorflow_datasets as tfds

  dataset = tfds.load(name, split=split, data_dir=str(data_dir), download=False)
  pairs = [(e['image'], e['label']) for e in dataset.as_numpy_iterator()]
  return np.stack([p[0] for p in pairs]), np.array([p[1] for p in pairs])


def fake_arrays(version_dir, count=3, version='1.0.0'):
  images = np.arange(count * 8, dtype=np.uint8).reshape(count, 2, 2, 2)
  splits = {'train': (images, np.arange(count)), 'test': (images[:1], np.zeros(1, np.int64))}
  arrays.write_arrays(version_dir, 'toy', version, splits, list('abc'))
  return images


def test_digits_are_split_by_class():
  from sklearn import datasets

  train, test = digits.load_split('train'), digits.load_split('test')
  for (images, labels), count in ((train, 1437), (test, 360)):
    assert images.shape == (count, 8, 8, 1)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    expected = np.bincount(datasets.load_digits().target) * count / 1797
    assert np.abs(np.bincount(labels) - expected).max() <= 1
  whole = datasets.load_digits()
  scaled = np.round(whole.images * 255 / 16).astype(np.uint8)
  # Every image once: none is in both.
  assert examples(*train) + examples(*test) == examples(scaled, whole.target)
  with pytest.raises(UserError, match='split'):
    digits.load_split('validation')


@pytest.mark.parametrize('split', ['train', 'test'])
def test_digits_are_the_same_everywhere(digits_dir, split):
  expected = digits.load_split(split)
  by_tfds = read_tfds('digits', digits_dir, split)
  by_arrays = arrays.read_arrays('digits', digits_dir, split)
  for i in range(2):
    np.testing.assert_array_equal(by_tfds[i], expected[i])
    np.testing.assert_array_equal(by_arrays[i], expected[i])
  assert [a.dtype for a in by_arrays] == [np.uint8, np.int32]


def test_arrays_need_no_tensorflow(digits_dir):
  code = (
    'import sys; from senet_jax.data import arrays; from senet_jax.data.builders import digits;'
    f'arrays.read_arrays("digits", {str(digits_dir)!r}, "test"); digits.load_split("test");'
    'assert not {"tensorflow", "tensorflow_datasets"} & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_command(digits_dir, capsys):
  prepare_data.main(['--dataset=digits', f'--data_dir={digits_dir}'])
  out = capsys.readouterr().out
  images = digits.load_split('train')[0] / 255
  assert str(digits_dir / 'digits' / '1.0.0') in out
  assert 'already prepared' in out
  assert 'train: 1437 examples of 8x8x1' in out
  assert f'train mean: {images.mean():.4f}' in out
  assert f'train std:  {images.std():.4f}' in out


def test_relative_data_dir(digits_dir, monkeypatch):
  monkeypatch.chdir(digits_dir.parent)
  assert prepare.prepare('digits', digits_dir.name) == digits_dir / 'digits' / '1.0.0'
  monkeypatch.setenv('HOME', str(digits_dir.parent))
  assert prepare.prepare('digits', f'~/{digits_dir.name}') == digits_dir / 'digits' / '1.0.0'
  assert arrays.find_arrays('digits', f'~/{digits_dir.name}')


@pytest.mark.parametrize('version', ['python', 'binary'])
def test_cifar(fake, version, tmp_path):
  fake.write(tmp_path / 'source', version)
  prepare.prepare(fake.name, tmp_path / 'tfds', tmp_path / 'source')
  for split, count in (('train', len(fake.python) - 1), ('test', 1)):
    by_tfds = read_tfds(fake.name, tmp_path / 'tfds', split)
    by_arrays = arrays.read_arrays(fake.name, tmp_path / 'tfds', split)
    assert len(by_tfds[0]) == count * FAKE_BATCH_SIZE
    assert examples(*by_tfds) == examples(*fake.records(split))
    np.testing.assert_array_equal(by_arrays[0], by_tfds[0])
    np.testing.assert_array_equal(by_arrays[1], by_tfds[1])
  names = arrays.read_index(arrays.find_arrays(fake.name, tmp_path / 'tfds'))['label_names']
  assert names[-1] == {'cifar10': 'truck', 'cifar100': 'worm'}[fake.name]
  assert {p.name for p in (tmp_path / 'tfds').iterdir()} == {fake.name}


@pytest.mark.parametrize('number', [0, 1])
def test_cifar_places(fake, number, monkeypatch, tmp_path):
  """The usual folder, and the archive that holds it, given itself or by its directory."""
  version = ('python', 'binary')[number]
  source, folder = tmp_path / 'source', fake.layout.folders[number]
  fake.write(source / folder, version)
  unpacked = [source]
  archive = tmp_path / 'archives' / list(fake.layout.archives)[number]
  archive.parent.mkdir()
  with tarfile.open(archive, 'w:gz') as tar:
    tar.add(source / folder, folder)
  fake.patch(monkeypatch, archives={archive.name: md5(archive.read_bytes())})
  unpacked += [archive, archive.parent]
  for i, place in enumerate(unpacked):
    out = tmp_path / str(i)
    out.mkdir()
    cifar.unpack(fake.name, place, out)
    binary = out / fake.layout.folders[1]
    assert {f: (binary / f).read_bytes() for f in fake.binary} == fake.binary
    names = {f: (binary / f).read_text().split() for f in fake.layout.label_names}
    assert sorted(map(len, names.values())) == {'cifar10': [10], 'cifar100': [20, 100]}[fake.name]
  fake.patch(monkeypatch, archives={archive.name: '0' * 32})
  with pytest.raises(UserError, match=f'{archive.name} has MD5 .*{"0" * 32}'):
    cifar.unpack(fake.name, archive, tmp_path)


@pytest.mark.parametrize('version', ['python', 'binary'])
def test_wrong_checksum(fake, version, tmp_path):
  source = fake.write(tmp_path / 'source', version)
  file = sorted(getattr(fake, version))[-1]
  good = (source / file).read_bytes()
  (source / file).write_bytes(good + b' ')
  with pytest.raises(UserError) as error:
    prepare.prepare(fake.name, tmp_path / 'tfds', source)
  for part in (file, md5(good), md5(good + b' ')):
    assert part in str(error.value)
  assert not (tmp_path / 'tfds').exists()


@pytest.mark.parametrize('official', [False, True])
def test_malicious_pickle(fake10, official, monkeypatch, tmp_path):
  marker = tmp_path / 'marker'
  fake10.python['data_batch_1'] = pickle.dumps(Evil(marker), protocol=2)
  if official:
    fake10.patch(monkeypatch)
  source = fake10.write(tmp_path / 'source', 'python')
  with pytest.raises(UserError, match='refused to unpickle' if official else 'MD5'):
    prepare.prepare('cifar10', tmp_path / 'tfds', source)
  assert not marker.exists()
  assert not (tmp_path / 'tfds').exists()


def test_missing_files(fake10, tmp_path):
  source = fake10.write(tmp_path / 'source', 'python')
  (source / 'data_batch_3').unlink()
  with pytest.raises(UserError, match='data_batch_3 is missing'):
    prepare.prepare('cifar10', tmp_path / 'tfds', source)
  with pytest.raises(UserError, match=r'has no files of cifar10; .*cifar-10-python\.tar\.gz'):
    prepare.prepare('cifar10', tmp_path / 'tfds', tmp_path / 'nowhere')
  with pytest.raises(UserError, match=r'--dataset=cifar10 .*--source=DIR.*--source=download'):
    prepare.prepare('cifar10', tmp_path / 'tfds')
  assert not (tmp_path / 'tfds').exists()


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['--dataset=cifar'], "did you mean 'cifar10'"),
    (['--dataset=digits', '--source=x'], 'source=x is not for digits, which comes with scikit-l'),
    (['--dataset=cifar10', '--partial'], 'partial=True is not for cifar10, which takes source; '),
    (['--dataset=imagenet2012', '--val_fraction=0.1'], 'imagenet2012, which takes source and part'),
    (['--dataset=pets', '--image_folder=x', '--source=y'], 'source=y is not for pets, which takes'),
    (['--dataset=pets'], r"dataset='pets' is unknown .*digits.* add --image_folder=ROOT"),
    (['--dataset=digits', '--file_format=riegeli'], r"file_format='riegeli' .*tfrecord, array_rec"),
    (['--dataset=digits', '--val_fraction=x'], 'invalid float'),
    (['--dataset=digits', '--data_dir=gs://bucket/tfds'], 'not local'),
    ([], 'required: --dataset'),
  ],
)
def test_wrong_arguments(args, message, tmp_path):
  with pytest.raises(UserError, match=message):
    prepare_data.main([f'--data_dir={tmp_path}', *args])


@pytest.mark.parametrize(
  ('problem', 'message'),
  [
    (OSError('no route to host'), r'no route to host.*--source=DIR'),  # as requests raises it
    (ModuleNotFoundError('no x', name='x'), 'pip install x'),
  ],
)
def test_failed_download(problem, message, monkeypatch, tmp_path):
  import tensorflow_datasets as tfds

  def fail(*args, **kwargs):
    raise problem

  monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', fail)
  with pytest.raises(UserError, match=message):
    prepare.prepare('cifar10', tmp_path, 'download')


@pytest.mark.parametrize('module', ['tensorflow', 'tensorflow_datasets'])
def test_without_tensorflow(module, monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, module, None)
  with pytest.raises(UserError, match=r"pip install 'senet_jax\[tensorflow\]'"):
    prepare.prepare('digits', tmp_path)


def test_only_what_is_missing(fake10, tmp_path, capsys):
  source = fake10.write(tmp_path / 'source', 'binary')
  version_dir = prepare.prepare('cifar10', tmp_path / 'tfds', source)
  info, labels = version_dir / 'dataset_info.json', version_dir / 'arrays' / 'train_labels.npy'
  written = info.stat().st_mtime_ns, labels.stat().st_mtime_ns

  # Nothing is missing: no source is needed.
  prepare.prepare('cifar10', tmp_path / 'tfds')
  assert 'already prepared' in capsys.readouterr().out
  assert written == (info.stat().st_mtime_ns, labels.stat().st_mtime_ns)

  # Arrays with a flipped bit are written again.
  good = labels.read_bytes()
  labels.write_bytes(good[:-1] + b'\1')
  prepare.prepare('cifar10', tmp_path / 'tfds')
  assert labels.read_bytes() == good
  assert info.stat().st_mtime_ns == written[0]

  # A failure leaves what was there; a success replaces it.
  with pytest.raises(UserError, match='no files'):
    prepare.prepare('cifar10', tmp_path / 'tfds', tmp_path / 'nowhere', overwrite=True)
  assert info.stat().st_mtime_ns == written[0]
  prepare.prepare('cifar10', tmp_path / 'tfds', source, overwrite=True)
  assert info.stat().st_mtime_ns > written[0]
  assert labels.read_bytes() == good
  assert [p.name for p in version_dir.parent.iterdir()] == ['3.0.2']


@pytest.mark.parametrize('name', ['digits', 'cifar100'])
def test_array_record(name, monkeypatch, tmp_path):
  """The same examples in the same order, also as arrays."""
  import tensorflow_datasets as tfds

  fake = FakeCifar('cifar100')
  fake.patch(monkeypatch)
  source = fake.write(tmp_path / 'source', 'python') if name == 'cifar100' else None
  versions = {
    file_format: prepare.prepare(name, tmp_path / file_format, source, file_format=file_format)
    for file_format in prepare.FILE_FORMATS
  }
  for split in ('train', 'test'):
    expected = arrays.read_arrays(name, tmp_path / 'tfrecord', split)
    by_arrays = arrays.read_arrays(name, tmp_path / 'array_record', split)
    by_tfds = tfds.data_source(name, split=split, data_dir=tmp_path / 'array_record')
    assert len(by_tfds) == len(expected[0])
    for i, example in enumerate(by_tfds):
      np.testing.assert_array_equal(example['image'], expected[0][i])
      assert example['label'] == expected[1][i]
    for i in range(2):
      np.testing.assert_array_equal(by_arrays[i], expected[i])
  written = (versions['array_record'] / 'dataset_info.json').read_bytes()
  with pytest.raises(UserError, match=r'already prepared as array_record, not as .*--overwrite'):
    prepare.prepare(name, tmp_path / 'array_record')
  assert (versions['array_record'] / 'dataset_info.json').read_bytes() == written


def truncate(path):
  path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
  ('file', 'damage'),
  [
    ('train_images.npy', truncate),
    ('train_images.npy', lambda path: path.write_bytes(b'')),
    ('train_images.npy', lambda path: np.save(path, np.zeros((3, 2, 2, 1), np.uint8))),
    ('train_labels.npy', lambda path: np.save(path, np.zeros(2, np.int32))),
    ('train_labels.npy', lambda path: np.save(path, np.zeros(3, np.int64))),
    ('train_labels.npy', lambda path: np.save(path, np.array([{}] * 3), allow_pickle=True)),
    ('train_labels.npy', lambda path: path.unlink()),
    ('train_labels.npy', lambda path: path.write_bytes(b'\x93NUMPY\1\0\4\0((((' + b' ' * 64)),
    ('arrays.json', lambda path: path.write_text('{')),
    ('arrays.json', lambda path: path.write_text('[' * 100_000)),
    ('arrays.json', lambda path: path.write_bytes(b'\xff\xff')),
    ('arrays.json', lambda path: path.write_text('{"label_names": [], "splits": {"train": 1}}')),
    ('arrays.json', lambda path: path.write_text('{"label_names": [1], "splits": {}}')),
  ],
)
def test_damaged_arrays(file, damage, tmp_path):
  fake_arrays(tmp_path / 'toy' / '1.0.0')
  arrays.read_arrays('toy', tmp_path, 'train')
  damage(tmp_path / 'toy' / '1.0.0' / 'arrays' / file)
  with pytest.raises(UserError, match=f'{file} is missing or damaged.*prepare_data again'):
    arrays.read_arrays('toy', tmp_path, 'train')


def test_newest_version(tmp_path):
  assert arrays.find_arrays('toy', tmp_path) is None
  with pytest.raises(UserError, match='prepare_data --dataset=toy'):
    arrays.read_arrays('toy', tmp_path, 'train')
  for version in ('1.9.0', '1.10.0', '1.2.0'):
    fake_arrays(tmp_path / 'toy' / version, version=version)
  for other in ('2.0.0', '3.0.0.replaced'):  # no arrays; not a version
    (tmp_path / 'toy' / other).mkdir()
  assert arrays.find_arrays('toy', tmp_path) == tmp_path / 'toy' / '1.10.0'
  with pytest.raises(UserError, match='split'):
    arrays.read_arrays('toy', tmp_path, 'validation')


def test_arrays_are_written_whole_or_not_at_all(tmp_path):
  version_dir = tmp_path / 'toy' / '1.0.0'
  fake_arrays(version_dir)
  images = fake_arrays(version_dir, count=2)
  with pytest.raises(ValueError, match='train'):
    arrays.write_arrays(version_dir, 'toy', '1.0.0', {'train': (images, np.zeros(9))}, [])
  assert [p.name for p in version_dir.iterdir()] == ['arrays']
  read, labels = arrays.read_arrays('toy', tmp_path, 'train')
  np.testing.assert_array_equal(read, images)
  np.testing.assert_array_equal(labels, [0, 1])
  assert isinstance(read, np.memmap)
  arrays.check_arrays(version_dir)


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason='the published CIFAR files are not here')
@pytest.mark.parametrize('name', CIFAR_SETS)
def test_published_files(name, tmp_path):
  """The Python batches give the binary files, bit for bit."""
  unpack = [sys.executable, str(REAL_DATA / 'unpack.py'), str(tmp_path), name]
  subprocess.run(unpack, check=True, capture_output=True)
  for out in (tmp_path / 'once', tmp_path / 'twice'):
    out.mkdir()
  layout = cifar.LAYOUTS[name]
  cifar.unpack(name, tmp_path, tmp_path / 'once')
  cifar.unpack(name, tmp_path / 'once', tmp_path / 'twice')  # which checks the MD5s of the binaries
  for stem in layout.files:
    records = np.fromfile(tmp_path / 'twice' / layout.folders[1] / f'{stem}.bin', np.uint8)
    assert len(records) % (3072 + len(layout.label_keys)) == 0
