"""The house: a floor imports only floors below it, without circles; TensorFlow stays outside."""

import ast
import graphlib
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[1] / 'senet_jax'
FLOORS = (
  {'errors', 'buckets', 'files', 'cli'},
  {'config', 'flags', 'layers', 'models', 'data', 'interop', 'runtime'},
  {'training', 'evaluation', 'analysis', 'measure', 'prediction'},
  {'main', 'tools'},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


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
def test_floors(module):
  room = module.split('.')[1]
  for imported in imports_of(MODULES[module]):
    other = imported.split('.')[1]
    assert LEVEL[other] <= LEVEL[room], f'{module} imports {imported} from a floor above'
    if room in ('models', 'layers'):
      assert other != 'data', f'{module} imports {imported}'


def test_no_circles():
  rooms = {}
  for module, path in MODULES.items():
    if module != 'senet_jax':
      room = module.split('.')[1]
      rooms.setdefault(room, set()).update(m.split('.')[1] for m in imports_of(path))
  graph = {room: imported - {room} for room, imported in rooms.items()}
  assert list(graphlib.TopologicalSorter(graph).static_order())


def test_importing_everything_needs_no_tensorflow():
  modules = sorted(MODULES)
  code = (
    f'import importlib, sys\nfor name in {modules}: importlib.import_module(name)\n'
    "slow = {'tensorflow', 'tensorflow_datasets', 'torch', 'sklearn', 'matplotlib'}\n"
    'assert not slow & set(sys.modules), slow & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
