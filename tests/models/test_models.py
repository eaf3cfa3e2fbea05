"""The ResNet, ResNeXt and CIFAR families: parameter counts, variable trees, options.

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
from senet_jax.layers import BatchNormConfig, BlockAttention, SEConfig
from senet_jax.models import create_model, list_models, model_info
from senet_jax.models.resnet import BlockOptions, ResidualBlock
from tests.helpers import paths
from tests.helpers.models import (
  as_shapes,
  check_moved,
  check_takes_part,
  count,
  one_pass,
  some_images,
  tree_of,
  variables_of,
)

# Exact counts, computed once with independent torch definitions and Caffe model files.

BIAS, NO_BIAS = SEConfig(), SEConfig(use_bias=False)
R50 = 53_120  # Elements of the running statistics of ResNet-50.

# SE-ResNet-50 of section 6 with biases: options and parameters; without them, and of all networks,
# `tests/complexity` has the counts.
ABLATION_COUNTS = [
  ({'ratio': 2}, 45_699_240),
  ({'ratio': 4}, 35_635_688),
  ({'ratio': 8}, 30_603_912),
  ({'ratio': 32}, 26_830_080),
  ({'stages': (2,)}, 25_582_424),
  ({'stages': (3,)}, 25_690_280),
  ({'stages': (4,)}, 26_349_992),
  ({'stages': (5,)}, 27_136_424),
  ({'position': 'pre'}, 27_562_140),
  ({'position': 'conv3x3'}, 25_718_228),
  ({'squeeze': 'max'}, 28_088_024),
]


def count_rows():
  """Arguments of `create_model`, parameters and running statistics."""
  places = {'num_classes': 365}
  yield {'name': 'resnet152', **places}, 58_891_693, 151_424
  yield {'name': 'se_resnet152', **places, 'se': NO_BIAS}, 65_469_869, 151_424
  yield {'name': 'se_resnet152', **places}, 65_520_733, 151_424
  for options, params in ABLATION_COUNTS:
    yield {'name': 'se_resnet50', 'se': SEConfig(**options)}, params, R50


def row_id(value):
  if not isinstance(value, dict):
    return ''
  parts = []
  for key, item in value.items():
    if isinstance(item, SEConfig):
      default = SEConfig()
      item = {k: v for k, v in vars(item).items() if v != getattr(default, k)}
    parts.append(item if key == 'name' else f'{key}={item}')
  return ','.join(parts)


@pytest.mark.parametrize(('arguments', 'params', 'stats'), list(count_rows()), ids=row_id)
def test_counts(arguments, params, stats):
  tree = tree_of(create_model(**arguments))
  assert set(tree) == {'params', 'batch_stats'}
  assert count(tree['params']) == params
  assert count(tree['batch_stats']) == stats


@pytest.mark.parametrize('override', [{'stride_in': '3x3'}, {'pool_align': 'torch'}])
def test_options_of_geometry_leave_the_variables_alone(override):
  assert tree_of(create_model('se_resnet50', **override)) == tree_of(create_model('se_resnet50'))


# The variable tree is the schema of every checkpoint.

GOLDEN = paths.TESTS / 'golden'
GOLDEN_MODELS = (
  'se_resnet18',
  'se_resnet50',
  'se_resnext50_32x4d',
  'se_resnet20_cifar',
  'se_resnet164_cifar',
  'senet154',
  'se_wrn16_8',
  'se_resnet46',
  'se_resnext29_8x64d',
  'se_resnet18_tiny',
  'se_shake_shake26_2x96d',
  'se_shake_even29_2x4x64d',
  'se_bn_inception',
  'se_inception_v3',
  'se_inception_v3_cifar',
  'se_inception_resnet_v2',
  'se_vgg16_bn',
  'se_mobilenet_v1',
  'se_shufflenet_v1_g3',
)


def described(tree) -> str:
  """One line `collection/path shape dtype` for each leaf."""
  leaves = jax.tree.leaves_with_path(tree)
  lines = ['/'.join(p.key for p in path) + f' {x.shape} {x.dtype}' for path, x in leaves]
  return '\n'.join(sorted(lines)) + '\n'


def golden_tree(name):
  return described(tree_of(create_model(name), model_info(name).image_size))


@pytest.mark.parametrize('name', GOLDEN_MODELS)
def test_golden_variable_tree(name):
  expected = (GOLDEN / f'{name}.txt').read_text()
  assert golden_tree(name) == expected, (
    f'the variables of {name} are not those of tests/golden/{name}.txt: checkpoints written before '
    'no longer load. If that is meant: python -m tests.models.test_models --write'
  )


ALL_TREES = GOLDEN / 'all.txt'


def digest(name) -> str:
  """The line `name sha256 count` of a network: of its golden tree and the number of variables."""
  tree = golden_tree(name)
  return f'{name} {hashlib.sha256(tree.encode()).hexdigest()} {tree.count(chr(10))}'


def test_golden_trees_of_all_networks_are_there():
  names = [line.split()[0] for line in ALL_TREES.read_text().splitlines()]
  assert names == list_models(), 'python -m tests.models.test_models --write'


@pytest.mark.parametrize('name', list_models())
def test_golden_digest(name):
  expected = {line.split()[0]: line for line in ALL_TREES.read_text().splitlines()}
  assert digest(name) == expected.get(name), (
    f'the variables of {name} are not those that tests/golden/all.txt was written for: checkpoints '
    'written before no longer load. If that is meant: python -m tests.models.test_models --write'
  )


@pytest.mark.parametrize(
  'options',
  [
    {'dtype': jnp.bfloat16},
    {'bn': BatchNormConfig(scope='global', momentum=0.99)},
    {'bn': BatchNormConfig(scope='ghost', ghost_size=32)},
    {'bn': BatchNormConfig(frozen=True)},
    {'se': SEConfig(fused=False)},
    {'zero_init_last_bn': True},
  ],
  ids=str,
)
def test_variable_tree_does_not_depend_on(options):
  assert tree_of(create_model('se_resnet50', **options)) == tree_of(create_model('se_resnet50'))


def test_init_gives_the_same_tree_in_training():
  model = create_model('se_resnet18')
  train = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((2, 32, 32, 3)), train=True), jax.random.key(0)
  )
  assert train == tree_of(model)


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


# Table 2 (our re-implementation), table 4 and table 5 of the paper.
@pytest.mark.parametrize(
  ('name', 'published'),
  [
    ('resnet18', {}),
    ('resnet50', {'table_2': (24.80, 7.48), 'gflops': 3.86}),
    ('resnet101', {'table_2': (23.17, 6.52), 'gflops': 7.58}),
    ('resnet152', {'table_2': (22.42, 6.34), 'gflops': 11.30}),
    ('resnext50_32x4d', {'table_2': (22.11, 5.90), 'gflops': 4.24}),
    ('resnext101_32x4d', {'table_2': (21.18, 5.57), 'gflops': 7.99}),
    ('se_resnet50', {'table_2': (23.29, 6.62), 'gflops': 3.87}),
    ('se_resnet101', {'table_2': (22.38, 6.07), 'gflops': 7.60}),
    ('se_resnet152', {'table_2': (21.57, 5.73), 'gflops': 11.32}),
    ('se_resnext50_32x4d', {'table_2': (21.10, 5.49), 'gflops': 4.25}),
    ('se_resnext101_32x4d', {'table_2': (20.70, 5.01), 'gflops': 8.00}),
    ('resnet110_cifar', {'table_4': (6.37,), 'table_5': (26.88,)}),
    ('se_resnet110_cifar', {'table_4': (5.21,), 'table_5': (23.85,)}),
    ('resnet164_cifar', {'table_4': (5.46,), 'table_5': (24.33,)}),
    ('se_resnet164_cifar', {'table_4': (4.39,), 'table_5': (21.31,)}),
  ],
)
def test_model_info(name, published):
  info = model_info(name)
  cifar = name.endswith('_cifar')
  assert info.name == name
  assert info.se == name.startswith('se_')
  assert info.family == ('resnet_cifar' if cifar else 'resnext' if 'next' in name else 'resnet')
  assert (info.image_size, info.num_classes) == ((32, 10) if cifar else (224, 1000))
  assert info.preprocessing.resize == (None if cifar else 256)
  assert info.preprocessing.mean == (None if cifar else (123.0, 117.0, 104.0))
  for table in (key for key in published if key.startswith('table_')):
    assert table.removeprefix('table_') in re.findall(r'\d+', info.paper)
  actual = {
    key: tuple(value.values()) if isinstance(value, dict) else value
    for key, value in info.published.items()
  }
  assert actual == published
  assert create_model(name).num_classes == info.num_classes


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: create_model('se_resnet5O'), r"'se_resnet5O' is unknown; did you mean 'se_resnet50'"),
    (lambda: model_info('resnext50_32x4'), r"'resnext50_32x4' .*; did you mean 'resnext50_32x4d'"),
    (lambda: create_model('resnet18', widht=8), r"of resnet18='widht' .*; did you mean 'width'"),
    (lambda: create_model('resnet18', parent=None), r"the override of resnet18='parent'"),
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


# Forward and backward passes of small versions.

FAMILIES = ('resnet', 'resnext', 'resnet_cifar')
SMALL = {
  'se_resnet18': {'width': 8, 'depths': (1, 1)},
  'se_resnet50': {'width': 8, 'depths': (1, 1)},
  'se_resnext50_32x4d': {'width': 16, 'depths': (1, 1), 'groups': 4, 'group_width': 8},
  'se_resnet20_cifar': {'width': 8, 'depths': (1, 1)},
  'se_resnet164_cifar': {'width': 8, 'depths': (1, 1)},
}


def small(name, **options):
  return create_model(name, **{'num_classes': 5, 'se': SEConfig(ratio=4), **SMALL[name], **options})


@pytest.mark.parametrize('name', SMALL)
def test_every_variable_takes_part_in_training(name):
  model, x = small(name), some_images(2, 24)
  variables = variables_of(model, x)
  _, (logits,), new, gradients = one_pass(model, variables, x)
  assert logits.shape == (2, 5)
  assert logits.dtype == jnp.float32
  check_takes_part(gradients)
  check_moved(new, variables)
  assert tree_of(model) == as_shapes(variables)


@pytest.mark.parametrize('name', ['se_resnet50', 'se_resnet20_cifar'])
def test_batch_of_one(name):
  model, x = small(name), some_images(2, 8)
  variables = variables_of(model, x)
  apply = jax.jit(model.apply, static_argnames=('train', 'mutable'))
  both = apply(variables, x, train=False)
  assert np.abs(both[0] - both[1]).max() > 1e-2
  # Images do not see each other in evaluation, and one image has statistics to train on.
  np.testing.assert_allclose(apply(variables, x[1:], train=False), both[1:], rtol=1e-4, atol=1e-5)
  logits, _ = apply(variables, x[:1], train=True, mutable=('batch_stats',))
  assert np.isfinite(logits).all()


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', [n for n in list_models() if model_info(n).family in FAMILIES])
def test_dtypes_and_sizes(name, dtype):
  info = model_info(name)
  stages = len(create_model(name).depths)
  # The blocks of a stage are alike: one of each.
  model = create_model(name, dtype=dtype, depths=(1,) * stages)
  images = jax.ShapeDtypeStruct((2, info.image_size, info.image_size, 3), dtype)
  variables = tree_of(model)
  logits, new = jax.eval_shape(
    functools.partial(
      model.apply,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      capture_intermediates=lambda module, method: (
        method == '__call__' and isinstance(module, ResidualBlock)
      ),
    ),
    variables,
    images,
  )
  assert logits == jax.ShapeDtypeStruct((2, info.num_classes), jnp.float32)
  kept = jax.tree.leaves(variables) + jax.tree.leaves(new['batch_stats'])
  assert {leaf.dtype for leaf in kept} == {jnp.dtype('float32')}
  outputs = [new['intermediates'][f'stage{s}_block1']['__call__'][0] for s in range(2, stages + 2)]
  assert {output.dtype for output in outputs} == {jnp.dtype(dtype)}
  sides = [32, 16, 8] if stages == 3 else [56, 28, 14, 7]
  assert [output.shape[1:3] for output in outputs] == [(side, side) for side in sides]


def test_bfloat16_logits():
  x = some_images(2, 16)
  full, half = (small('se_resnet18', depths=(1,), dtype=dtype) for dtype in ('float32', 'bfloat16'))
  variables = variables_of(full, x)
  expected = jax.jit(functools.partial(full.apply, train=False))(variables, x)
  logits, new = jax.jit(
    functools.partial(half.apply, train=False, capture_intermediates=True, mutable='intermediates')
  )(variables, x)
  assert logits.dtype == jnp.float32
  assert 0 < np.abs(logits - expected).max() < 0.03 * np.abs(expected).max()
  # The mean over pixels and the head lose no digits of the last activation.
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
