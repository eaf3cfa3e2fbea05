"""The documentation says what is so: its commands, examples, links and messages are the code's."""

import ast
import configparser
import contextlib
import importlib
import pathlib
import re
import subprocess
import sys
import types
import urllib.parse

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax import cli, config as config_lib, console, errors, flags
from senet_jax.config import FIELDS, reading
from senet_jax.models import list_models
from senet_jax.training import run
from tests.helpers import pages
from tests.helpers.paths import ROOT

SHELL = pages.blocks('sh')
PYTHON = pages.blocks('python')
# The code of CONTRIBUTING.md is run by tests/test_contributing.py.
EXAMPLES = sorted({block.page for block in PYTHON} - {'CONTRIBUTING.md'})
# What the text around a block says is the reader's.
GIVEN = {'images', 'state_dict', 'MyNetwork'}
# Programs that are not ours; what is behind them is the reader's affair.
_OTHERS = {
  '.',
  'awk',
  'cd',
  'curl',
  'docker',
  'gcloud',
  'git',
  'grep',
  'head',
  'kubectl',
  'sky',
  'tar',
}
_TRAIN = 'senet_jax.main'
# What a test can run in a second or two: these commands, and of `senet train` what only prints.
_QUICK = {
  'senet_jax.console',
  *(f'senet_jax.tools.{t}' for t in ('complexity', 'predict', 'scaling')),
}
_PRINTS = ('--config=list', '--fields', '--print_config', '--list', '--help')


class _Parsed(Exception):
  """A command line is understood."""


@pytest.fixture
def place(tmp_path, monkeypatch) -> pathlib.Path:
  """A directory like a checkout, in which commands may write, with a photo."""
  for name in ('configs', 'launch', 'results', 'senet_jax'):
    (tmp_path / name).symlink_to(ROOT / name)
  for name in ('constraints.txt', 'Makefile', 'setup.cfg'):
    (tmp_path / name).symlink_to(ROOT / name)
  Image.new('RGB', (40, 32), (90, 120, 200)).save(tmp_path / 'photo.jpg')
  monkeypatch.chdir(tmp_path)
  return tmp_path


# ---- commands


def _ours(words: list[str]) -> tuple[str, list[str]] | None:
  """Returns the module and the arguments of a command of the package; None for another command."""
  if words[0] == 'senet':
    if len(words) == 1 or words[1] in ('--help', '--version'):
      return 'senet_jax.console', words[1:]
    errors.one_of('command', words[1], console.commands())
    return console.commands()[words[1]], words[2:]
  if words[0] == 'mpirun':
    words = words[3:]
  if pathlib.PurePath(words[0]).name in ('python', 'python3') and words[1] == '-m':
    return (words[2], words[3:]) if words[2].startswith('senet_jax') else None
  if words[0] in ('launch/local.sh', 'launch/tpu_vm.sh') and '--' in words:
    return _TRAIN, words[words.index('--') + 1 :]
  if words[0] == 'sbatch':
    return _TRAIN, [w for w in words if w.startswith('--config') or w.startswith('--workdir')]
  return None


def _parse(module: str, arguments: list[str], monkeypatch) -> None:
  """Lets a command read its arguments, and no more; raises what it says of mistakes."""
  arguments = [a for a in arguments if a != '…']
  arguments = ['--config=digits_se_r20' if a == '--config=…' else a for a in arguments]
  overrides = [a for a in arguments if a.startswith((reading.FIELD, reading.NO_FIELD))]
  if module == _TRAIN:
    with contextlib.suppress(SystemExit):
      flags.parse(arguments)
    return
  parse_args = cli.Parser.parse_args

  def parse(self, args=None, namespace=None):
    raise _Parsed(parse_args(self, args, namespace))

  with monkeypatch.context() as patched:
    patched.setattr(cli.Parser, 'parse_args', parse)
    with contextlib.suppress(SystemExit), pytest.raises(_Parsed) as parsed:
      importlib.import_module(module).main(arguments)
  given = vars(parsed.value.args[0])
  if given.get('study'):
    reading.load_study(given['study'])
  if given.get('config') or overrides:
    reading.load(given.get('config') or 'cifar10_se_r20', overrides)


def _check_other(words: list[str]) -> None:
  """Checks what can be checked of a command that is not of the package."""
  program, *rest = words
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  if program == 'make':
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE)
    assert {word for word in rest if '=' not in word} <= set(targets)
  elif program == 'pip' or words[:3] in (
    ['python', '-m', 'pip'],
    ['.venv/bin/python', '-m', 'pip'],
  ):
    for word in rest:
      found = re.fullmatch(r'(?:\.|senet_jax)\[([\w,-]+)\]', word)
      extras = set(found[1].split(',')) if found else set()
      assert extras <= set(setup['options.extras_require']), word
      assert not re.match(r'[\w-]+\.txt$', word) or (ROOT / word).is_file(), word
  elif program.startswith(('launch/', '.venv/')) or program in ('sbatch', 'python', 'mpirun'):
    pass
  else:
    assert program in _OTHERS, f'{program}: a command that this test does not know'
  for word in rest:
    if re.match(r'(launch|configs|results|docs)/[\w/.]+\.\w+$', word) and '>' not in words:
      assert (ROOT / word).exists() or program.startswith('senet'), word


@pytest.mark.parametrize('block', SHELL, ids=str)
def test_commands_are_understood(block, place, monkeypatch):
  for words in pages.commands(block.text):
    ours = _ours(words)
    try:
      if ours and ours[0] != 'senet_jax.console':
        _parse(*ours, monkeypatch)
      elif ours is None:
        _check_other(words)
    except errors.UserError as error:
      pytest.fail(f'{block}: {" ".join(words)}: {error}')


@pytest.mark.parametrize('block', [b for b in SHELL if not b.mark], ids=str)
def test_commands_run(block, place, monkeypatch):
  for words in pages.commands(block.text):
    module, arguments = _ours(words) or (words[0], words[1:])
    if module not in _QUICK and not any(a.startswith(_PRINTS) for a in arguments):
      pytest.fail(f'{block}: {" ".join(words)}: say what it needs, see tests/helpers/pages.py')
    monkeypatch.setattr(sys, 'argv', [module, *arguments])
    if module == 'senet_jax.console':
      with pytest.raises(SystemExit) as end:
        console.main()
      assert not end.value.code
      continue
    with contextlib.suppress(SystemExit):
      assert not importlib.import_module(module).main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize('page', sorted({b.page for b in SHELL if b.mark == 'takes'}))
def test_longer_commands_run(page, place):
  """Those of a page one after the other, in one directory, as a reader would."""
  shims = place / 'bin'
  shims.mkdir()
  for name, what in (('senet', '-m senet_jax.console'), ('python', '')):
    (shims / name).write_text(f'#!/bin/sh\nexec {sys.executable} {what} "$@"\n')
    (shims / name).chmod(0o755)
  for block in SHELL:
    if block.page != page or block.mark == 'needs':
      continue
    shell = f'set -e; PATH={shims}:$PATH PYTHONPATH={ROOT} PYTHON={sys.executable}\nexport PATH '
    shell += f'PYTHONPATH PYTHON\n{block.text}'
    done = subprocess.run(['bash', '-c', shell], capture_output=True, text=True, cwd=place)
    assert done.returncode == 0, f'{block}: {done.stderr}'


@pytest.mark.parametrize('page', pages.PAGES)
def test_fields_within_lines_exist(page):
  for span in pages.spans(page):
    for override in re.findall(r'--(?:no)?config\.(?:[^\s"\']|"[^"]*"|\'[^\']*\')+', span):
      field, _, value = override.partition('=')
      if field.endswith('FIELD') or '…' in override or field.endswith('.X'):
        continue
      name = re.sub(r'^--(no)?config\.', '', field)
      assert name in FIELDS or any(known.startswith(f'{name}.') for known in FIELDS), override
      if value and not value.isupper():
        (word,) = pages.commands(override)[0]
        reading.apply(config_lib.default(), word)


@pytest.mark.parametrize('page', pages.PAGES)
def test_commands_within_lines_are_understood(page, place, monkeypatch):
  for span in pages.spans(page):
    if not span.startswith(('senet ', 'python -m senet_jax.')) or '…' in span:
      continue
    (words, *_) = pages.commands(span)
    if any(word.isupper() and word.isalpha() for word in words[1:2]):  # senet COMMAND
      continue
    module, arguments = _ours(words) or pytest.fail(span)
    if len(arguments) and module != 'senet_jax.console':
      try:
        _parse(module, arguments, monkeypatch)
      except errors.UserError as error:
        if 'required' not in str(error):  # a text may name a flag alone
          pytest.fail(f'{page}: {span}: {error}')


# ---- Python


@pytest.mark.parametrize('page', EXAMPLES)
def test_examples_import_what_they_use(page):
  pages.check_names([block.text for block in PYTHON if block.page == page], GIVEN)


@pytest.mark.parametrize('page', EXAMPLES)
def test_examples_run(page, place):
  """Those of a page one after the other; where a comment shows shapes, they are those."""
  _run_examples(page, {''})


@pytest.mark.slow
@pytest.mark.parametrize('page', sorted({b.page for b in PYTHON if b.mark == 'takes'}))
def test_longer_examples_run(page, place):
  _run_examples(page, {'', 'takes'})


def _run_examples(page: str, marks: set[str]) -> None:
  names: dict = {}
  for block in PYTHON:
    if block.page == page and block.mark in marks:
      exec(compile(block.text, str(block), 'exec'), names)
      _check_shapes(block.text, names)


def _check_shapes(text: str, names: dict) -> None:
  """Checks the shapes in comments behind statements, `# [2, 10]` and `# {'name': [2, 64], …}`."""
  lines = text.splitlines()
  for node in ast.parse(text).body:
    shown = re.search(r'  # (\[\d[\d, ]*\]|\{.*\})', lines[node.end_lineno - 1])
    if not shown:
      continue
    of = node.targets[0] if isinstance(node, ast.Assign) else node.value
    value = eval(ast.unparse(of), names)
    if isinstance(of, ast.Tuple) and len(of.elts) == 1:
      (value,) = value
    shapes = jax.tree.map(lambda leaf: list(np.shape(leaf)), value)
    if shown[1].startswith('['):
      assert shapes == ast.literal_eval(shown[1]), ast.unparse(node)
    for key, shape in re.findall(r"'([^']+)': (\[[\d, ]+\])", shown[1]):
      assert shapes[key] == ast.literal_eval(shape), (ast.unparse(node), shapes)


# ---- links, fields, messages


@pytest.mark.parametrize('page', pages.PAGES)
def test_links_lead_somewhere(page):
  for link in pages.links(page):
    parts = urllib.parse.urlsplit(link)
    if parts.scheme:
      assert parts.scheme in ('http', 'https') and re.fullmatch(r'[\w.-]+\.\w+', parts.netloc), link
      continue
    target = (ROOT / page).parent / parts.path if parts.path else ROOT / page
    assert target.exists(), link
    if parts.fragment and target.suffix == '.md':
      name = target.resolve().relative_to(ROOT).as_posix()
      assert parts.fragment in pages.anchors(name), link


def test_every_field_and_configuration_has_its_place():
  text = pages.text_of('docs/configurations.md')
  shown = set(re.findall(r'^```\{config-fields\} ?(\S*)$', text, re.MULTILINE))
  assert shown == {name.rpartition('.')[0] for name in FIELDS}
  patterns = re.findall(r'^```\{recipes\} (\S+)$', pages.text_of('docs/recipes.md'), re.MULTILINE)
  for name in reading.shipped():
    assert sum(pathlib.PurePath(name).match(pattern) for pattern in patterns) == 1, name


@pytest.mark.parametrize('page', ['docs/troubleshooting.md', 'launch/README.md'])
def test_messages_are_those_of_the_code(page):
  literals = pages.code_literals('senet_jax')
  messages = re.findall(r'^\| (?:`(.+?)`|([^|`"]*…[^|`]*)) \|', pages.text_of(page), re.MULTILINE)
  assert messages
  for message in (quoted or plain for quoted, plain in messages):
    parts = [part.strip() for part in message.removeprefix('warning: ').split('…')]
    assert max(map(len, parts)) >= 7, f'{message}: too little to be found by'
    pattern = re.compile('.*'.join(map(re.escape, parts)))
    assert any(map(pattern.search, literals)), message


@pytest.mark.parametrize('page', ['README.md', 'docs/add_se.md'])
def test_tables_of_networks_name_them_all(page):
  table = pages.text_of(page).partition('| networks, each with and without')[2].partition('\n\n')[0]
  named = set()
  for name, alone in re.findall(r'`(\w+)`( \(SE only\))?', table.partition('\n')[2]):
    named |= {name} if alone else {name, f'se_{name}'}
  assert named == set(list_models())


def test_exit_statuses():
  table = dict(re.findall(r'^\| (\d+) \| (\S+)', pages.text_of('docs/troubleshooting.md'), re.M))
  assert {str(cli.PREEMPTED), str(errors.USER_ERROR), str(cli.NO_READER)} < set(table)


@pytest.mark.parametrize('page', ['README.md', 'docs/first_run.md'])
def test_the_line_of_the_demo_is_that_of_a_run(page):
  found = re.findall(r'\n(se_resnet20_cifar, \d.*)\n', pages.text_of(page))
  config = reading.load('digits_se_r20', [])
  split = lambda n: types.SimpleNamespace(split=types.SimpleNamespace(num_examples=n))  # noqa: E731
  feeds = types.SimpleNamespace(
    mesh=types.SimpleNamespace(size=1), train=split(1437), eval=split(360)
  )
  made = run.describe(config, feeds, 674, {'all': np.zeros(272_095)})
  assert {shown.rpartition(';')[0] for shown in found} == {made.rpartition(';')[0]}
