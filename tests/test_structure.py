"""The house: a room imports only rooms below it; TensorFlow stays outside."""

import ast
import pathlib
import subprocess
import sys

import pytest

from tests.helpers import paths

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
  'complexity',
  'interop',
  'reporting',
  'diagrams',
  'data',
  'evaluation',
  'workdir',
  'training',
  'prediction',
  'excitation',
  'measure',
  'main',
  'tools',
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
