"""SE blocks in modules that know nothing of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, traverse_util
from jax.sharding import PartitionSpec

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import SEConfig, SqueezeExcite, add_squeeze_excite, excitations
from senet_jax.models import create_model

SE = SEConfig(ratio=2)
KEY = jax.random.key(0, impl='rbg')
X = np.random.default_rng(0).standard_normal((8, 6, 6, 3)).astype('f4')


class Block(nn.Module):
  """What users write: automatic names, options as keywords."""

  features: int = 4
  gated: bool = False  # By hand, for comparison.

  @nn.compact
  def __call__(self, x, train=False):
    y = nn.Conv(self.features, (3, 3))(x)
    y = nn.BatchNorm(use_running_average=not train)(y)
    if self.gated:
      y = SqueezeExcite(SE)(y)
    return nn.relu(y)


class Net(nn.Module):
  gated: bool = False

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Conv(4, (3, 3), name='module')(x)  # A name that a wrapper might want.
    for _ in range(2):
      x = Block(gated=self.gated)(x, train=train)
    x = nn.Dropout(0.5, deterministic=not train)(x.mean((1, 2)))
    return nn.Dense(3)(x)


def init(module, *args, **kwargs):
  return jax.jit(functools.partial(module.init, **kwargs))(KEY, *args or (X,))


def flat(variables):
  return traverse_util.flatten_dict(variables, sep='/')


def blocks(variables):
  """Paths of the SE blocks."""
  end = '/se/fc1/kernel'
  return sorted(p[: -len(end)] for p in flat(variables['params']) if p.endswith(end))


def assert_close(actual, expected, tolerance=1e-5):
  np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def test_variables_of_the_module_stay_and_blocks_are_in_their_modules():
  plain, wrapped = Net(), add_squeeze_excite(Net(), 'Block_*/BatchNorm_0', SE)
  before, after = (flat(init(module)) for module in (plain, wrapped))
  added = {
    f'params/Block_{i}/BatchNorm_0/se/{fc}/{leaf}'
    for i in range(2)
    for fc in ('fc1', 'fc2')
    for leaf in ('kernel', 'bias')
  }
  assert set(after) == set(before) | added
  for path in before:
    assert np.array_equal(before[path], after[path]), path  # The same random numbers.
  assert after['params/Block_0/BatchNorm_0/se/fc1/kernel'].shape == (4, 2)
  # A checkpoint of the module, and blocks that are new.
  merged = traverse_util.unflatten_dict({**after, **before}, sep='/')
  assert wrapped.apply(merged, X).shape == (8, 3)


def by_hand(variables):
  """The variables of `Net(gated=True)` from those of a wrapped `Net`."""
  return traverse_util.unflatten_dict(
    {
      path.replace('BatchNorm_0/se', 'SqueezeExcite_0'): leaf
      for path, leaf in flat(variables).items()
    },
    sep='/',
  )


def test_equals_blocks_that_are_written_into_the_module():
  wrapped = add_squeeze_excite(Net(), 'Block_*/BatchNorm_0', SE)
  variables = init(wrapped)

  @functools.partial(jax.jit, static_argnums=0)
  @functools.partial(jax.grad, argnums=1, has_aux=True)
  def run(model, params, stats):
    logits, new = model.apply(
      {'params': params, 'batch_stats': stats},
      X,
      train=True,
      mutable=['batch_stats', 'intermediates'],
      rngs={'dropout': KEY},
    )
    gates = excitations(new.pop('intermediates'))
    return (logits**2).sum(), (logits, new['batch_stats'], list(gates.values()))

  gradient, (logits, stats, gates) = run(wrapped, variables['params'], variables['batch_stats'])
  hand = by_hand(variables)
  expected = run(Net(gated=True), hand['params'], hand['batch_stats'])
  assert_close(logits, expected[1][0])
  jax.tree.map(assert_close, stats, expected[1][1])
  jax.tree.map(assert_close, gates, expected[1][2])
  jax.tree.map(assert_close, by_hand(gradient), expected[0])
  assert all(np.any(leaf) for path, leaf in flat(gradient).items() if '/se/' in path)


@pytest.mark.thorough
@pytest.mark.parametrize(
  ('name', 'where', 'options'),
  [
    ('resnet50', 'stage*_block*/bn3', {'width': 16, 'depths': (1, 2)}),
    ('resnet18', 'stage*_block*/bn2', {'width': 16, 'depths': (2, 1)}),
  ],
)
def test_equals_our_own_networks(name, where, options):
  ours = create_model(f'se_{name}', 5, se=SEConfig(ratio=4), **options)
  wrapped = add_squeeze_excite(create_model(name, 5, **options), where, SEConfig(ratio=4))
  variables = init(ours, train=False)
  bn = where.rpartition('/')[-1]
  moved = traverse_util.unflatten_dict(
    {path.replace('/se/', f'/{bn}/se/'): leaf for path, leaf in flat(variables).items()}, sep='/'
  )
  assert jax.tree.map(jnp.shape, init(wrapped, train=False)) == jax.tree.map(jnp.shape, moved)
  run = jax.jit(
    lambda model, v, x: model.apply(v, x, train=False, mutable=['intermediates']), static_argnums=0
  )
  logits, state = run(wrapped, moved, X)
  expected, expected_state = run(ours, variables, X)
  assert_close(logits, expected)
  gates, expected_gates = (excitations(s['intermediates']) for s in (state, expected_state))
  assert list(gates) == list(expected_gates)
  jax.tree.map(assert_close, gates, expected_gates)


def test_costs_what_our_own_network_costs():
  wrapped = add_squeeze_excite(create_model('resnet50'), 'stage*_block*/bn3')
  cost, expected = (complexity(m, 224) for m in (wrapped, create_model('se_resnet50')))
  assert (cost.params, cost.macs, cost.stages) == (expected.params, expected.macs, expected.stages)
  assert (cost.se_weights, cost.equation_5) == (2_514_944, 2_514_944)


def test_several_gates_of_a_unit_go_by_their_paths():
  model = create_model('resnet18', 5, width=8, depths=(1,))
  model = add_squeeze_excite(model, ('stage2_block1/bn*', 'stem_bn'), SE)
  _, state = model.apply(init(model, train=False), X, train=False, mutable=['intermediates'])
  gates = excitations(state['intermediates'])
  assert list(gates) == ['stage2_block1/bn1/se', 'stage2_block1/bn2/se', 'stem_bn/se']
  assert {gate.shape for gate in gates.values()} == {(8, 8)}


# Transformations inside the module.

JitBlock, RematBlock = nn.jit(Block, static_argnums=2), nn.remat(Block, static_argnums=(2,))


class MethodBlock(nn.Module):
  @nn.compact
  def __call__(self, x, train):
    return nn.relu(nn.Conv(4, (3, 3))(x))


class JitMethodBlock(nn.Module):
  @nn.jit
  @nn.compact
  def __call__(self, x, train):
    return nn.relu(nn.Conv(4, (3, 3))(x))


class SetupBlock(nn.Module):
  conv_class: type[nn.Module] = nn.Conv

  def setup(self):
    self.conv = self.conv_class(4, (3, 3))

  def __call__(self, x, train):
    return nn.relu(self.conv(x))


class JitSetupBlock(SetupBlock):
  conv_class: type[nn.Module] = nn.jit(nn.Conv)


class ScanBlock(nn.Module):
  @nn.compact
  def __call__(self, x, _):
    return nn.relu(nn.Conv(4, (3, 3), name='conv')(x)), None


class Transformed(nn.Module):
  block: type[nn.Module]

  @nn.compact
  def __call__(self, x, train=False):
    x = nn.Conv(4, (1, 1), name='stem')(x)
    for name in ('a', 'b'):
      if self.block is ScanBlock:
        axes = {'params': 0, 'intermediates': 0}
        scanned = nn.scan(ScanBlock, variable_axes=axes, split_rngs={'params': True}, length=3)
        x, _ = scanned(name=name)(x, None)
      else:
        x = self.block(name=name)(x, train)
    return x


# With the same variables: a transformed block, the plain one, a module in them.
CASES = [
  (RematBlock, Block, 'Conv_0'),
  (RematBlock, Block, 'BatchNorm_0'),
  (nn.remat(SetupBlock, static_argnums=(2,)), SetupBlock, 'conv'),
]


def run(model, variables, train):
  """Gates, logits and new statistics, and gradients."""

  @functools.partial(jax.grad, has_aux=True)
  def loss(params):
    y, new = model.apply(
      {**variables, 'params': params}, X, train, mutable=['batch_stats', 'intermediates']
    )
    return (y**2).sum(), (excitations(new.pop('intermediates')), y, new)

  return jax.jit(loss)(variables['params'])


@pytest.mark.parametrize(
  ('block', 'plain', 'inner'), CASES, ids=lambda v: getattr(v, '__name__', v)
)
def test_transformed_blocks_equal_plain_ones(block, plain, inner):
  wheres = {'a': ['a'], 'b': ['b'], '*': ['a', 'b']}
  for where, paths in wheres.items():
    model = add_squeeze_excite(Transformed(block), f'{where}/{inner}', SE)
    assert blocks(jax.eval_shape(model.init, KEY, X)) == [f'{path}/{inner}' for path in paths]
  model, expected = (
    add_squeeze_excite(Transformed(kind), f'*/{inner}', SE) for kind in (block, plain)
  )
  variables = init(expected)
  for train in (False, True):
    gradient, (gates, y, new) = run(model, variables, train)
    assert list(gates) == [f'a/{inner}/se', f'b/{inner}/se']
    assert all(np.any(gradient[name][inner]['se']['fc2']['bias']) for name in 'ab')
    jax.tree.map(
      functools.partial(assert_close, tolerance=1e-4),
      (gradient, (gates, y, new)),
      run(expected, variables, train),
    )


def test_scanned_blocks_equal_a_loop():
  model = add_squeeze_excite(Transformed(ScanBlock), 'a/conv', SE)
  variables = init(model)
  x = nn.Conv(4, (1, 1)).apply({'params': variables['params']['stem']}, X)
  for name in ('a', 'b'):
    for layer in range(3):
      params = jax.tree.map(lambda leaf, i=layer: leaf[i], variables['params'][name]['conv'])
      se = params.pop('se', None)
      x = nn.Conv(4, (3, 3)).apply({'params': params}, x)
      x = nn.relu(SqueezeExcite(SE).apply({'params': se}, x) if se else x)
  assert_close(jax.jit(model.apply)(variables, X), x)
  gradient, (gates, _, _) = run(model, variables, False)
  assert {name: gate.shape for name, gate in gates.items()} == {'a/conv/se': (3, 8, 4)}
  assert np.any(gradient['a']['conv']['se']['fc2']['bias'], axis=1).all()


class JitBodyBlock(MethodBlock):
  @nn.compact
  def __call__(self, x, train):
    return self.body(x)

  @nn.jit
  @nn.compact
  def body(self, x):
    return nn.relu(nn.Conv(4, (3, 3), name='conv')(x))


@pytest.mark.parametrize(
  'network',
  [
    Transformed(JitBlock),
    Transformed(JitMethodBlock),
    Transformed(JitBodyBlock),
    Transformed(JitSetupBlock),
    Transformed(nn.remat(JitBlock, static_argnums=(2,))),
    nn.jit(Transformed)(Block),
  ],
  ids=['class', 'method', 'part', 'setup', 'remat', 'whole'],
)
def test_nn_jit_is_refused_also_where_it_has_a_trace(network):
  """Its cache would run what was traced without blocks, in silence."""
  plain = network.init(KEY, X)
  before = network.apply(plain, X)
  model = add_squeeze_excite(network, 'b/*', SE)
  holder = nn.jit(Holder)(model)
  for call in (
    lambda: model.init(KEY, X),
    lambda: model.apply(plain, X),
    lambda: holder.init(KEY, X),
  ):
    with pytest.raises(
      UserError, match=r'nn\.jit is on a module with SE blocks.*put jax\.jit around'
    ):
      call()
  assert np.array_equal(network.apply(plain, X), before)


@pytest.mark.parametrize(('block', 'name'), [(RematBlock, 'a'), (RematBlock, 'b')])
def test_a_transformed_module_itself(block, name):
  model = add_squeeze_excite(Transformed(block), name, SE)
  variables = init(model)
  assert blocks(variables) == [name]
  _, state = model.apply(variables, X, mutable=['intermediates'])
  assert list(excitations(state['intermediates'])) == [f'{name}/se']


# Where modules are.

INNER = ('/BatchNorm_0', '/Conv_0')


@pytest.mark.parametrize(
  ('where', 'expected'),
  [
    ('module', ['module']),
    ('*', None),  # The last one is `[N, C]`.
    ('[!D]*', [*(f'Block_{i}{sub}' for i in (0, 1) for sub in ('', *INNER)), 'module']),
    ('[Bm]*', ['Block_0', 'Block_0/BatchNorm_0', 'Block_1', 'Block_1/BatchNorm_0', 'module']),
    ('Block_*', ['Block_0', 'Block_1']),
    ('*Conv_0', ['Block_0/Conv_0', 'Block_1/Conv_0']),
    ('*?[mv]_0', [f'Block_{i}{sub}' for i in (0, 1) for sub in INNER]),
    ('*/Conv_0', ['Block_0/Conv_0', 'Block_1/Conv_0']),
    ('**/Conv_0', ['Block_0/Conv_0', 'Block_1/Conv_0']),
    ('**/module/**', ['module']),
    ('Block_1/**', ['Block_1', 'Block_1/BatchNorm_0', 'Block_1/Conv_0']),
    (('Block_0', '*/Conv_?'), ['Block_0', 'Block_0/Conv_0', 'Block_1/Conv_0']),
    (['Block_0', 'Block_*'], ['Block_0', 'Block_1']),
  ],
  ids=str,
)
def test_patterns(where, expected):
  shapes = functools.partial(jax.eval_shape, add_squeeze_excite(Net(), where, SE).init)
  if expected is None:
    with pytest.raises(UserError, match='Dropout_0 returns'):
      shapes(KEY, X)
  else:
    assert blocks(shapes(KEY, X)) == expected


class Derived(Block):
  @nn.compact
  def __call__(self, x, train=False):
    return super().__call__(x, train) + 1


class Holder(nn.Module):
  """Calls a module that it was given, twice if it is told."""

  inner: nn.Module
  times: int = 1

  def __call__(self, x):
    for _ in range(self.times):
      x = self.inner(x)
    return x


def test_a_method_that_calls_its_bases_is_gated_once():
  model = add_squeeze_excite(Holder(Derived()), 'inner', SE)
  variables = init(model)
  assert blocks(variables) == ['inner']
  (block,) = [variables['params']['inner'].pop('se')]
  inner = {name: tree['inner'] for name, tree in variables.items()}
  expected = SqueezeExcite(SE).apply({'params': block}, Derived().apply(inner, X))
  variables['params']['inner']['se'] = block
  assert_close(model.apply(variables, X), expected)


@pytest.mark.parametrize('squeeze', ['avg', 'max', 'none'])
@pytest.mark.parametrize('shape', [(8, 36, 3), (8, 6, 3, 2, 3)], ids=str)
def test_any_number_of_axes_between_images_and_channels(shape, squeeze):
  """As of an image whose pixels are along them."""
  se, x = SEConfig(ratio=2, squeeze=squeeze), X.reshape(shape)
  kernel = (1,) * (x.ndim - 2)
  model = add_squeeze_excite(Holder(nn.Conv(3, kernel)), 'inner', se)
  variables = init(model, x)
  y, state = model.apply(variables, x, mutable=['intermediates'])
  params = dict(variables['params']['inner'])
  block = params.pop('se')
  convolved = nn.Conv(3, kernel).apply({'params': params}, x).reshape(8, 6, 6, 3)
  expected = SqueezeExcite(se).apply({'params': block}, convolved)
  assert_close(y, expected.reshape(shape))
  (gate,) = excitations(state['intermediates']).values()
  assert gate.shape == (shape if squeeze == 'none' else (8, 3))


def test_a_module_that_is_called_twice_has_one_block():
  model = add_squeeze_excite(Holder(nn.Conv(3, (1, 1)), times=2), 'inner', SE)
  variables = init(model)
  params = dict(variables['params']['inner'])
  se, expected = params.pop('se'), X
  for _ in range(2):
    expected = nn.Conv(3, (1, 1)).apply({'params': params}, expected)
    expected = SqueezeExcite(SE).apply({'params': se}, expected)
  assert_close(model.apply(variables, X), expected)


class Outer(nn.Module):
  """Has a wrapped module, made in `setup` or in the call, and runs it twice."""

  in_setup: bool

  def setup(self):
    if self.in_setup:
      self.net = self.make()

  def make(self):
    return add_squeeze_excite(Transformed(RematBlock, name='net', parent=None), 'b/*', SE)

  @nn.compact
  def __call__(self, x):
    net = self.net if self.in_setup else self.make()
    return net(net(nn.Conv(4, (1, 1), name='first')(x)))


@pytest.mark.parametrize('transform', [lambda m: m, nn.remat, nn.jit], ids=['none', 'remat', 'jit'])
@pytest.mark.parametrize('in_setup', [False, True])
def test_inside_other_modules(in_setup, transform):
  model = transform(Outer)(in_setup)
  variables = init(model)
  assert blocks(variables) == ['net/b/BatchNorm_0', 'net/b/Conv_0']
  gradient = jax.jit(jax.grad(lambda p: (model.apply({**variables, 'params': p}, X) ** 2).sum()))
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient(variables['params'])))


def test_wrapping_again_adds_blocks_with_other_options():
  once = add_squeeze_excite(Net(), 'Block_0/Conv_0', SE)
  twice = add_squeeze_excite(once, '**/BatchNorm_0', SEConfig(ratio=1, use_bias=False))
  params = flat(init(twice)['params'])
  assert params['Block_0/Conv_0/se/fc1/kernel'].shape == (4, 2)
  assert params['Block_1/BatchNorm_0/se/fc1/kernel'].shape == (4, 4)
  assert 'Block_1/BatchNorm_0/se/fc1/bias' not in params
  assert len([path for path in params if path.endswith('fc1/kernel')]) == 3
  assert blocks(init(once)) == ['Block_0/Conv_0']


def test_shard_map():
  model = add_squeeze_excite(Net(), 'Block_*/BatchNorm_0', SE)
  variables = init(model)

  def loss(params, x):
    return (model.apply({**variables, 'params': params}, x) ** 2).mean()

  def step(params, x):
    return jax.lax.pmean(jax.grad(loss)(params, x), 'data')

  mesh = jax.make_mesh((8,), ('data',), axis_types=(jax.sharding.AxisType.Auto,))
  specs = {'in_specs': (PartitionSpec(), PartitionSpec('data')), 'out_specs': PartitionSpec()}
  parallel = jax.jit(jax.shard_map(step, mesh=mesh, check_vma=False, **specs))
  expected = jax.jit(jax.grad(loss))(variables['params'], X)
  jax.tree.map(assert_close, parallel(variables['params'], X), expected)


# Mistakes.


class WithSE(nn.Module):
  """Has an entry `se` in `unit`, in one of the ways that there are."""

  kind: str

  @nn.compact
  def __call__(self, x):
    return WithSEUnit(self.kind, name='unit')(x)


class WithSEUnit(nn.Module):
  kind: str

  @nn.compact
  def __call__(self, x):
    if self.kind == 'parameter':
      return x * self.param('se', nn.initializers.ones, (3,))
    return nn.Conv(3, (1, 1), name='se')(x)


@pytest.mark.parametrize(
  ('model', 'message'),
  [
    (
      lambda: add_squeeze_excite(Net(), ('module', 'Blok_*'), SE),
      r"where='Blok_\*' matches no submodule that is called; there are Block_0, "
      r'Block_0/BatchNorm_0, Block_0/Conv_0, Block_1, Block_1/BatchNorm_0, Block_1/Conv_0, '
      r'Dense_0, Dropout_0, module\.',
    ),
    (
      lambda: add_squeeze_excite(create_model('resnet50'), 'stage?_block?/bn4'),
      r"'stage\?_block\?/bn4' matches no submodule that is called; there are "
      r'(stage\d_block\d/bn\d, ){48}(\S+, ){74}\S+\.(\n|$)',
    ),
    (lambda: add_squeeze_excite(Net(), 'Dense_0', SE), r'^Dense_0 returns \[8, 3\], and an SE '),
    (
      lambda: add_squeeze_excite(Transformed(ScanBlock), 'b', SE),
      r'^b returns \(\[8, 6, 6, 4\], None\), .*one array \[N, \.\.\., C\] of three axes or mo',
    ),
    (
      lambda: add_squeeze_excite(Net(), 'module'),
      r'model\.se\.ratio=16 leaves no hidden unit for 4 channels',
    ),
    (lambda: add_squeeze_excite(WithSE('parameter'), 'unit', SE), "^unit has an entry 'se' alrea"),
    (lambda: add_squeeze_excite(WithSE('module'), 'unit', SE), "^unit has an entry 'se' already"),
    (
      lambda: add_squeeze_excite(add_squeeze_excite(Net(), 'module', SE), '[lm]*', SE),
      "^module has an entry 'se' already",
    ),
  ],
)  # fmt: skip
def test_mistakes_that_a_call_shows(model, message):
  with pytest.raises(UserError, match=message) as caught:
    jax.eval_shape(lambda x: _init(model(), x), X)
  assert '\n' not in str(caught.value)


def _init(model, x):
  ours = not isinstance(model.plan.module, Net | WithSE | Transformed)
  return model.init(KEY, x, **({'train': False} if ours else {}))


@pytest.mark.parametrize('where', ['Blok_*', ('Block_*/Conv_0', 'Blok_*')], ids=str)
def test_evaluation_tells_of_a_pattern_without_a_match(where):
  model, variables = add_squeeze_excite(Net(), where, SE), init(Net())
  if not isinstance(where, str):
    variables = init(add_squeeze_excite(Net(), where[0], SE))
  with pytest.raises(UserError, match=r"where='Blok_\*' matches no submodule that is called"):
    jax.eval_shape(model.apply, variables, X)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((Net, 'a'), 'must be a Flax linen module'),
    ((Net(), 'a', {'ratio': 8}), 'must be a senet_jax.layers.SEConfig'),
    ((Net(), 'a', None), 'must be a senet_jax.layers.SEConfig'),
    ((Net(), 'a', SEConfig(position='pre')), 'position, se.stages and se.without have no effect'),
    ((Net(), 'a', SEConfig(stages=3)), 'position, se.stages and se.without have no effect'),
    ((Net(), 'a', SEConfig(without=('SE_2_1',))), 'se.without have no effect'),
    ((Net(), []), r'where=\[\] must be a pattern'),
    ((Net(), ''), "where='' must be a pattern"),
    ((Net(), ('a', 3)), r"where=\('a', 3\) must be a pattern"),
    ((Net(parent=None).bind({}), 'a'), 'is part of another'),
  ],
)
def test_mistakes_in_arguments(arguments, message):
  with pytest.raises(UserError, match=message) as caught:
    add_squeeze_excite(*arguments)
  assert '\n' not in str(caught.value)


def test_a_submodule_that_evaluation_does_not_run_keeps_its_block():
  class Auxiliary(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      auxiliary = nn.Conv(2, (1, 1), name='auxiliary')
      return auxiliary(x) if train else x

  model = add_squeeze_excite(Auxiliary(), 'auxiliary', SEConfig(ratio=1))
  variables = init(model, train=True)
  assert model.apply(variables, X, train=True).shape == (8, 6, 6, 2)
  assert np.array_equal(model.apply(variables, X, train=False), X)
