"""Tiny ImageNet from files with the official layout: small ones, and a real part of it."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from senet_jax.data import arrays, datasets, prepare
from senet_jax.data.builders import tiny_imagenet
from senet_jax.errors import UserError
from senet_jax.tools import prepare_data
from tests.helpers.encoded import encoded

WNIDS = ('n01443537', 'n02002724', 'n07871810')
GREY = {'n02002724_3.JPEG', 'n07871810_0.JPEG', 'val_2.JPEG'}
COUNTS = {'train': 12, 'validation': 6}


def jpeg(name):
  """An image that tells its name by its pixels, grey if it is to be."""
  pixels = np.random.default_rng(list(name.encode())).integers(0, 256, (8, 8, 3), np.uint8)
  image = Image.fromarray(pixels).resize((64, 64))
  return encoded(image.convert('L' if name in GREY else 'RGB'), 'JPEG')


def official_files():
  """Name -> content, with three classes, four training and two validation images of each."""
  train = {f'train/{w}/images/{w}_{i}.JPEG': jpeg(f'{w}_{i}.JPEG') for w in WNIDS for i in range(4)}
  boxes = {f'train/{w}/{w}_boxes.txt': b'1\t2\t3\t4\n' for w in WNIDS}
  val = {f'val/images/val_{i}.JPEG': jpeg(f'val_{i}.JPEG') for i in range(6)}
  labels = ''.join(f'val_{i}.JPEG\t{WNIDS[i % 3]}\t0\t1\t62\t63\n' for i in range(6))
  texts = {
    'val/val_annotations.txt': labels.encode(),
    'wnids.txt': '\n'.join(reversed(WNIDS)).encode() + b'\n',
    'words.txt': b'n01443537\tgoldfish, Carassius auratus\n',
    'test/images/test_0.JPEG': jpeg('test_0.JPEG'),
  }
  return {**train, **boxes, **val, **texts}


def expected(split):
  """File name -> pixels as RGB and label."""
  names = [n for n in official_files() if n.startswith('train' if split == 'train' else 'val')]
  labels = {f'val/images/val_{i}.JPEG': i % 3 for i in range(6)}
  found = {}
  for name in (n for n in names if n.endswith('.JPEG')):
    image = Image.open(io.BytesIO(official_files()[name])).convert('RGB')
    label = labels[name] if split != 'train' else WNIDS.index(name.split('/')[1])
    found[name] = np.asarray(image, int), label
  return found


def write_folder(root, files):
  for name, content in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
  return root


def write_zip(folder, files):
  folder.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(folder / tiny_imagenet.ARCHIVE, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.mkdir('tiny-imagenet-200')
    for name, content in files.items():
      archive.writestr(f'tiny-imagenet-200/{name}', content)
  return folder / tiny_imagenet.ARCHIVE


@pytest.fixture
def official(tmp_path, monkeypatch):
  """A directory with the small archive, as if it were all there is."""
  path = write_zip(tmp_path / 'archives', official_files())
  monkeypatch.setattr(tiny_imagenet, 'MD5', hashlib.md5(path.read_bytes()).hexdigest())
  monkeypatch.setattr(tiny_imagenet, 'COUNTS', COUNTS)
  monkeypatch.setattr(tiny_imagenet, 'CLASSES', 3)
  return path.parent


def run(source, data_dir, *args):
  prepare_data.main(
    ['--dataset=tiny_imagenet', f'--source={source}', f'--data_dir={data_dir}', *args]
  )
  return data_dir / 'tiny_imagenet' / '1.0.0'


def read_tfds(version_dir, split, encoded=False):
  """Examples in their order."""
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(version_dir)
  if builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD:
    return list(builder.as_data_source(split))
  decoders = {'image': tfds.decode.SkipDecoding()} if encoded else None
  return list(builder.as_dataset(split, decoders=decoders).as_numpy_iterator())


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_every_image_with_its_label_and_the_grey_ones_last(official, file_format, tmp_path):
  version_dir = run(official, tmp_path, f'--file_format={file_format}')
  for split, count in COUNTS.items():
    examples = read_tfds(version_dir, split)
    images, labels = arrays.read_arrays('tiny_imagenet', tmp_path, split)
    assert images.shape == (count, 64, 64, 3) and len(examples) == count
    names = [example['file_name'].decode() for example in examples]
    found = expected(split)
    assert set(names) == found.keys()
    for i, (name, example) in enumerate(zip(names, examples, strict=True)):
      np.testing.assert_array_equal(example['image'], images[i])
      assert example['label'] == labels[i] == found[name][1]
      assert np.abs(images[i] - found[name][0]).max() <= 6  # another decoder
    grey = [name.split('/')[-1] in GREY for name in names]
    assert grey == sorted(grey) and sum(grey) == {'train': 2, 'validation': 1}[split]
    assert names[: count - sum(grey)] != sorted(names[: count - sum(grey)])  # shuffled
  assert datasets.class_names('tiny_imagenet', tmp_path) == WNIDS


def test_every_kind_of_source_gives_the_same(official, tmp_path):
  folder = write_folder(tmp_path / 'unpacked' / 'tiny-imagenet-200', official_files())
  sources = (official, official / tiny_imagenet.ARCHIVE, folder, folder.parent)
  indices = []
  for i, source in enumerate(sources):
    version_dir = run(source, tmp_path / str(i))
    indices.append(arrays.read_index(version_dir))
  assert indices.count(indices[0]) == len(sources)
  assert sorted(p.name for p in official.iterdir()) == [tiny_imagenet.ARCHIVE]  # nothing unpacked


def test_download(official, tmp_path, monkeypatch):
  handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(official))
  monkeypatch.setattr(handler.func, 'log_message', lambda *args: None)
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f'http://127.0.0.1:{server.server_port}/{tiny_imagenet.ARCHIVE}'
    monkeypatch.setattr(tiny_imagenet, 'URL', url)
    version_dir = run('download', tmp_path / 'good')
    monkeypatch.setattr(tiny_imagenet, 'MD5', '0' * 32)
    with pytest.raises(UserError, match=f'has MD5 .* official file has {"0" * 32}'):
      run('download', tmp_path / 'bad')
    server.shutdown()
  assert arrays.read_index(version_dir)['splits']['train']['num_examples'] == 12
  assert not (tmp_path / 'bad').exists()


def test_a_part_of_it(official, tmp_path, capsys):
  files = official_files()
  files['wnids.txt'] = '\n'.join(WNIDS[:2]).encode()  # the annotations still name the third
  folder = write_folder(tmp_path / 'part', {k: v for k, v in files.items() if WNIDS[2] not in k})
  with pytest.raises(UserError, match=r'has 2 classes, the official one 3; .* --partial'):
    run(folder, tmp_path / 'tfds')
  run(folder, tmp_path / 'tfds', '--partial')
  out = capsys.readouterr().out
  assert 'train: 8 examples of 64x64x3, of 12 official ones\n' in out
  assert 'validation: 4 examples of 64x64x3, of 6 official ones\n' in out
  images, labels = datasets.load('tiny_imagenet', 'validation[:3]', str(tmp_path / 'tfds'))
  assert len(images) == 3 and set(labels) <= {0, 1}


def lost(files):
  del files['train/n01443537/images/n01443537_0.JPEG']


def no_lists(files):
  del files['val/val_annotations.txt']


def no_image(files):
  files['val/images/val_3.JPEG'] = b'text'


def too_large(files):
  files['val/images/val_3.JPEG'] = encoded(Image.new('RGB', (65, 64)), 'JPEG')


def no_label(files):
  files['val/val_annotations.txt'] = files['val/val_annotations.txt'].replace(b'val_5', b'val_6')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lost, 'the train part of .* has 11 images, the official one 12'),
    (no_lists, r'has no val/val_annotations\.txt: .*http'),
    (no_image, r'val_3\.JPEG of .* is no JPEG'),
    (too_large, r'val_3\.JPEG of .* is a RGB image of 65x64'),
    (no_label, r"val_5\.JPEG of .* has the class '', which is not in wnids\.txt"),
  ],
)
def test_files_that_are_not_the_official_ones(official, change, message, tmp_path):
  files = official_files()
  change(files)
  folder = write_folder(tmp_path / 'folder', files)
  with pytest.raises(UserError, match=message) as error:
    run(folder, tmp_path / 'tfds')
  assert '\n' not in str(error.value)
  assert not list((tmp_path / 'tfds').glob('*/*'))


def test_another_archive(official, tmp_path):
  archive = official / tiny_imagenet.ARCHIVE
  data = archive.read_bytes()
  archive.write_bytes(data[:-5])
  with pytest.raises(UserError, match=r'200\.zip has MD5 .*: it is damaged or another file'):
    run(official, tmp_path / 'tfds')
  with pytest.raises(UserError, match=r'200\.zip is damaged or no zip archive'):
    run(official, tmp_path / 'tfds', '--partial')
  at = data.index(b'\xff\xd8')  # in an image
  archive.write_bytes(data[: at + 200] + bytes([data[at + 200] ^ 1]) + data[at + 201 :])
  with pytest.raises(UserError, match='is damaged or no zip archive'):
    run(official, tmp_path / 'tfds', '--partial')


@pytest.mark.parametrize('source', [None, 'nowhere'])
def test_how_to_get_it(source, tmp_path):
  args = [f'--source={tmp_path / source}'] if source else []
  with pytest.raises(UserError, match=r'needs tiny-imagenet-200\.zip, .*--source=download gets it'):
    prepare_data.main(['--dataset=tiny_imagenet', f'--data_dir={tmp_path}', *args])


def test_a_real_part(shared_data, tmp_path):
  """Its first examples are a sample of it; images in colour come first."""
  name = 'tiny-imagenet-20c-250'
  with tarfile.open(shared_data / f'{name}.tar.xz') as archive:
    archive.extractall(tmp_path, filter='data')
  for path in (tmp_path / name / 'train').glob('*/images/*_1[0-9]?.JPEG'):
    path.unlink()  # fewer take less time
  version_dir = prepare.prepare('tiny_imagenet', tmp_path, tmp_path / name, partial=True)
  examples = read_tfds(version_dir, 'train', encoded=True)
  images, labels = arrays.read_arrays('tiny_imagenet', tmp_path, 'train')
  grey = [Image.open(io.BytesIO(example['image'])).mode == 'L' for example in examples]
  assert grey == sorted(grey) and 0 < sum(grey) < 0.05 * len(grey)
  assert all((image == image[..., :1]).all() for image in images[np.array(grey)])
  assert np.bincount(labels[: len(labels) // 4], minlength=20).min() > 0
  info = datasets.dataset_info('tiny_imagenet')
  mean, std = arrays.channel_statistics(images)
  np.testing.assert_allclose(mean * 255, info.mean, rtol=0.05)
  np.testing.assert_allclose(std * 255, info.std, rtol=0.05)
