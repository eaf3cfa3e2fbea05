"""The SE layer and its five positions against float64 NumPy computations."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

from senet_jax.errors import UserError
from senet_jax.layers import BlockAttention, SEConfig, SqueezeExcite, excitations
from senet_jax.models import create_model
from senet_jax.models.resnet import BlockOptions, ResidualBlock

SQUEEZES = {
  'avg': lambda x: x.mean((1, 2), keepdims=True),
  'max': lambda x: x.max((1, 2), keepdims=True),
  'none': lambda x: x,
}
EXCITATIONS = {
  'sigmoid': lambda z: 1 / (1 + np.exp(-z)),
  'tanh': np.tanh,
  'relu': lambda z: np.maximum(z, 0),
}


def se_oracle(x, params, squeeze='avg', excitation='sigmoid'):
  """Equations 2 to 4 of the paper; returns the gated input and the gate."""

  def dense(x, layer):
    return x @ layer['kernel'] + layer.get('bias', 0.0)

  hidden = np.maximum(dense(SQUEEZES[squeeze](x), params['fc1']), 0)
  gate = EXCITATIONS[excitation](dense(hidden, params['fc2']))
  return x * gate, gate


def random_like(tree, seed=0):
  """A tree of the same shapes: kernels, scales and variances positive or scaled as they need."""
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    kind = path[-1].key
    if kind in ('scale', 'var'):
      return rng.uniform(0.5, 1.5, leaf.shape).astype('f4')
    spread = np.sqrt(2 / np.prod(leaf.shape[:-1])) if kind == 'kernel' else 0.5
    return (spread * rng.standard_normal(leaf.shape)).astype('f4')

  return jax.tree.map_with_path(draw, tree)


def variables_of(module, *args, seed=0):
  init = functools.partial(module.init, jax.random.key(0))
  return random_like(jax.eval_shape(lambda x: init(x, *args[1:]), args[0]), seed)


def float64(tree):
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


def image(*shape, seed=1):
  return np.random.default_rng(seed).standard_normal(shape).astype('f4')


# The layer.


@pytest.mark.parametrize(
  ('squeeze', 'excitation', 'use_bias'),
  list(itertools.product(SQUEEZES, EXCITATIONS, (True, False))),
)
def test_forward_equals_oracle(squeeze, excitation, use_bias):
  x = image(2, 3, 4, 16)
  for ratio in (1, 2, 5, 16):
    layer = SqueezeExcite(SEConfig(ratio, use_bias, squeeze, excitation))
    variables = variables_of(layer, x, seed=ratio)
    params = variables['params']
    assert params['fc1']['kernel'].shape == (16, 16 // ratio)
    assert all(('bias' in params[fc]) == use_bias for fc in ('fc1', 'fc2'))
    y, sown = layer.apply(variables, x, mutable=['intermediates'])
    expected, gate = se_oracle(x.astype('f8'), float64(params), squeeze, excitation)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    (sown_gate,) = sown['intermediates']['excitation']
    assert sown_gate.shape == ((2, 3, 4, 16) if squeeze == 'none' else (2, 16))
    np.testing.assert_allclose(sown_gate.reshape(gate.shape), gate, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ('squeeze', 'excitation'), [('avg', 'sigmoid'), ('max', 'tanh'), ('none', 'relu')]
)
def test_gradients_equal_finite_differences(squeeze, excitation):
  x, cotangent = image(2, 2, 3, 4), image(2, 2, 3, 4, seed=2)
  layer = SqueezeExcite(SEConfig(ratio=2, squeeze=squeeze, excitation=excitation))
  params = variables_of(layer, x, seed=3)['params']
  actual = jax.grad(
    lambda params, x: jnp.sum(cotangent * layer.apply({'params': params}, x)), argnums=(0, 1)
  )(params, x)

  leaves, structure = jax.tree.flatten(float64((params, x)))

  def loss():
    params, x = jax.tree.unflatten(structure, leaves)
    return np.sum(cotangent * se_oracle(x, params, squeeze, excitation)[0])

  for leaf, gradient in zip(leaves, jax.tree.leaves(actual), strict=True):
    expected = np.empty_like(leaf)
    for i in np.ndindex(leaf.shape):
      kept, ends = leaf[i], []
      for step in (1e-6, -1e-6):
        leaf[i] = kept + step
        ends.append(loss())
      leaf[i] = kept
      expected[i] = (ends[0] - ends[1]) / 2e-6
    np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


def test_initialisation():
  """He et al. 2015 in front of the ReLU; in front of the gate half of that variance."""
  block = SqueezeExcite(SEConfig(ratio=4))
  params = block.init(jax.random.key(0), jnp.zeros((1, 1, 1, 256)))['params']
  for name, variance in (('fc1', 2 / 256), ('fc2', 1 / 64)):
    np.testing.assert_allclose(params[name]['kernel'].var(), variance, rtol=0.05)
    assert not params[name]['bias'].any()


def test_bfloat16_input_has_a_float32_gate():
  # Half of the pixels are 1, half the next bfloat16: the mean lies between, and bfloat16 has no
  # such number. A bfloat16 mean would be 1 and open the gate to sigmoid(0) = 0.5.
  x = jnp.where(jnp.arange(4) < 2, 1.0, 1.0078125).reshape(1, 2, 2, 1).astype(jnp.bfloat16)
  assert float(x.astype(jnp.float32).mean()) == 1.00390625
  assert float(jnp.bfloat16(1.00390625)) == 1.0
  fc1 = {'kernel': jnp.ones((1, 1)), 'bias': -jnp.ones(1)}
  fc2 = {'kernel': jnp.full((1, 1), 256.0), 'bias': jnp.zeros(1)}
  y, sown = SqueezeExcite(SEConfig(ratio=1)).apply(
    {'params': {'fc1': fc1, 'fc2': fc2}}, x, mutable=['intermediates']
  )
  (gate,) = sown['intermediates']['excitation']
  assert gate.dtype == jnp.float32
  np.testing.assert_allclose(gate, 1 / (1 + np.exp(-1.0)), rtol=1e-6)
  assert y.dtype == jnp.bfloat16
  np.testing.assert_allclose(y.astype(jnp.float32), x.astype(jnp.float32) * gate, rtol=2**-7)


@pytest.mark.parametrize('squeeze', SQUEEZES)
def test_bfloat16_output(squeeze):
  x = jnp.asarray(image(2, 3, 3, 8), jnp.bfloat16)
  layer = SqueezeExcite(SEConfig(ratio=2, squeeze=squeeze))
  variables = variables_of(layer, x)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype('f4')}
  y = layer.apply(variables, x)
  assert y.dtype == jnp.bfloat16
  expected, _ = se_oracle(np.asarray(x, 'f8'), float64(variables['params']), squeeze)
  np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2**-6, atol=1e-3)


# Gates by the paper's names.


def gates(name, size, **overrides):
  """Names in order and shapes of the gates of a model, and the collections it has at init."""
  model = create_model(name, **overrides)
  x = jnp.zeros((2, size, size, 3))
  names = []  # Filled while tracing: `eval_shape` would sort a dictionary.

  def run(key):
    variables = model.init(key, x, train=False)
    _, sown = model.apply(variables, x, train=False, mutable=['intermediates'])
    found = excitations(sown.get('intermediates', {}))
    names.extend(found)
    return variables, found

  variables, found = jax.eval_shape(run, jax.random.key(0))
  return names, found, set(variables)


def test_excitations_of_se_resnet50():
  names, found, collections = gates('se_resnet50', 32)
  depths = {2: 3, 3: 4, 4: 6, 5: 3}
  assert names == [f'SE_{s}_{b}' for s, depth in depths.items() for b in range(1, depth + 1)]
  assert len(names) == 16
  assert found['SE_2_3'].shape == (2, 256)
  assert found['SE_4_6'].shape == (2, 1024)
  assert found['SE_5_1'].dtype == jnp.float32
  assert collections == {'params', 'batch_stats'}


def test_excitations_of_a_cifar_network():
  names, found, collections = gates('se_resnet164_cifar', 32, se=SEConfig(squeeze='none'))
  # Blocks 10 to 18 come after 9, not after 1.
  assert names == [f'SE_{s}_{b}' for s in (2, 3, 4) for b in range(1, 19)]
  assert found['SE_3_18'].shape == (2, 16, 16, 128)
  assert collections == {'params', 'batch_stats'}


def test_stages_have_se_where_asked():
  names, _, _ = gates('se_resnet50', 32, se=SEConfig(stages=(3, 5)))
  assert names == ['SE_3_1', 'SE_3_2', 'SE_3_3', 'SE_3_4', 'SE_5_1', 'SE_5_2', 'SE_5_3']
  assert gates('se_resnet20_cifar', 8, se=SEConfig(stages=()))[0] == []


# Positions in a residual unit.


def conv_oracle(x, kernel, stride):
  size = kernel.shape[0]
  x = np.pad(x, [(0, 0)] + [(size // 2, size // 2)] * 2 + [(0, 0)])
  windows = sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]
  return np.einsum('nijchw,hwco->nijo', windows, kernel)


class BlockOracle:
  """A residual unit in evaluation, float64, written out position by position."""

  def __init__(self, variables, position, stride, **se):
    variables = float64(variables)
    self.params, self.stats = variables['params'], variables['batch_stats']
    self.position, self.stride, self.se_options = position, stride, se
    self.last = 3 if 'conv3' in self.params else 2

  def bn(self, x, name):
    params, stats = self.params[name], self.stats[name]
    return (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5) * params['scale'] + params['bias']

  def conv(self, x, name):
    # The stride is on the first convolution and on the projection.
    stride = self.stride if name in ('conv1', 'proj_conv') else 1
    return conv_oracle(x, self.params[name]['kernel'], stride)

  def gated(self, x):
    return se_oracle(x, self.params['se'], **self.se_options)[0]

  def post_activation(self, x):
    relu = EXCITATIONS['relu']
    branch = self.gated(x) if self.position == 'pre' else x
    branch = relu(self.bn(self.conv(branch, 'conv1'), 'bn1'))
    branch = self.bn(self.conv(branch, 'conv2'), 'bn2')
    if self.last == 3:
      branch = relu(branch)
      if self.position == 'conv3x3':
        branch = self.gated(branch)
      branch = self.bn(self.conv(branch, 'conv3'), 'bn3')
    shortcut = x
    if 'proj_conv' in self.params:
      shortcut = self.bn(self.conv(x, 'proj_conv'), 'proj_bn')
    if self.position == 'standard':
      return relu(shortcut + self.gated(branch))
    if self.position == 'identity':
      return relu(self.gated(shortcut) + branch)
    if self.position == 'post':
      return self.gated(relu(shortcut + branch))
    return relu(shortcut + branch)

  def pre_activation(self, x, share):
    relu = EXCITATIONS['relu']
    if share:
      x = relu(self.bn(x, 'bn1'))
    branch = self.gated(x) if self.position == 'pre' else x
    if not share:
      branch = relu(self.bn(branch, 'bn1'))
    branch = self.conv(branch, 'conv1')
    branch = self.conv(relu(self.bn(branch, 'bn2')), 'conv2')
    if self.last == 3:
      branch = relu(self.bn(branch, 'bn3'))
      if self.position == 'conv3x3':
        branch = self.gated(branch)
      branch = self.conv(branch, 'conv3')
    shortcut = self.conv(x, 'proj_conv') if 'proj_conv' in self.params else x
    if self.position == 'standard':
      return shortcut + self.gated(branch)
    if self.position == 'identity':
      return self.gated(shortcut) + branch
    if self.position == 'post':
      return self.gated(shortcut + branch)
    return shortcut + branch


POSITIONS = ('standard', 'pre', 'post', 'identity', 'conv3x3')
UNITS = [
  (position, bottleneck, activation)
  for position in POSITIONS
  for bottleneck in (4, None)
  for activation in ('post', 'pre', 'shared')
  if bottleneck or position != 'conv3x3'
]


@pytest.mark.parametrize(('position', 'bottleneck', 'activation'), UNITS)
def test_positions_equal_oracle(position, bottleneck, activation):
  x = image(2, 5, 6, 8)
  options = {
    'share_preact': activation == 'shared',
    'options': BlockOptions(preact=activation != 'post'),
  }
  # A unit with an identity shortcut, and one with a stride and a projection.
  for features, stride in ((8, 1), (12, 2)):
    se = SEConfig(ratio=2, position=position, excitation='tanh')
    block = ResidualBlock(features, bottleneck, stride, attention=BlockAttention(se), **options)
    variables = variables_of(block, x, False, seed=features)
    assert ('proj_conv' in variables['params']) == (stride == 2)
    oracle = BlockOracle(variables, position, stride, excitation='tanh')
    if activation == 'post':
      expected = oracle.post_activation(x.astype('f8'))
    else:
      expected = oracle.pre_activation(x.astype('f8'), activation == 'shared')
    np.testing.assert_allclose(block.apply(variables, x, False), expected, rtol=1e-4, atol=1e-5)


# Mistakes.


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'squeeze': 'mean'}, r"^model\.se\.squeeze='mean' is unknown.* \(allowed: avg, max, none\)"),
    ({'excitation': 'sigmoide'}, r"excitation='sigmoide' is unknown; did you mean 'sigmoid'\?"),
    ({'position': 'standart'}, r"position='standart' is unknown; did you mean 'standard'\?"),
    ({'ratio': 0}, r'^model\.se\.ratio=0 must be an integer of at least 1'),
    ({'ratio': 2.5}, r'^model\.se\.ratio=2\.5 must be an integer'),
    ({'stages': (3, 6)}, r"^model\.se\.stages=6 is unknown.*allowed: 2, 3, 4, 5\).*'all'"),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(UserError, match=message) as caught:
    SEConfig(**options)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('name', 'se', 'message'),
  [
    ('se_resnet18', SEConfig(position='conv3x3'), r'needs 1x1-3x3-1x1 units.*use standard'),
    ('resnet110_cifar', SEConfig(position='conv3x3'), r'needs 1x1-3x3-1x1 units.*use standard'),
    ('se_resnet164_cifar', SEConfig(stages=(2, 5)), r'stages=5 is unknown \(allowed: 2, 3, 4\)'),
    ('se_resnet50', 16, r'^se=16 must be a senet_jax\.layers\.SEConfig or None'),
  ],
)
def test_options_that_a_network_does_not_have(name, se, message):
  with pytest.raises(UserError, match=message) as caught:
    create_model(name, se=se)
  assert '\n' not in str(caught.value)


def test_ratio_too_large_for_the_channels():
  model = create_model('se_resnet20_cifar', se=SEConfig(ratio=32))
  with pytest.raises(UserError, match=r'ratio=32 leaves no hidden unit for 16 channels') as caught:
    jax.eval_shape(
      lambda key: model.init(key, jnp.zeros((1, 8, 8, 3)), train=False), jax.random.key(0)
    )
  assert '\n' not in str(caught.value)
