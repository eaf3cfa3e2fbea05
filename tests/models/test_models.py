"""The registry, the variable trees of all networks, and options of residual ones.

`python -m tests.models.test_models --write` writes the golden trees in `tests/golden` anew.
"""

import functools
import hashlib
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.layers import BlockAttention, SEConfig
from senet_jax.models import Preprocessing, create_model, list_models, model_info
from senet_jax.models.resnet import BlockOptions, ResidualBlock
from tests.helpers import paths
from tests.helpers.models import some_images, tree_of, variables_of


@pytest.mark.parametrize('override', [{'stride_in': '3x3'}, {'pool_align': 'torch'}])
def test_options_of_geometry_leave_the_variables_alone(override):
  assert tree_of(create_model('se_resnet50', **override)) == tree_of(create_model('se_resnet50'))


# The variable tree is the schema of every checkpoint.

GOLDEN = paths.TESTS / 'golden'
ALL_TREES = GOLDEN / 'all.txt'
# Those whose trees are there in words, too.
GOLDEN_MODELS = sorted(path.stem for path in GOLDEN.glob('*.txt') if path != ALL_TREES)


def described(tree) -> str:
  """One line `collection/path shape dtype` for each leaf."""
  leaves = jax.tree.leaves_with_path(tree)
  lines = ['/'.join(p.key for p in path) + f' {x.shape} {x.dtype}' for path, x in leaves]
  return '\n'.join(sorted(lines)) + '\n'


def golden_tree(name):
  return described(tree_of(create_model(name), model_info(name).image_size))


def digest(name) -> str:
  """The line `name sha256 count` of a network: of its golden tree and the number of variables."""
  tree = golden_tree(name)
  return f'{name} {hashlib.sha256(tree.encode()).hexdigest()} {tree.count(chr(10))}'


def test_golden_trees_of_all_networks_are_there():
  names = [line.split()[0] for line in ALL_TREES.read_text().splitlines()]
  assert names == list_models(), 'python -m tests.models.test_models --write'


@pytest.mark.parametrize('name', list_models())
def test_golden_variable_tree(name):
  meant = (
    f'the variables of {name} are not those of tests/golden: checkpoints written before no longer '
    'load. If that is meant: python -m tests.models.test_models --write'
  )
  if name in GOLDEN_MODELS:
    assert golden_tree(name) == (GOLDEN / f'{name}.txt').read_text(), meant
  expected = {line.split()[0]: line for line in ALL_TREES.read_text().splitlines()}
  assert digest(name) == expected.get(name), meant


# The registry.


def test_list_models():
  names = list_models()
  assert names == sorted(names)
  cifar = ['resnet20_cifar', 'resnet110_cifar', 'resnet164_cifar']
  paper = ['resnet18', 'resnet34', 'resnet50', 'resnet101', 'resnet152']
  for name in [*paper, 'resnext50_32x4d', 'resnext101_32x4d', *cifar]:
    assert {name, f'se_{name}'} <= set(names)
  assert set(list_models('se_*')) == {name for name in names if name.startswith('se_')}
  assert list_models('se_resnet?0') == ['se_resnet50']
  assert list_models('nothing*') == []


PHOTOS = (123.0, 117.0, 104.0), (1.0, 1.0, 1.0)
OF_DATA, OF_BYTES = Preprocessing(), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
HALF = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)
# Side of the images, classes, preprocessing, epsilon of BN; those of families, and what differs.
INFO = {
  **dict.fromkeys(
    ('resnet', 'resnext', 'senet', 'vgg', 'mobilenet', 'shufflenet', 'inception'),
    (224, 1000, Preprocessing(*PHOTOS, 256), 1e-5),
  ),
  **dict.fromkeys(('resnet_cifar', 'wrn', 'shake'), (32, 10, OF_DATA, 1e-5)),
  'shake_even29_2x4x64d': (32, 100, OF_DATA, 1e-5),
  'inception_v3': (299, 1000, Preprocessing(*HALF, 352), 1e-3),
  'inception_resnet': (299, 1000, Preprocessing(*PHOTOS, 352), 1e-3),
  'inception_cifar': (200, 10, Preprocessing(*OF_BYTES, 200), 1e-3),
  'resnet_student': (32, 10, Preprocessing(*OF_BYTES), 1e-3),
  **dict.fromkeys(
    ('resnet18_tiny', 'resnet34_tiny', 'resnet50_tiny'), (64, 200, Preprocessing(*OF_BYTES), 1e-3)
  ),
}


@pytest.mark.parametrize('name', list_models())
def test_model_info(name):
  """The published errors are compared by `tests/config/test_configs.py`."""
  info, plain = model_info(name), name.removeprefix('se_')
  expected = INFO.get(plain) or INFO[info.family]
  found = (info.image_size, info.num_classes, info.preprocessing, info.bn_epsilon)
  assert found == expected
  assert (info.name, info.se) == (name, plain != name or name == 'senet154')
  assert plain == name or info.family == model_info(plain).family
  model = create_model(name)
  assert (model.num_classes, model.bn.epsilon) == (info.num_classes, info.bn_epsilon)
  for table in re.findall(r'table_(\d+)', ' '.join(info.published)):
    assert table in re.findall(r'\d+', info.paper)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: create_model('se_resnet5O'), r"'se_resnet5O' is unknown; did you mean 'se_resnet50'"),
    (lambda: model_info('resnext50_32x4'), r"'resnext50_32x4' .*; did you mean 'resnext50_32x4d'"),
    (
      lambda: create_model('resnet18', widht=8),
      r"resnet18: the override 'widht' .*; did you mean 'width'",
    ),
    (lambda: create_model('resnet18', parent=None), r"resnet18: the override 'parent'"),
    (lambda: create_model('resnet18', num_class=3), r"'num_class' .* did you mean 'num_classes'"),
    (lambda: create_model('resnet18', '10'), r"num_classes='10' must be an integer of at least 1"),
    (lambda: create_model('resnet18', 10.0), r'num_classes=10\.0 must be an integer'),
    (lambda: create_model('resnet18', True), r'num_classes=True must be an integer'),
    (lambda: create_model('resnet18', 0), r'num_classes=0 must be an integer of at least 1'),
    (lambda: create_model('resnet18', dtype='bf16'), r"model\.dtype='bf16' .*mean 'bfloat16'"),
    (lambda: create_model('resnet18', dtype='int32'), r"model\.dtype='int32' is unknown"),
    (lambda: create_model('resnet18', dtype=None), r'model\.dtype=None is unknown'),
    (lambda: create_model('resnet18', bn=None), r'bn=None must be a senet_jax\.layers\.BatchNormC'),
    (
      lambda: create_model('resnet18', bn={}),
      r'bn=\{\} must be a senet_jax\.layers\.BatchNormConf',
    ),
    (lambda: create_model('resnet18', stem='cifar10'), r"model\.stem='cifar10' .*mean 'cifar'"),
    (lambda: create_model('resnet50', stride_in='1'), r"model\.stride_in='1' .*1x1, 3x3"),
    (lambda: create_model('resnet50', pool_align='cafe'), r"pool_align='cafe' .*mean 'caffe'"),
    (lambda: create_model('resnet50', shortcut='A'), r"model\.shortcut='A' .*projection, pad"),
    (
      lambda: create_model('resnet20_cifar', zero_init_last_bn=True),
      r'zero_init_last_bn=True.*no last BN; set it to False',
    ),
  ],
)
def test_mistakes_are_named(call, message):
  with pytest.raises(UserError, match=message) as caught:
    call()
  assert '\n' not in str(caught.value)


def test_values_of_other_types_are_converted():
  model = create_model('resnet18', np.int64(7), 'bfloat16', depths=[1, 2], bottleneck=[True, False])
  assert (model.num_classes, model.dtype) == (7, jnp.bfloat16)
  assert model == create_model('resnet18', 7, jnp.bfloat16, depths=(1, 2), bottleneck=(True, False))
  assert hash(model.depths) == hash((1, 2))


def test_se_option_makes_the_twin():
  plain, se = tree_of(create_model('resnet50')), tree_of(create_model('se_resnet50'))
  assert tree_of(create_model('resnet50', se=SEConfig())) == se
  assert tree_of(create_model('resnet50', se=None)) == plain
  assert tree_of(create_model('se_resnet50', se=None)) == plain
  assert tree_of(create_model('se_resnet50', se=SEConfig(ratio=8))) not in (plain, se)


# Small versions; `test_small_models.py` has the passes of all kinds.


def test_the_head_loses_no_digits_of_the_last_activation():
  x = some_images(2, 16)
  options = {'width': 8, 'depths': (1,), 'se': SEConfig(ratio=4), 'dtype': 'bfloat16'}
  half = create_model('se_resnet18', 5, **options)
  variables = variables_of(half, x)
  logits, new = jax.jit(
    functools.partial(half.apply, train=False, capture_intermediates=True, mutable='intermediates')
  )(variables, x)
  assert logits.dtype == jnp.float32
  (last,) = new['intermediates']['stage2_block1']['__call__']
  head = variables['params']['fc']
  exact = np.asarray(last, np.float64).mean((1, 2)) @ head['kernel'] + head['bias']
  np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-6)


def test_init_is_he_and_the_head_torchs():
  model = create_model('resnet18', width=64, depths=(1, 1))
  params = variables_of(model, jnp.zeros((1, 8, 8, 3)))['params']
  strided = params['stage3_block1']['conv1']['kernel']  # 64 to 128 channels: fan_out.
  np.testing.assert_allclose(strided.std(), np.sqrt(2 / (9 * 128)), rtol=0.02)
  assert abs(float(strided.mean())) < 1e-3
  head = params['fc']['kernel']
  bound = 1 / np.sqrt(128)
  assert 0.99 * bound < np.abs(head).max() <= bound
  np.testing.assert_allclose(head.std(), bound / np.sqrt(3), rtol=0.02)
  assert not np.any(params['fc']['bias'])


def started(block, x):
  """The output of a fresh unit, and its variables."""
  run = jax.jit(functools.partial(block.init_with_output, train=False))
  return run(jax.random.key(0, impl='rbg'), x)


@pytest.mark.parametrize('bottleneck', [4, None])
def test_zero_init_last_bn_starts_units_as_identities(bottleneck):
  x = jax.nn.relu(jax.random.normal(jax.random.key(1), (2, 5, 5, 8)))
  for zero in (True, False):
    options = BlockOptions(zero_init_last_bn=zero)
    block = ResidualBlock(
      8, bottleneck, attention=BlockAttention(SEConfig(ratio=2)), options=options
    )
    assert np.array_equal(started(block, x)[0], x) == zero


def test_zero_init_last_bn_keeps_the_projection():
  x = jax.random.normal(jax.random.key(1), (2, 5, 5, 8))
  block = ResidualBlock(16, 4, stride=2, options=BlockOptions(zero_init_last_bn=True))
  y, variables = started(block, x)
  kernel = variables['params']['proj_conv']['kernel'][0, 0]
  expected = jax.nn.relu(x[:, ::2, ::2] @ kernel / np.sqrt(1 + 1e-5))
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
  assert not np.any(variables['params']['bn3']['scale'])
  assert np.all(variables['params']['bn2']['scale'] == 1)


if __name__ == '__main__':
  if sys.argv[1:] != ['--write']:
    sys.exit(__doc__)
  GOLDEN.mkdir(exist_ok=True)
  for model_name in GOLDEN_MODELS:
    (GOLDEN / f'{model_name}.txt').write_text(golden_tree(model_name))
  ALL_TREES.write_text(''.join(f'{digest(model_name)}\n' for model_name in list_models()))
