"""A machine without network, TensorFlow, clu or ml_collections: packs, arrays, missing packages."""

import configparser
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from senet_jax import cli
from senet_jax.data import arrays, carry, prepare
from senet_jax.data.builders import cifar
from senet_jax.errors import UserError
from senet_jax.runtime import commit
from senet_jax.tools import prepare_data
from tests.helpers.fake_cifar import FAKE_BATCH_SIZE, FakeCifar

# As `python -m MODULE ARGUMENTS` where the packages REFUSED are not installed.
_BARE = """
import runpy, sys
refused, module, *sys.argv[1:] = sys.argv[1:]
class Refuse:
  def find_spec(name, path=None, target=None):
    if name.partition('.')[0] in refused.split(','):
      raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Refuse)
runpy.run_module(module, run_name='__main__')
"""
TENSORFLOW = 'tensorflow,tensorflow_datasets'
NEW = f'clu,ml_collections,{TENSORFLOW}'
TRAIN = ['main', '--config=configs/digits_se_r20.py', '--workdir={tmp}/run']
COMMANDS = {
  'main': TRAIN,
  'benchmark': ['tools.benchmark', '--models=se_resnet50'],
  'complexity': ['tools.complexity', '--summary', 'se_resnet50'],
  'evaluate': ['tools.evaluate', '--workdir={tmp}'],
  'study': ['tools.study', '--study=configs/studies/ratio.py:small', '--workdir={tmp}'],
}


def bare(refused, command, tmp_path):
  module, *arguments = (part.format(tmp=tmp_path) for part in command)
  line = [sys.executable, '-c', _BARE, refused, f'senet_jax.{module}', *arguments]
  return subprocess.run(line, capture_output=True, text=True, cwd=commit.ROOT)


@pytest.fixture
def fake(monkeypatch, tmp_path):
  """Small CIFAR-10 and CIFAR-100 in `tmp_path / 'source'`."""
  fakes = [FakeCifar(name) for name in cifar.LAYOUTS]
  for one in fakes:
    one.patch(monkeypatch)
    one.write(tmp_path / 'source', 'python')
  return fakes


def pack(tmp_path, monkeypatch, **options):
  """A pack in several parts, each data set in several mosaics."""
  monkeypatch.setattr(carry, '_MOSAIC_PIXELS', 4 * 32 * 32)
  monkeypatch.setattr(carry, '_SHIPPED', ('setup.cfg', 'configs'))
  sources = dict.fromkeys(cifar.LAYOUTS, tmp_path / 'source')
  options = {'sources': sources, 'wheels': (), 'part_bytes': 75_000, **options}
  return carry.pack(tmp_path / 'pack', **options)


def same(a, b):
  assert list(a.splits) == list(b.splits)
  assert (a.name, a.version, a.label_names) == (b.name, b.version, b.label_names)
  for split in a.splits:
    for one, other in zip(a.splits[split], b.splits[split], strict=True):
      np.testing.assert_array_equal(one, other)
      assert one.dtype == other.dtype


# --- missing packages ----------------------------------------------------------------------------


def test_every_required_package_is_known():
  setup = configparser.ConfigParser(inline_comment_prefixes='#')
  setup.read(commit.ROOT / 'setup.cfg')
  lines = setup['options']['install_requires'].replace('[epath]', '').split()
  of_tfds = [line for line in lines if line.startswith(('importlib_resources', 'tensorflow-'))]
  assert {*lines} - {*of_tfds} == {*cli.REQUIRED.values()} - {'wrapt'}
  assert {line.partition('>=')[0] for line in of_tfds} == {*cli.OF_TENSORFLOW.values()} - {
    'TensorFlow',
    'google-crc32c',
  }


@pytest.mark.parametrize('name', COMMANDS)
def test_all_packages_are_missing(name, tmp_path):
  done = bare(','.join([*cli.REQUIRED, *cli.OF_TENSORFLOW]), COMMANDS[name], tmp_path)
  assert done.returncode == 2, done.stderr
  assert done.stderr.count('\n') == 1
  names = [requirement.partition('>=')[0] for requirement in cli.REQUIRED.values()]
  assert f'{", ".join(names)} must be installed' in done.stderr
  assert not list(tmp_path.iterdir())


def test_small_packages_are_missing(tmp_path):
  done = bare(NEW, TRAIN, tmp_path)
  assert (done.returncode, done.stderr) == (
    2,
    'senet_jax: clu, ml-collections must be installed, too: pip install --no-deps clu '
    'ml_collections wrapt (tools.evidence --pack writes what a machine without network needs).\n',
  )
  assert '--workdir' in bare(NEW, ['main', '--help'], tmp_path).stdout


@pytest.mark.parametrize(
  ('command', 'message'),
  [
    (['tools.prepare_data', '--dataset=digits', '--data_dir={tmp}'], r'needs TensorFlow and tfds'),
    (
      ['main', '--config=configs/imagenet_se_r50.py', '--workdir={tmp}/run'],
      r"tfds .*pip install 'senet_jax\[tensorflow\]'",
    ),
  ],
)
def test_tensorflow_is_missing(command, message, tmp_path):
  done = bare(TENSORFLOW, command, tmp_path)
  assert done.returncode == 2, done.stderr
  assert re.fullmatch(f'senet_jax: .*{message}.*--arrays_only.*\n', done.stderr)


def test_other_import_errors(capsys):
  def run(error):
    def command(argv):
      raise error

    with pytest.raises(SystemExit) as end:
      cli.run(command)
    return end.value.code, capsys.readouterr().err

  for error in (ModuleNotFoundError('none', name='senet_jax.x'), ImportError('no name')):
    with pytest.raises(ImportError):
      run(error)
  status, line = run(ImportError("cannot import name 'x' from 'jax'", name='jax'))
  assert status == 2
  assert "the jax that is installed does not fit (cannot import name 'x' from 'jax')" in line


@pytest.mark.parametrize('error', [AttributeError('none of that name'), ImportError(name='jax')])
def test_packages_that_are_too_old(error, monkeypatch, capsys):
  versions = dict.fromkeys(cli.REQUIRED.values(), '2026.9') | {'jax': '0.9.2', 'numpy': '1.26.4'}
  monkeypatch.setattr('importlib.metadata.version', lambda name: versions.get(name, '2026.9'))

  def command(argv):
    raise error

  with pytest.raises(SystemExit, match='2'):
    cli.run(command)
  assert capsys.readouterr().err == (
    'senet_jax: jax>=0.10, numpy>=2.0 is needed, and jax 0.9.2, numpy 1.26.4 is installed: '
    "pip install 'jax>=0.10' 'numpy>=2.0'.\n"
  )


def test_a_python_that_is_too_old(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'version_info', (3, 10, 4))
  source = (commit.ROOT / 'senet_jax' / '__init__.py').read_text()
  with pytest.raises(SystemExit, match='2'):
    exec(source, {})
  assert capsys.readouterr().err.startswith('senet_jax needs Python 3.11 or newer; this is ')


# --- arrays without tfds -------------------------------------------------------------------------


@pytest.mark.parametrize('name', cifar.LAYOUTS)
def test_arrays_of_tfds(name, fake, monkeypatch, tmp_path, capsys):
  """Bit for bit those that are written in the order in which tfds reads its own files."""
  source = tmp_path / 'source'
  by_tfds = prepare.prepare(name, tmp_path / 'tfds', source)
  monkeypatch.setattr(prepare, '_import_tfds', lambda: 1 / 0)
  options = [f'--dataset={name}', f'--data_dir={tmp_path / "bare"}', '--arrays_only']
  prepare_data.main([*options, f'--source={source}'])
  version_dir = arrays.find_arrays(name, tmp_path / 'bare')
  assert version_dir.relative_to(tmp_path / 'bare') == by_tfds.relative_to(tmp_path / 'tfds')
  written = {path.name: path.read_bytes() for path in (version_dir / 'arrays').iterdir()}
  assert written == {path.name: path.read_bytes() for path in (by_tfds / 'arrays').iterdir()}
  batches = {'cifar10': 5, 'cifar100': 1}[name]
  assert f'train: {batches * FAKE_BATCH_SIZE} examples of 32x32x3' in capsys.readouterr().out
  prepare_data.main(options)  # needs no source now
  assert 'already prepared' in capsys.readouterr().out
  with pytest.raises(UserError, match=r'arrays_only takes source=DIR, .*source=download'):
    prepare_data.main([*options, '--overwrite', '--source=download'])


def test_order_of_tfds():
  """Of as many examples as CIFAR has."""
  from tensorflow_datasets.core import hashing

  for split, count in (('train', 50_000), ('test', 10_000)):
    hasher = hashing.Hasher(split)
    assert cifar.tfds_order(split, count) == sorted(range(count), key=hasher.hash_key)


def test_wrong_arrays_only(tmp_path):
  for name, source in (('digits', None), ('tiny_imagenet', tmp_path), ('cifar10', None)):
    with pytest.raises(UserError, match=rf'arrays_only takes .* and not {name} from source='):
      prepare.prepare(name, tmp_path, source, arrays_only=True)
  with pytest.raises(UserError, match='file_format=array_record is of the files'):
    prepare.prepare('cifar10', tmp_path, file_format='array_record', arrays_only=True)
  with pytest.raises(UserError, match='has no files of cifar10'):
    prepare.prepare('cifar10', tmp_path, tmp_path, arrays_only=True)


# --- packs ---------------------------------------------------------------------------------------


def test_pack(fake, monkeypatch, tmp_path):
  parts = pack(tmp_path, monkeypatch)
  assert [part.name for part in parts] == [f'part{i + 1}' for i in range(len(parts))]
  assert len(parts) > 2
  for part in parts:
    assert sum(file.stat().st_size for file in part.iterdir()) < 75_000
  flat = tmp_path / 'flat'
  for part in parts:
    shutil.copytree(part, flat, dirs_exist_ok=True)
  for name in cifar.LAYOUTS:
    published = cifar.read_published(name, tmp_path / 'source')
    same(carry.read_pack(tmp_path / 'pack', name), published)
    same(carry.read_pack(flat, name), published)
  readme = (parts[0] / 'README.txt').read_text()
  assert '--dataset=cifar100 --arrays_only --source=..' in readme
  assert 'pip' not in readme
  # What a machine without any of the packages makes of it.
  command = ['tools.prepare_data', '--dataset=cifar10', '--arrays_only', f'--source={flat}']
  done = bare(NEW, [*command, '--data_dir={tmp}/bare'], tmp_path)
  assert done.returncode == 0, done.stderr
  arrays.check_arrays(tmp_path / 'bare' / 'cifar10' / cifar.VERSION)
  # Arrays that are prepared are a source, too.
  sources = {'cifar10': tmp_path / 'bare'}
  carry.pack(tmp_path / 'second', sources=sources, wheels=(), part_bytes=10**6)
  same(carry.read_pack(tmp_path / 'second', 'cifar10'), carry.read_pack(flat, 'cifar10'))


def test_code_in_a_pack(monkeypatch, tmp_path):
  monkeypatch.setenv(commit.VARIABLE, 'abc1234')
  carry.pack(tmp_path / 'pack', sources={}, wheels=())
  with tarfile.open(tmp_path / 'pack' / 'part1' / 'senet_jax.tar.gz') as tar:
    tar.extractall(tmp_path, filter='data')
    assert all(member.isfile() for member in tar)
  code = tmp_path / carry.CODE_FOLDER
  assert {'senet_jax', 'configs', 'setup.cfg'} <= {path.name for path in code.iterdir()}
  for file in ('senet_jax/main.py', 'senet_jax/data/imagenet_classes.tsv'):
    assert (code / file).read_bytes() == (commit.ROOT / file).read_bytes()
  assert not [p for p in code.glob('results/**/*') if p.is_file() and p.suffix != '.json']
  assert (code / commit.COMMIT_FILE).read_text().rstrip('+\n') == 'abc1234'
  # A pack of what is unpacked has the same files.
  monkeypatch.delenv(commit.VARIABLE)
  for module in (carry, commit):
    monkeypatch.setattr(module, 'ROOT', code)
  carry.pack(tmp_path / 'again', sources={}, wheels=())
  again, first = ((tmp_path / p / 'part1' / 'senet_jax.tar.gz') for p in ('again', 'pack'))
  assert again.read_bytes() == first.read_bytes()


def test_wrong_packs(fake, monkeypatch, tmp_path):
  with pytest.raises(UserError, match=r'part_bytes=1,000 is too small: README\.txt has'):
    pack(tmp_path, monkeypatch, part_bytes=1000)
  with pytest.raises(UserError, match='digits is not prepared as arrays in'):
    pack(tmp_path, monkeypatch, sources={'digits': tmp_path})
  # Nothing is left of a failure, and nothing is overwritten.
  assert {path.name for path in tmp_path.iterdir()} == {'source'}
  with pytest.raises(UserError, match=r'source is not empty; give a new directory'):
    carry.pack(tmp_path / 'source', sources={})


def test_wheels(monkeypatch, tmp_path):
  lines = []

  def pip(command, **options):
    if 'pip' in command:
      lines.append(command)
      (folder,) = tmp_path.glob('*.partial/loose')
      (folder / 'clu-1-py3-none-any.whl').write_bytes(b'wheel')
      return subprocess.CompletedProcess(command, len(lines) - 1, '', 'x\nERROR: no network\n')
    return run(command, **options)

  run = subprocess.run
  monkeypatch.setattr(subprocess, 'run', pip)
  part, *_ = pack(tmp_path, monkeypatch, sources={}, wheels=('clu',), python_version='3.13')
  assert (part / 'clu-1-py3-none-any.whl').is_file()
  assert {'--no-deps', '--only-binary=:all:', '--python-version=3.13', 'clu'} <= set(lines[0])
  assert 'pip install --no-index --no-deps part*/*.whl' in (part / 'README.txt').read_text()
  shutil.rmtree(tmp_path / 'pack')
  with pytest.raises(UserError, match=r'pip cannot download clu .*\(ERROR: no network\); connect'):
    pack(tmp_path, monkeypatch, wheels=('clu',))


def edit(change):
  """Changes the index as `change` does."""

  def damage(folder):
    path = folder / 'part1' / 'pack.json'
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))

  return damage


def labels(folder):
  return next(folder.glob('*/cifar10_train_labels.npz'))


def foreign(folder):
  """The labels of another pack."""
  np.savez_compressed(labels(folder), labels=np.zeros(30, np.int32))


def pickled(folder):
  """Labels that would run code, and an index that knows them."""
  path = labels(folder)
  np.savez_compressed(path, labels=np.array([{}], object))
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  edit(lambda index: index['files'][path.name].update(sha256=digest))(folder)


DAMAGES = {
  'no_part': (lambda d: shutil.rmtree(d / 'part2'), r'lacks part2/cifar10_\w+\.webp; bring that'),
  'no_index': (lambda d: (d / 'part1/pack.json').unlink(), r'arrays_only|no pack'),
  'cut_index': (lambda d: (d / 'part1/pack.json').write_text('{'), 'pack.json is damaged or of'),
  'other_index': (
    lambda d: (d / 'part1/pack.json').write_text('{"format": 2}'),
    'not the contents',
  ),
  'flipped': (
    lambda d: labels(d).write_bytes(labels(d).read_bytes()[:-1] + b'!'),
    'SHA-256 is not',
  ),
  'foreign': (foreign, r'cifar10_train_labels\.npz is damaged or of another pack'),
  'pickled': (pickled, r'cifar10_train_labels\.npz .*it holds no labels: .*allow_pickle'),
  'outside': (
    edit(lambda i: i['files'].update({'../x': {'part': 'part1', 'sha256': ''}})),
    'pack.json .*not the contents',
  ),
  'version': (
    edit(lambda i: i['datasets']['cifar10'].update(version='../../x')),
    'pack.json .*not the contents',
  ),
  'unlisted': (
    edit(lambda i: i['files'].pop('cifar10_train_0.webp')),
    'does not list cifar10_train',
  ),
  'no_images': (
    edit(lambda i: i['datasets']['cifar10']['splits']['train'].update(images={})),
    'not the contents',
  ),
  'other_shape': (
    edit(lambda i: i['datasets']['cifar10']['splits']['train'].update(image_shape=[16, 32, 3])),
    r'train_0\.webp .*it is no mosaic',
  ),
  'other_digest': (
    edit(lambda i: i['datasets']['cifar10']['splits']['test'].update(images_sha256='0')),
    'the images of cifar10, test, are not those',
  ),
  'no_such_set': (edit(lambda i: i['datasets'].pop('cifar10')), r"'cifar10' is unknown; did you"),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_damaged_packs(name, fake, monkeypatch, tmp_path):
  damage, message = DAMAGES[name]
  pack(tmp_path, monkeypatch)
  damage(tmp_path / 'pack')
  with pytest.raises(UserError, match=message):
    carry.read_pack(tmp_path / 'pack', 'cifar10')


# --- the commit of copied code -------------------------------------------------------------------


@pytest.fixture
def copied(monkeypatch, tmp_path):
  """A tree with a commit in its file, outside any repository."""
  (tmp_path / 'senet_jax').mkdir()
  (tmp_path / commit.COMMIT_FILE).write_text('abcdef0123+\n')
  monkeypatch.setattr(commit, 'ROOT', tmp_path)
  monkeypatch.delenv(commit.VARIABLE, raising=False)
  return tmp_path


def test_commit_of_a_copy(copied, monkeypatch):
  assert commit.git_commit() == 'abcdef0123+'
  monkeypatch.setenv(commit.VARIABLE, '1234567')
  assert commit.git_commit() == '1234567'
  monkeypatch.setenv(commit.VARIABLE, 'main')
  with pytest.raises(UserError, match=r"\$SENET_JAX_COMMIT holds 'main', which is no commit"):
    commit.git_commit()
  monkeypatch.delenv(commit.VARIABLE)
  (copied / commit.COMMIT_FILE).write_bytes(b'\xff')
  with pytest.raises(UserError, match=r'COMMIT holds .* correct it or remove it'):
    commit.git_commit()
  (copied / commit.COMMIT_FILE).unlink()
  assert commit.git_commit() is None


def test_commit_of_a_repository(copied, monkeypatch):
  def git(*arguments):
    who = ['-c', 'user.name=x', '-c', 'user.email=x@y']
    command = ['git', '-C', str(copied), *who, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

  git('init')
  assert commit.git_commit() == 'abcdef0123+'  # nothing is committed yet
  (copied / 'x').write_text('1')
  git('add', 'x')
  git('commit', '-m', 'x')
  head = git('rev-parse', 'HEAD')
  assert commit.git_commit() == head
  monkeypatch.setenv(commit.VARIABLE, '1234567')
  assert commit.git_commit() == '1234567'
  (copied / 'x').write_text('2')
  assert commit.git_commit() == '1234567+'  # a change is never hidden
  monkeypatch.delenv(commit.VARIABLE)
  assert commit.git_commit() == f'{head}+'
  # A package inside another project has not its commit.
  monkeypatch.setattr(commit, 'ROOT', copied / 'senet_jax')
  assert commit.git_commit() is None
