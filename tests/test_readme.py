"""README says what is so: names are imported, shapes and lines are those of the code."""

import ast
import builtins
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.config import reading
from senet_jax.layers import SEConfig, excitations
from senet_jax.models import create_model
from senet_jax.training import run
from tests.helpers.paths import ROOT

TEXT = (ROOT / 'README.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
# What the text around a block says is the reader's.
GIVEN = {'images', 'state_dict', 'MyNetwork'}


@pytest.mark.parametrize('block', BLOCKS, ids=lambda block: block.splitlines()[0])
def test_examples_import_what_they_use(block):
  used, known = set(), GIVEN | set(dir(builtins))
  for node in ast.walk(ast.parse(block)):
    if isinstance(node, ast.Name):
      (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
    elif isinstance(node, ast.Import | ast.ImportFrom):
      known |= {(alias.asname or alias.name).partition('.')[0] for alias in node.names}
    elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.arg):
      known.add(getattr(node, 'name', None) or node.arg)
  assert used <= known


def test_shapes_of_gates():
  (first, last) = re.search(r"'SE_2_1': (\[.*?\]), …, 'SE_5_3': (\[.*?\])", TEXT).groups()
  model = create_model('se_resnet50', num_classes=100, se=SEConfig(ratio=8, position='pre'))
  images = jnp.zeros((2, 224, 224, 3))

  def gates(images):
    variables = model.init(jax.random.key(0), images, train=False)
    _, state = model.apply(variables, images, train=False, mutable=['intermediates'])
    return excitations(state['intermediates'])

  found = jax.eval_shape(gates, images)
  assert [list(found[name].shape) for name in ('SE_2_1', 'SE_5_3')] == [eval(first), eval(last)]


def test_the_line_of_the_demo_is_that_of_a_run():
  (shown,) = re.findall(r'\n(se_resnet20_cifar, .*)\n', TEXT)
  config = reading.load(str(ROOT / 'configs' / 'digits_se_r20.py'), [])
  split = lambda n: types.SimpleNamespace(split=types.SimpleNamespace(num_examples=n))  # noqa: E731
  feeds = types.SimpleNamespace(
    mesh=types.SimpleNamespace(size=1), train=split(1437), eval=split(360)
  )
  made = run._what_it_is(config, feeds, 674, {'all': np.zeros(272_095)})
  assert shown.rpartition(';')[0] == made.rpartition(';')[0]
