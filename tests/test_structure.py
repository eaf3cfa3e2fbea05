"""The house: a room imports only rooms below it; TensorFlow stays outside."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tests.helpers import paths

# Lines of a command, which parses, calls and prints; of a function without its docstring; and
# methods of a class, with those of Python's protocols and properties.
MOST_LINES_OF_A_TOOL, MOST_LINES, MOST_METHODS = 150, 60, 12

PACKAGE = paths.ROOT / 'senet_jax'
# From the ground up; a room imports only rooms above it in this list.
ROOMS = (
  'errors',
  'config',
  'storage',
  'cli',
  'flags',
  'runtime',
  'layers',
  'models',
  'reporting',
  'complexity',
  'interop',
  'diagrams',
  'data',
  'evaluation',
  'detection',
  'workdir',
  'training',
  'prediction',
  'export',
  'excitation',
  'measure',
  'main',
  'serving',
  'tools',
  'console',
)


def module_of(path: pathlib.Path) -> str:
  parts = path.relative_to(PACKAGE.parent).with_suffix('').parts
  return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path): path for path in sorted(PACKAGE.rglob('*.py'))}


def imports_of(path: pathlib.Path) -> set[str]:
  """Modules of the package that a file imports, also inside functions."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        inner = f'{node.module}.{alias.name}'
        found.add(inner if inner in MODULES else node.module)
  return {name for name in found if name in MODULES and name != 'senet_jax'}


@pytest.mark.parametrize('module', [name for name in MODULES if name != 'senet_jax'])
def test_the_order_of_the_rooms(module):
  room = module.split('.')[1]
  for imported in imports_of(MODULES[module]):
    other = imported.split('.')[1]
    assert ROOMS.index(other) <= ROOMS.index(room), f'{module} imports {imported}, from above'
    if room == 'tools':
      assert other != 'tools', f'{module} imports {imported}, another command'


def test_tools_parse_call_and_print():
  lines = {
    name.split('.')[-1]: len(path.read_text().splitlines())
    for name, path in MODULES.items()
    if name.startswith('senet_jax.tools.')
  }
  assert not {name for name, count in lines.items() if count > MOST_LINES_OF_A_TOOL}


def too_long(tree: ast.Module) -> list[str]:
  """Returns the names of the functions with too many lines and the classes of too many methods."""
  functions = (ast.FunctionDef, ast.AsyncFunctionDef)
  found = []
  for node in ast.walk(tree):
    if isinstance(node, functions):
      docstring = ast.get_docstring(node, clean=False)
      lines = node.end_lineno - node.lineno + 1 - (len(docstring.split('\n')) if docstring else 0)
      too_many = lines > MOST_LINES
    elif isinstance(node, ast.ClassDef):
      too_many = sum(isinstance(item, functions) for item in node.body) > MOST_METHODS
    else:
      too_many = False
    if too_many:
      found.append(node.name)
  return found


def test_functions_and_classes_are_short():
  found = {
    f'{module.removeprefix("senet_jax.")}.{name}'
    for module, path in MODULES.items()
    for name in too_long(ast.parse(path.read_text()))
  }
  assert not found


def test_what_is_too_long_is_found():
  doc = '"""Says so.\n' + '\n' * 100 + '  """'
  statements = '\n'.join(['  x = 1'] * MOST_LINES)
  assert too_long(ast.parse(f'def f():\n  {doc}\n  x = 1')) == []
  assert too_long(ast.parse(f'async def f():\n  {doc}\n{statements}')) == ['f']
  methods = '\n'.join(f'  @property\n  def m{i}(self): ...' for i in range(MOST_METHODS))
  assert too_long(ast.parse(f'class A:\n{methods}')) == []
  assert too_long(ast.parse(f'class A:\n{methods}\n  def __len__(self): ...')) == ['A']


def private_members(text: str) -> list[str]:
  """Names beginning with `_` that a file takes from modules of the package."""
  tree, found, modules = ast.parse(text), [], set()
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('senet_jax'):
      modules |= {alias.asname or alias.name for alias in node.names}
      found += [alias.name for alias in node.names if alias.name.startswith('_')]
  for node in ast.walk(tree):
    match node:
      case ast.Attribute(ast.Name(module), name) if module in modules:
        if name.startswith('_') and not name.startswith('__'):
          found.append(f'{module}.{name}')
  return found


def test_tests_use_what_is_public():
  """What a test replaces, lest it takes long, may be private: `monkeypatch` has its name."""
  found = {
    str(path.relative_to(paths.ROOT)): names
    for path in sorted(paths.TESTS.rglob('test_*.py'))
    if (names := private_members(path.read_text()))
  }
  assert not found
  text = 'from senet_jax import cli\nfrom senet_jax.cli import _a, b\ncli._c(cli.d, b, cli.__doc__)'
  assert private_members(text) == ['_a', 'cli._c']


def test_readme_has_the_order():
  text = (PACKAGE.parent / 'README.md').read_text()
  assert ' → '.join(f'`{room}`' for room in reversed(ROOMS)) in ' '.join(text.split())


def test_importing_everything_needs_no_tensorflow():
  modules = sorted(MODULES)
  code = (
    f'import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n'
    "slow = {'tensorflow', 'tensorflow_datasets', 'torch', 'sklearn', 'matplotlib'}\n"
    'assert not slow & set(sys.modules), slow & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
