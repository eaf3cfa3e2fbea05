"""The command `senet`, and what the wheel has: the configurations, from any directory."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from senet_jax import console
from senet_jax.config import reading
from senet_jax.errors import UserError
from tests.helpers.paths import ROOT


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """The contents of the wheel, where nothing of the checkout is."""
  pytest.importorskip('setuptools')
  directory = tmp_path_factory.mktemp('wheel')
  source = directory / 'source'  # a copy, since setuptools builds where the code is
  unneeded = shutil.ignore_patterns('__pycache__')
  for name in ('senet_jax', 'configs'):
    shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=unneeded)
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(ROOT / name, source)
  command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation']
  subprocess.run([*command, '--wheel-dir', directory, source], check=True, capture_output=True)
  (wheel,) = directory.glob('*.whl')
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(directory / 'site')
  return directory / 'site'


def _senet(installed, cwd, *arguments):
  code = 'from senet_jax.console import main; main()'
  environment = {**os.environ, 'PYTHONPATH': str(installed)}
  return subprocess.run(
    [sys.executable, '-P', '-c', code, *arguments], capture_output=True, text=True, cwd=cwd,
    env=environment,
  )  # fmt: skip


def test_the_wheel_has_the_configurations(installed, tmp_path):
  names = {path.stem for path in (ROOT / 'configs').glob('*.py')}
  done = _senet(installed, tmp_path, 'train', '--config=list')
  assert done.returncode == 0, done.stderr
  assert {line.split()[0] for line in done.stdout.splitlines()} == names
  done = _senet(installed, tmp_path, 'train', '--config=digits_se_r20', '--print_config')
  assert done.returncode == 0 and 'name: se_resnet20_cifar' in done.stdout
  done = _senet(
    installed, tmp_path, 'study', '--study=ratio:small', '--workdir=here', '--table', '--rows=r4'
  )
  assert '`r4`' in done.stdout, done.stderr  # whose rows name files of configs/


@pytest.mark.parametrize(
  ('arguments', 'status', 'message'),
  [(['--help'], 0, 'Trains and evaluates a network.'), ([], 2, 'senet train --config'),
   (['evalute'], 2, "'evaluate'"), (['--version'], 0, '0.1'),
   (['evaluate', '--help'], 0, 'usage: senet evaluate ['),
   (['train', '--help'], 0, 'usage: senet train ['),
   (['predict'], 2, 'and then photos (see senet predict --help)'),
   (['study'], 2, '--study is missing: FILE.py, or one in the package: cifar10_r20, '),
   (['study', '--study=list'], 0, 'ratio '),
   (['train', '--config=digit_se_r20', '--workdir=x'], 2, "did you mean 'digits_se_r20'?")],
)  # fmt: skip
def test_commands(arguments, status, message, tmp_path):
  done = _senet(ROOT, tmp_path, *arguments)
  assert done.returncode == status and message in done.stdout + done.stderr
  assert 'Traceback' not in done.stderr


def test_a_module_is_called_what_was_typed(tmp_path):
  done = subprocess.run(
    [sys.executable, '-m', 'senet_jax.tools.predict'], capture_output=True, text=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)}, cwd=tmp_path,
  )  # fmt: skip
  assert '(see python -m senet_jax.tools.predict --help)' in done.stderr


def test_every_tool_is_a_command():
  tools = {path.stem for path in (ROOT / 'senet_jax' / 'tools').glob('[!_]*.py')}
  assert console.commands().keys() == {'train', *tools}


def test_a_file_comes_before_a_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  own = (
    'from senet_jax import config\n\ndef get_config():\n  return config.cifar("resnet20_cifar")\n'
  )
  (tmp_path / 'digits_se_r20').write_text(own)
  (tmp_path / 'mine.py').write_text(own)
  assert reading.load('mine.py', []).model.name == 'resnet20_cifar'
  assert reading.load('configs/digits_se_r20.py', []).data.name == 'digits'
  with pytest.raises(UserError, match=r'there is no file mine, and none of that name'):
    reading.load('mine', [])


@pytest.mark.parametrize(
  ('line', 'answer'),
  [('senet ', {'train', 'predict'}), ('senet tr', {'train '}), ('senet train', {'train '}),
   ('senet train --wo', {'--workdir '}), ('senet predict --top', {'--top_k '})],
)  # fmt: skip
def test_a_shell_completes(line, answer):
  pytest.importorskip('argcomplete')
  asked = {'_ARGCOMPLETE': '1', 'COMP_LINE': line, 'COMP_POINT': str(len(line)), 'IFS': '\v'}
  code = 'from senet_jax.console import main; main()'
  done = subprocess.run(
    ['bash', '-c', 'exec "$0" -c "$1" 8>&1 9>&2 1>/dev/null', sys.executable, code],
    capture_output=True, text=True, env={**os.environ, **asked, 'PYTHONPATH': str(ROOT)},
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert answer <= set(re.split('[\v\n]', done.stdout))
