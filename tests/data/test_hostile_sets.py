"""Prepared data sets that are damaged or hostile, and preparations that meet or are killed."""

import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zipfile

import numpy as np
import pytest

from senet_jax import runtime
from senet_jax.data import arrays, feeds, photos, prepare, sources
from senet_jax.data.builders import official, tiny_imagenet
from senet_jax.errors import UserError
from senet_jax.storage import files
from tests.helpers.small_run import small


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  root = tmp_path_factory.mktemp('prepared')
  prepare.prepare('digits', root)
  return root


@pytest.fixture
def copied(prepared, tmp_path):
  """A copy, and the directory of its files."""
  shutil.copytree(prepared, tmp_path / 'data')
  return tmp_path / 'data' / 'digits' / '1.0.0'


def config_of(version_dir, **fields):
  config = small(data__fake=False, data__feed='stream', data__name='digits', **fields)
  config.data.dir = str(version_dir.parents[1])
  config.data.update({'image_size': 8, 'crop_area': (), 'train_split': 'train'})
  return config


def test_a_flipped_bit_in_a_record_is_seen(copied):
  source = sources.open_source(config_of(copied), 'train')
  (path,) = copied.glob('*train.tfrecord*')
  index = np.load(copied / 'train.index.npz')
  data = bytearray(path.read_bytes())
  for record in (3, 5):  # in the middle of the pixels and of the label
    data[int(index['offset'][record]) + int(index['length'][record]) // 2] ^= 1
  path.write_bytes(data)
  with pytest.raises(OSError, match='its checksum differs'):
    source.read(np.array([3]))
  assert source.read(np.array([4]))[1].shape == (1,)
  feed = feeds.evaluation_feed(config_of(copied), 'train', runtime.data_mesh(1))
  for step in range(len(feed)):
    feed.inputs(step)
  assert sorted(feed.damaged) == [3, 5]


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('filepathTemplate', '{DATASET}-{SPLIT}-{WHAT}', 'tfds says: '),
    ('shardLengths', [], 'split train has no files'),
    (
      'shardLengths',
      [str(10**12)],
      r'is damaged: \d+ bytes cannot hold 1000000000000 records',
    ),
  ],
)
def test_splits_that_cannot_be(field, value, message, copied):
  path = copied / 'dataset_info.json'
  info = json.loads(path.read_text())
  for split in info['splits']:
    split[field] = value
  path.write_text(json.dumps(info))
  with pytest.raises(UserError, match=message):
    sources.open_source(config_of(copied), 'train')


@pytest.mark.parametrize('name', ['module_that_harms.Feature', 'os.path', 5, None, ''])
def test_only_the_features_of_tfds_are_loaded(name, copied, tmp_path, monkeypatch):
  (tmp_path / 'module_that_harms.py').write_text('import pathlib\npathlib.Path("harm").touch()\n')
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  path = copied / 'features.json'
  features = json.loads(path.read_text())
  features['featuresDict']['features']['image']['pythonClassName'] = name
  path.write_text(json.dumps(features))
  for read in (
    lambda: sources.open_source(config_of(copied), 'train'), lambda: prepare.read_info(copied)
  ):  # fmt: skip
    with pytest.raises(UserError, match='asks for the Python class'):
      read()
  assert not (tmp_path / 'harm').exists()


@pytest.mark.parametrize(
  'name', ['huggingface:x', 'huggingface:a/b', 'kaggle:x', '../digits', 'a b']
)
def test_other_collections_open_no_connection(name, copied, monkeypatch):
  def connect(*_):
    raise AssertionError('a connection')

  monkeypatch.setattr(socket.socket, 'connect', connect)
  config = config_of(copied)
  config.data.name = name
  with pytest.raises(UserError, match='is no name of a data set'):
    sources.open_source(config, 'train')


@pytest.mark.parametrize('name', ['digits', 'digits:1.0.0', 'digits:1.*.*'])
def test_versions_are_names(name, copied):
  config = config_of(copied)
  config.data.name = name
  assert sources.open_source(config, 'train').num_examples == 1437


# --- archives ------------------------------------------------------------------------------------


def test_a_member_that_says_it_has_a_terabyte(tmp_path):
  header = tarfile.TarInfo('a.jpg')
  header.size = 2**40
  path = tmp_path / 'a.tar'
  path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**16))
  with pytest.raises(UserError, match='unexpected end of data'):
    list(official.members(path.open('rb'), path))


@pytest.mark.parametrize(
  ('wnids', 'message'),
  [(b'n00000001\n\xff\xfe', 'is not UTF-8'), (b'n00000001\nn00000002\nn00000001\n', 'twice')],
)
def test_lists_of_classes_that_are_wrong(wnids, message, tmp_path):
  (tmp_path / 'wnids.txt').write_bytes(wnids)
  with pytest.raises(UserError, match=message):
    tiny_imagenet.local_builder(tmp_path, tmp_path / 'data', partial=True)


def test_a_file_that_unpacks_to_gigabytes(tmp_path):
  path = tmp_path / tiny_imagenet.ARCHIVE
  with (
    zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive,
    archive.open('tiny-imagenet-200/wnids.txt', 'w') as file,
  ):
    for _ in range(40):
      file.write(bytes(2**20))
  with pytest.raises(UserError, match='has more than 16,777,216 bytes'):
    tiny_imagenet.local_builder(path, tmp_path / 'data', partial=True)


# --- large photos --------------------------------------------------------------------------------


def test_the_limit_of_pixels_can_be_raised(monkeypatch):
  from PIL import Image

  data = io.BytesIO()
  Image.new('1', (12_000, 9_000)).save(data, 'PNG')
  with pytest.raises(photos.UnreadableImage, match=r'12000 x 9000 pixels .*--max_pixels'):
    photos.open_rgb(data.getvalue())
  monkeypatch.setattr(photos, 'most_pixels', photos.most_pixels)
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)
  photos.allow_pixels(108_000_000)
  with photos.opened_rgb(data.getvalue()) as image:
    assert image.size == (12_000, 9_000)


def test_large_images_are_decoded_one_at_a_time():
  import threading

  room, at_once, most = photos.Room(100), [0], []

  def work(pixels):
    with room.room(pixels):
      at_once[0] += pixels
      most.append(at_once[0])
      time.sleep(0.01)
      at_once[0] -= pixels

  threads = [threading.Thread(target=work, args=[pixels]) for pixels in (60, 60, 30, 30, 90) * 3]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert max(most) <= 100 and len(most) == 15
  with room.room(1000):  # more than there is: alone
    pass


# --- preparations that meet, and that are killed -------------------------------------------------


def test_a_second_preparation_is_refused(tmp_path):
  with files.locked(tmp_path / 'digits'), pytest.raises(UserError, match='another --data_dir'):
    prepare.prepare('digits', tmp_path)
  prepare.prepare('digits', tmp_path)


# Forks a process for each `DIRECTORY:WHERE` that it is given, as TensorFlow takes long to import.
# Each prepares the digits anew in the directory, and is killed there. Prints how they ended.
CODE = """
import os, signal, sys
import tensorflow
import tensorflow_datasets as tfds
from senet_jax.data import prepare
from senet_jax.errors import UserError
kill = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
rename = prepare.pathlib.Path.rename
def once(self, target):
  done = rename(self, target)
  if str(target).endswith('.replaced'): kill()
  return done
def run(directory, where):
  if where == 'preparing':
    tfds.core.DatasetInfo.write_to_directory = kill
  elif where == 'replacing':
    prepare._put_back = kill
  elif where == 'set_aside':
    prepare.pathlib.Path.rename = once
  try:
    prepare.prepare('digits', directory, overwrite=True)
  except UserError as error:
    assert 'is in use by process' in str(error)
    return 2
  return 0
children = []
for argument in sys.argv[1:]:
  children.append(os.fork())
  if not children[-1]:
    os._exit(run(*argument.rsplit(':', 1)))
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children), file=sys.stderr)
"""
KILLED = ('preparing', 'replacing', 'set_aside')


@pytest.mark.thorough
def test_kills_and_two_at_once_leave_the_data_set_whole(prepared, tmp_path):
  places = {where: tmp_path / where for where in (*KILLED, 'two')}
  for place in places.values():
    shutil.copytree(prepared, place)
  arguments = [f'{place}:{where}' for where, place in places.items()]
  command = [sys.executable, '-c', CODE, *arguments, arguments[-1]]
  done = subprocess.run(command, capture_output=True, text=True, timeout=300)
  *killed, one, other = map(int, done.stderr.split())
  assert killed == 3 * [-signal.SIGKILL]
  assert sorted((one, other)) in ([0, 0], [0, 2])
  for where, place in places.items():
    versions = place / 'digits'
    if where != 'two':
      assert {p.name for p in versions.iterdir()} > {'.lock'}
      assert prepare.prepare('digits', place) == versions / '1.0.0'  # finds it whole
    assert [p.name for p in versions.iterdir()] == ['1.0.0']
    arrays.check_arrays(versions / '1.0.0')
    splits = prepare.read_info(versions / '1.0.0')['splits']
    assert splits == {'train': 1437, 'test': 360}


def test_a_place_that_cannot_be_written_is_read(copied):
  if os.getuid() == 0:
    pytest.skip('root may write anywhere')
  copied.parent.chmod(0o500)
  try:
    assert prepare.prepare('digits', copied.parents[1]) == pathlib.Path(copied)
  finally:
    copied.parent.chmod(0o700)
