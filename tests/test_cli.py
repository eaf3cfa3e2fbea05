"""Every mistake a user can make ends in one line and exit status 2, before any device work."""

import importlib
import pathlib
import re
import subprocess
import sys

import pytest

from senet_jax import cli, main
from senet_jax.errors import UserError
from senet_jax.storage import files

BASE = '--config={root}/tests/helpers/default_config.py'


def run(monkeypatch, capsys, *argv: str) -> tuple[int, str]:
  """Runs the main command as `python -m` would; returns the exit status and standard error."""
  monkeypatch.setattr(sys, 'argv', ['main', *argv])
  with pytest.raises(SystemExit) as exit_info:
    cli.run(main.main)
  return exit_info.value.code, capsys.readouterr().err


MISTAKES = {
  'unknown_field': (
    ['--config.model.nam=x'],
    r"'model\.nam' is unknown; did you mean 'model\.name'",
  ),
  'wrong_type': (
    ['--config.batch_size=many'],
    r"batch_size='many' must be a whole number from 1 to .*; it is 128 without this flag",
  ),
  'wrong_boolean': (['--config.data.flip=maybe'], r"flip='maybe' must be True or False; it"),
  'brackets': (['--config.data.mean=' + '(' * 5000], r'mean=.* must be a tuple of'),
  'deep_brackets': (['--config.model.depths=' + '-' * 50_000 + '1'], r'depths=.* must be .*tuple'),
  'long_name': (['--config=' + 'x' * 5000], r'there is no file xxx'),
  'float_for_int': (['--config.seed=2.5'], r"seed='2\.5' must be a whole number"),
  'no_value': (['--config.seed'], r'--config\.seed needs a value'),
  'unknown_flag': (['--wrokdir=x'], r'unrecognized arguments: --wrokdir=x'),
  'unknown_model': (
    ['--config.model.name=se_resnet51'],
    r"model\.name='se_resnet51' is unknown; did you mean .*'se_resnet50'",
  ),
  'se_on_plain': (
    ['--config.model.name=resnet50', '--config.model.se.ratio=8'],
    r"model\.se\.ratio=8 has no effect on 'resnet50'.*'se_resnet50'",
  ),
  'negative': (['--config.optimizer.weight_decay=-1'], r'weight_decay=-1\.0 must be .* least 0'),
  'seed': (['--config.seed=99999999999'], r'seed=99999999999 must be .* from 0 to 2147483647'),
  'factor': (['--config.schedule.factor=1.0'], r'factor=1\.0 must be .* 0 and below 1'),
  'every': (['--config.schedule.every=0'], r'every=0\.0 must be a finite number greater than 0'),
  'drops': (
    ['--config.schedule.name=step', '--config.schedule.every=1e-9'],
    r'schedule\.every=1e-09 makes more than 1000 drops of the learning rate in config\.epochs=',
  ),
  'evaluations': (
    ['--config.schedule.name=cosine', '--config.epochs=1e6', '--config.eval.every_epochs=0.001'],
    r'every_epochs=0\.001 makes more than 1000000 evaluations in config\.epochs=1000000',
  ),
  'evaluations_of_steps': (
    ['--config.steps=2147483647', '--config.schedule.name=cosine'],
    r'every_epochs=1\.0 makes more than 1000000 evaluations in config\.steps=2147483647',
  ),
  'drops_of_epochs': (
    ['--config.steps=2147483647', '--config.eval.every_epochs=1e6'],
    r'every=30\.0 makes more than 1000 drops of the learning rate in config\.steps=2147483647',
  ),
  'parameters': (
    ['--config.model.width=65536'],
    r'config\.model makes a se_resnet50 of [\d,]+ parameters, more than 10,000,000,000',
  ),
  'pad': (['--config.data.pad=9'], r'pad=9 is more than the side of the images, 8'),
  'long_split': (
    ['--config.data.train_split=train[:' + '9' * 4000 + ']'],
    r"data split 'train\[:9+… is not of the form",
  ),
  'depths': (
    ['--config.model.depths=(1,1.5,1)'],
    r'depths=\(1, 1\.5, 1\) must be a tuple of 1 to 10 whole numbers from 1 to 500',
  ),
  'se_ratio_for_width': (['--config.model.width=2'], r'ratio=16 leaves no hidden unit for 8 '),
  'batch_beyond_data': (['--config.batch_size=1440'], r'larger than the 1437 examples of digits'),
  'dataset': (['--config.data.name=mnist'], r"data\.name='mnist' is unknown \(allowed: digits"),
  'split': (['--config.data.eval_split=val'], r"'val' is unknown.*train, test"),
  'devices': (
    ['--config.batch_size=100'],
    r'batch_size=100 is not divisible by the 8 devices; use 96 or 104',
  ),
  'ghost': (
    ['--config.bn.scope=ghost', '--config.bn.ghost_size=5'],
    r'ghost_size=5 does not divide the 16 images',
  ),
  'accumulate': (
    ['--config.optimizer.accumulate=3'],
    r'accumulate=3 does not divide the 16 images',
  ),
  'labels': (
    ['--config.model.num_classes=4'],
    r'outside 0 to 3; change .* config\.model\.num_classes',
  ),
  'not_prepared': (
    ['--config.data.name=cifar100', '--config.data.dir={tmp}'],
    r'cifar100 is not prepared in \S+; run: python -m senet_jax\.tools\.prepare_data '
    r'--dataset=cifar100 --data_dir=\S+ --source=',
  ),
  'init_from': (
    ['--config.init_from={tmp}/x'],
    r'config\.init_from: \S+/x holds no run: there is no such directory; check the path',
  ),
  'workdir_is_file': (['--workdir={tmp}/file'], r'file'),
  'workdir_in_file': (['--workdir={tmp}/file/run'], r'Not a directory: \S+; a part of the path'),
}  # fmt: skip


@pytest.mark.parametrize('mistake', MISTAKES)
def test_one_line_and_status_2(mistake, monkeypatch, capsys, tmp_path, request):
  arguments, pattern = MISTAKES[mistake]
  (tmp_path / 'file').write_text('')
  given = [BASE, '--workdir={tmp}/run', '--config.data.name=digits', *arguments]
  given = [a.format(root=request.config.rootpath, tmp=tmp_path) for a in given]
  status, message = run(monkeypatch, capsys, *given)
  assert status == cli.USER_ERROR
  assert re.fullmatch(r'senet_jax: [^\n]+\n', message), message
  assert re.search(pattern, message), message
  assert not (tmp_path / 'run' / 'checkpoints').exists()


@pytest.mark.parametrize(
  ('text', 'pattern'),
  [
    ('def get_config(): return undefined', r'line 2: NameError: .*undefined'),
    ('def get_config(:', r'syntax'),
    ('import senet_jax.nothing', r'senet_jax\.nothing'),
    (
      'def get_config():\n  c = default()\n  c.lerning_rate = 1\n  return c',
      r"mine\.py, line 4: the field 'lerning_rate' is unknown; did you mean "
      r"'optimizer\.learning_rate'\? "
      r'See --fields for all of them\.$',
    ),
    (
      'def get_config():\n  c = default()\n\n  c.model.update(nam="x")\n  return c',
      r"line 5: the field 'model\.nam' is unknown; did you mean 'model\.name'\? See",
    ),
    ('def get_config():\n  return default().modle', r"line 3: .*'modle' .* mean 'model'\? See"),
    (
      'def get_config():\n  c = default()\n  c.seed = "a"\n  return c',
      r"line 4: config\.seed='a' must be a whole number from 0",
    ),
    (
      'def get_config():\n  c = default()\n  c.model = "resnet50"\n  return c',
      r'line 4: config\.model is no field but has some; set config\.model\.name',
    ),
    ('x = 1', r'there is no function get_config\(\) in it'),
    ('import sys\nsys.exit(0)', r'SystemExit: 0'),
    ('def get_config(): raise SystemExit', r'SystemExit'),
    (
      'def get_config():\n  c = default()\n  with c.unlocked():\n    c.model.se.without = True\n'
      '  return c',
      r'without=True must be a tuple of',
    ),
    (
      'def get_config():\n  c = default()\n  with c.ignore_type():\n    c.model.width = 16.5\n'
      '  return c',
      r'width=16\.5 must be a whole number',
    ),
    ('def get_config(): return None', r'returned NoneType, not a configuration'),
    ('def get_config(): return type(default())({"seed": 1})', r"they differ in 'aux_loss_weight'"),
  ],
)
def test_mistakes_in_a_config_file(text, pattern, monkeypatch, capsys, tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(f'from senet_jax.config import default\n{text}')
  status, message = run(monkeypatch, capsys, f'--config={path}', f'--workdir={tmp_path}')
  assert status == cli.USER_ERROR
  assert re.fullmatch(r'senet_jax: [^\n]+\n', message), message
  assert re.search(pattern, message) and str(path) in message


def test_missing_arguments(monkeypatch, capsys, request):
  status, message = run(monkeypatch, capsys, '--config=configs/nothing.py', '--workdir=x')
  assert status == 2 and 'there is no file configs/nothing.py' in message
  config = BASE.format(root=request.config.rootpath)
  status, message = run(monkeypatch, capsys, config)
  assert status == 2 and '--workdir is missing' in message


def test_print_config_shows_overrides(monkeypatch, capsys, request):
  arguments = ['--print_config', '--config.model.se.stages=(2, 3)', '--noconfig.data.flip']
  arguments += ['--config.model.se.fused=False', '--config.steps=7']
  config = BASE.format(root=request.config.rootpath)
  monkeypatch.setattr(sys, 'argv', ['main', config, *arguments])
  with pytest.raises(SystemExit) as exit_info:
    cli.run(main.main)
  out = capsys.readouterr().out
  assert exit_info.value.code == 0
  assert 'steps: 7' in out and 'flip: false' in out and 'fused: false' in out
  assert re.search(r'stages:\n\s+- 2\n\s+- 3\n', out) and '!!' not in out
  monkeypatch.setattr(sys, 'argv', ['main', config, *arguments, '--config.model.se.fused=auto'])
  with pytest.raises(SystemExit):
    cli.run(main.main)
  assert 'fused: true' in capsys.readouterr().out


def test_help_lists_the_flags_and_where_the_fields_are(monkeypatch, capsys):
  assert main.main(['--help']) == 0
  text = capsys.readouterr().out
  for flag in ('--config NAME', '--config.FIELD', '--workdir', '--print_config', '--fields',
               '--coordinator', '--num_processes', '--process_id', '--hosts_timeout'):  # fmt: skip
    assert f'\n  {flag}' in text
  with pytest.raises(SystemExit) as exit_info:
    main.main(['--fields=model.se.'])
  lines = capsys.readouterr().out.splitlines()
  assert not exit_info.value.code and len(lines) == 9
  assert (
    lines[0] == 'model.se.ratio = 16: reduction ratio: channels over hidden units '
    '(a whole number from 1 to 65536)'
  )
  status, message = run(monkeypatch, capsys, '--fields=nothing')
  assert status == 2 and 'no field begins like that' in message


def test_no_help_waits_for_a_library():
  code = (
    'import contextlib, importlib, io, sys\n'
    'from senet_jax import console\n'
    'for module in console.commands().values():\n'
    '  with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n'
    '    importlib.import_module(module).main(["--help"])\n'
    'slow = {"jax", "flax", "torch", "tensorflow", "matplotlib", "orbax", "PIL", "sklearn",\n'
    '        "safetensors", "rich"} & set(sys.modules)\n'
    'assert not slow, slow\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_user_errors_become_one_line(monkeypatch, capsys):
  def fail(argv):
    raise UserError('two\n  lines')

  monkeypatch.setattr(sys, 'argv', ['x'])
  with pytest.raises(SystemExit) as exit_info:
    cli.run(fail)
  assert exit_info.value.code == 2
  assert capsys.readouterr().err == 'senet_jax: two lines\n'


def test_bugs_keep_their_traceback(monkeypatch):
  def bug(argv):
    raise ValueError('a bug')

  monkeypatch.setattr(sys, 'argv', ['x'])
  with pytest.raises(ValueError, match='a bug'):
    cli.run(bug)


def test_json_is_written_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'sub' / 'x.json'
  files.write_json(path, {'a': 1})
  with pytest.raises(TypeError):
    files.write_json(path, {'a': object()})
  assert path.read_text() == '{\n  "a": 1\n}\n'
  assert [p.name for p in path.parent.iterdir()] == ['x.json']


def test_only_known_errors_of_threads_are_kept_quiet():
  code = (
    'import sys, threading, types\n'
    'from senet_jax import cli\n'
    'def thread(text, module):\n'
    '  scope = {"__name__": module}\n'
    '  exec(f"def fail(): raise RuntimeError({text!r})", scope)\n'
    '  run = threading.Thread(target=scope["fail"])\n'
    '  run.start()\n'
    '  run.join()\n'
    'class Dying:\n'
    '  def __del__(self): raise ValueError("of an object")\n'
    'def command(argv):\n'
    '  thread("of Orbax", "orbax.checkpoint.saving")\n'
    '  thread("Event loop is closed", "asyncio.base_events")\n'
    '  thread("of the feed", "senet_jax.data.feeds")\n'
    '  Dying()\n'
    'cli.run(command)\n'
  )
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
  assert 'RuntimeError: of the feed' in done.stderr and 'ValueError: of an object' in done.stderr
  assert 'Orbax' not in done.stderr and 'closed' not in done.stderr


WRITTEN = {
  'evaluate': ['--output', '--per_class', '--detections', '--confusion', '--figures'],
  'predict': ['--output', '--embeddings'],
  'study': ['--output', '--figure', '--workdir'],
  'prune': ['--output', '--figure', '--to'],
  'activations': ['--output'],
  'benchmark': ['--output'],
  'complexity': ['--output'],
  'convert': ['--to'],
  'evidence': ['--output', '--pack'],
  'export': ['--output', '--to'],
  'latency': ['--output', '--plot'],
  'profile': ['--output', '--trace'],
  'report': ['--curves', '--blocks'],
  'scaling': ['--output'],
}
NEEDED = {
  'activations': ['x'], 'convert': ['--from=x'], 'latency': ['resnet18'], 'predict': ['x', 'y'],
  'profile': ['--config=x'], 'prune': ['x'], 'scaling': ['x'], 'study': ['--study=ratio'],
}  # fmt: skip


@pytest.mark.parametrize(('tool', 'flag'), [(t, f) for t, flags in WRITTEN.items() for f in flags])
def test_what_cannot_be_written_is_told_before_the_work(tool, flag, tmp_path):
  (tmp_path / 'file').write_text('')
  module = importlib.import_module(f'senet_jax.tools.{tool}')
  path = tmp_path / 'file' / 'sub' / 'out.csv'
  given = [f'{flag}={path}', *NEEDED.get(tool, [])]
  needed = {'activations': '--output', 'convert': '--to', 'study': '--workdir'}.get(tool, flag)
  given += [] if needed == flag else [f'{needed}={tmp_path / "out"}']
  with pytest.raises(
    UserError,
    match=rf'^argument {flag}: \S+ cannot be written: Not a directory: {tmp_path}/file; a part',
  ):
    module.main(given)
  assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_a_file_is_no_directory(tmp_path):
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'file').write_text('')
  with pytest.raises(
    UserError, match=r'^argument --output: \S+/folder is a directory; give a file'
  ):
    importlib.import_module('senet_jax.tools.scaling').main(['x', f'--output={tmp_path}/folder'])
  with pytest.raises(
    UserError, match=r'^argument --figures: \S+/file is a file; choose a directory'
  ):
    importlib.import_module('senet_jax.tools.evaluate').main(['x', f'--figures={tmp_path}/file'])
  assert files.unwritable(pathlib.Path('/proc/out/x')) == (
    '/proc/out/x cannot be written: No such file or directory: /proc; check the path'
  )
  assert files.unwritable(tmp_path / 'folder' / 'new' / 'x') is None
  assert not list((tmp_path / 'folder').iterdir())


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('a,b,a,', ('a', 'b')),
    ('r50,r50:model.remat=(2,3),r50:model.remat=(2,)',
     ('r50', 'r50:model.remat=(2,3)', 'r50:model.remat=(2,)')),
  ],
)  # fmt: skip
def test_commas_within_parentheses_are_part_of_a_word(text, expected):
  assert cli.words(text) == expected
