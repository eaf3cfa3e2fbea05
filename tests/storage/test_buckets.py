"""Runs and data in object storage, against a stand-in for Google Cloud Storage."""

import json
import os
import pathlib

import fsspec
import jax
import numpy as np
import pytest

from senet_jax import cli, runtime
from senet_jax.data import feeds, prepare
from senet_jax.errors import UserError
from senet_jax.storage import buckets, files
from senet_jax.tools import evaluate as evaluate_tool
from senet_jax.training.loop import train
from senet_jax.workdir import saved
from senet_jax.workdir.records import read_records
from tests.helpers import fake_gcs
from tests.helpers.small_run import kill_at, small, summary

pytest.importorskip('gcsfs')


def short():
  """Of 12 steps, 8 an epoch, saved where it is evaluated."""
  return small(steps=12, checkpoint__every_steps=0, checkpoint__keep=2)


@pytest.fixture(scope='module')
def store():
  """The storage; one for all, as TensorStore looks only once where it is."""
  with fake_gcs.FakeGcs() as store, pytest.MonkeyPatch.context() as patch:
    for name, value in store.environment().items():
      patch.setenv(name, value)
    fsspec.get_filesystem_class('gcs').clear_instance_cache()
    yield store


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The same run on a disk."""
  workdir = tmp_path_factory.mktemp('whole')
  assert train(short(), workdir)
  return workdir


def names(store, directory: str) -> set[str]:
  """What lies directly in a directory of the bucket."""
  below = (name for _, name in store.objects if name.startswith(f'{directory}/'))
  return {name.removeprefix(f'{directory}/').split('/')[0] for name in below}


def test_run_in_a_bucket_is_the_run_on_a_disk(store, whole, tmp_path, monkeypatch, capsys):
  with monkeypatch.context() as patch:
    kill_at(patch, 9)
    assert not train(short(), 'gs://bucket/run')
  assert train(short(), 'gs://bucket/run')
  assert 'resumed from step 10' in capsys.readouterr().out
  workdir = buckets.to_path('gs://bucket/run')
  there, here = summary(workdir), summary(whole)
  assert there['params_sha256'] == here['params_sha256']
  assert there['final']['top1_error'] == here['final']['top1_error']
  records, expected = (read_records(x / 'metrics.jsonl') for x in (workdir, whole))
  assert [(r['kind'], r['step']) for r in records] == [(r['kind'], r['step']) for r in expected]
  assert records[-1]['loss'] == expected[-1]['loss']
  assert names(store, 'run') == {
    'checkpoints', 'classes.json', 'config.json', 'curves.png', 'metrics.jsonl', 'summary.json',
  }  # fmt: skip
  assert names(store, 'run/checkpoints') == {'10', '12'} | {str(there['best']['step'])}
  assert store.objects['bucket', 'run/curves.png'][0].startswith(b'\x89PNG')

  output = tmp_path / 'evaluation.json'
  evaluate_tool.main(['--workdir=gs://bucket/run', '--checkpoint=latest', f'--output={output}'])
  assert json.loads(output.read_text())['top1_error'] == pytest.approx(
    there['final']['top1_error'], abs=1e-5
  )
  network = saved.load('gs://bucket/run', 'latest', runtime.data_mesh(1))
  on_disk = saved.load(whole, 'latest', runtime.data_mesh(1))
  assert jax.tree.all(jax.tree.map(np.array_equal, network.variables, on_disk.variables))


def test_damaged_checkpoint_in_a_bucket(store, whole, capsys, monkeypatch):
  with monkeypatch.context() as patch:
    kill_at(patch, 9)
    assert not train(short(), 'gs://bucket/damaged_run')
  steps = sorted(map(int, names(store, 'damaged_run/checkpoints')))
  prefix = f'damaged_run/checkpoints/{steps[-1]}/state/'
  for key in [key for key in store.objects if key[1].startswith(prefix)]:
    store.put(key, store.objects[key][0][:-7])
  assert train(short(), 'gs://bucket/damaged_run')
  assert f'checkpoint {steps[-1]} in gs://bucket' in capsys.readouterr().out
  assert names(store, 'damaged_run/damaged') == {f'{steps[-1]}.0'}
  sha256 = summary(buckets.to_path('gs://bucket/damaged_run'))['params_sha256']
  assert sha256 == summary(whole)['params_sha256']


def test_lines_go_to_the_bucket_once_a_minute(store, monkeypatch):
  path = buckets.to_path('gs://bucket/lines/metrics.jsonl')
  lines = files.Lines(path)
  lines.append('a')
  assert not path.exists()
  lines.flush()
  assert path.read_text() == 'a\n'
  monkeypatch.setattr(files.Lines, '_EVERY_S', 0)
  lines.append('b')
  assert path.read_text() == 'a\nb\n'
  again = files.Lines(path)
  again.append('c')
  assert path.read_text() == 'a\nb\nc\n'


# --- data ----------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def data_dir(store, tmp_path_factory) -> pathlib.Path:
  """Digits as a data set of tfds and as arrays, on a disk and in gs://bucket/data."""
  root = tmp_path_factory.mktemp('data')
  prepare.prepare('digits', root)
  for path in root.rglob('*'):
    if path.is_file():
      store.put(('bucket', f'data/{path.relative_to(root)}'), path.read_bytes())
  return root


def batches(data_dir, count: int) -> list[dict[str, np.ndarray]]:
  config = short()
  config.data.update({'fake': False, 'name': 'digits', 'dir': str(data_dir), 'feed': 'stream'})
  config.data.update({'image_size': 8, 'crop_area': (0.5, 1.0)})
  feed = feeds.training_feed(config, runtime.data_mesh(1))
  return [jax.device_get(feed.inputs(step, 1)[0]) for step in range(count)]


def test_stream_from_a_bucket_is_that_from_a_disk(store, data_dir):
  there, here = batches('gs://bucket/data', 3), batches(data_dir, 3)
  jax.tree.map(np.testing.assert_array_equal, there, here)
  kept = store.objects['bucket', 'data/digits/1.0.0/train.index.npz'][1]
  jax.tree.map(np.testing.assert_array_equal, batches('gs://bucket/data', 1), here[:1])
  assert store.objects['bucket', 'data/digits/1.0.0/train.index.npz'][1] == kept


def test_arrays_from_a_bucket(store, data_dir):
  from senet_jax.data import arrays

  there, here = (arrays.read_arrays('digits', x, 'test') for x in ('gs://bucket/data', data_dir))
  for a, b in zip(there, here, strict=True):
    np.testing.assert_array_equal(a, b)


def test_shard_cut_short_in_a_bucket(store, data_dir):
  for key in [key for key in store.objects if key[1].startswith('data/')]:
    store.put(('bucket', key[1].replace('data/', 'short/')), store.objects[key][0])
  store.objects.pop(('bucket', 'short/digits/1.0.0/train.index.npz'), None)
  shard = next(k for k in store.objects if k[1].startswith('short') and '-train.tfrecord' in k[1])
  store.put(shard, store.objects[shard][0][:-5])
  with pytest.raises(UserError, match=f'{shard[1]} is damaged: it has .* whole records of'):
    batches('gs://bucket/short', 1)
  store.objects.pop(shard)
  with pytest.raises(UserError, match='it is missing'):
    batches('gs://bucket/short', 1)


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('workdir', 'message'),
  [
    ('gs://elsewhere/run', 'cannot be reached: .*check its name'),
    ('s3://bucket/run', 'Orbax writes checkpoints to a file system or to gs://'),
  ],
)
def test_workdirs_that_cannot_be(store, workdir, message):
  if workdir.startswith('s3'):
    pytest.importorskip('s3fs')
  with pytest.raises(UserError, match=message):
    train(short(), workdir)


def test_other_schemes_and_missing_libraries(monkeypatch):
  with pytest.raises(UserError, match=r"'ftp' is unknown.*allowed: gs, s3"):
    buckets.to_path('ftp://bucket/run')
  parser = cli.Parser('main', '')
  parser.add_argument('--workdir', type=cli.path_or_bucket)
  with pytest.raises(UserError, match='allowed: gs, s3'):
    parser.parse_args(['--workdir=ftp://bucket/run'])

  def missing(path):
    raise ImportError('Install s3fs to access S3')

  monkeypatch.setattr(fsspec.core, 'url_to_fs', missing)
  with pytest.raises(UserError, match=r"pip install 'senet_jax\[s3\]'"):
    buckets.to_path('s3://bucket/run')


def test_folder_of_photos_must_be_local(store):
  config = short()
  config.data.update({'fake': False, 'name': 'image_folder', 'dir': 'gs://bucket/photos'})
  config.data.feed = 'stream'
  with pytest.raises(UserError, match='a folder of photos must be local; pack it'):
    feeds.training_feed(config, runtime.data_mesh(1))


def test_write_that_fails_leaves_what_was_there(store):
  path = buckets.to_path('gs://bucket/whole/file')
  files.write_text(path, 'before')
  with pytest.raises(RuntimeError), files.whole(path) as partial:
    partial.write_text('half')
    raise RuntimeError
  assert path.read_text() == 'before'
  assert names(store, 'whole') == {'file'}
  assert not os.path.exists('gs:')
