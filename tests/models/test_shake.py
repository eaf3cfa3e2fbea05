"""Shake-Shake and Shake-Even: the mix of branches, its gradient, and the networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.complexity.counts import complexity
from senet_jax.errors import UserError
from senet_jax.layers import SEConfig, excitations, shake
from senet_jax.models import Preprocessing, create_model, list_models, model_info, shake as family
from tests.helpers.models import some_images, tree_of, variables_of
from tests.helpers.torch_parity import (
  SE,
  checked_variables,
  compare_evaluation,
  near,
  randomized,
  to_flax,
)

torch = pytest.importorskip('torch')
nn, F = torch.nn, torch.nn.functional

BIAS, NO_BIAS = SEConfig(), SEConfig(use_bias=False)
SHAKE_SHAKE, SHAKE_EVEN = 'shake_shake26_2x96d', 'shake_even29_2x4x64d'


# The mix.


@functools.partial(jax.jit, static_argnames='backward')
def mix_and_pull(a, b, gradient, rng, backward='shake'):
  """The mix of `a` and `b` in training, and what becomes of `gradient`."""
  y, pull = jax.vjp(lambda a, b: shake(a, b, rng, True, backward), a, b)
  return y, *pull(gradient)


def coefficients(n, key=None, backward='shake'):
  """α and β of `n` images: what a one and a zero are mixed to, and the share of a gradient."""
  one = jnp.ones((n, 1))
  key = jax.random.key(0) if key is None else key
  alpha, beta, _ = mix_and_pull(one, 0 * one, one, key, backward)
  return np.array(alpha[:, 0]), np.array(beta[:, 0])


def some_branches(n=6, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(1), 3)
  return [jax.random.normal(key, (n, 4, 5, 3), dtype) for key in keys]


@pytest.mark.parametrize('backward', ['shake', 'even'])
def test_forward_has_alpha_and_backward_beta(backward):
  key, (a, b, gradient) = jax.random.key(3), some_branches()
  y, of_a, of_b = mix_and_pull(a, b, gradient, key, backward)
  alpha, beta = (c[:, None, None, None] for c in coefficients(len(a), key, backward))
  np.testing.assert_allclose(y, alpha * a + (1 - alpha) * b, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(of_a, beta * gradient, rtol=1e-6)
  np.testing.assert_allclose(of_b, (1 - beta) * gradient, rtol=1e-5, atol=1e-6)
  assert np.abs(alpha - beta).min() > 1e-3
  assert np.all(beta == 0.5) == (backward == 'even')


def test_training_needs_random_numbers():
  a, b, _ = some_branches()
  np.testing.assert_allclose(shake(a, b, None, False), (a + b) / 2)
  with pytest.raises(UserError, match=r'coefficients in training: rng=None must be a key'):
    shake(a, b, rng=None, train=True)


@pytest.mark.parametrize('backward', ['shake', 'even'])
def test_images_have_coefficients_of_their_own(backward):
  n = 40_000
  alpha, beta = coefficients(n, backward=backward)
  drawn = [alpha, beta] if backward == 'shake' else [alpha]
  for values in drawn:
    assert 0 <= values.min() < 1e-3 and 1 - 1e-3 < values.max() <= 1
    # Uniform; the bounds are four standard errors.
    assert abs(values.mean() - 1 / 2) < 4 * np.sqrt(1 / 12 / n)
    assert abs(values.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / n)
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 4 / np.sqrt(n)
    assert len(np.unique(values)) > 0.99 * n
  if backward == 'shake':
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 4 / np.sqrt(n)


def test_mean_over_draws_is_the_evaluation():
  a, b, gradient = some_branches(n=2)
  draws = 4000
  keys = jax.random.split(jax.random.key(5), draws)
  y, of_a, of_b = jax.vmap(lambda key: mix_and_pull(a, b, gradient, key))(keys)
  error = 4 * np.sqrt(1 / 12 / draws)  # four standard errors of a mean coefficient
  expected = shake(a, b, None, False)
  assert (np.abs(y.mean(0) - expected) <= error * np.abs(a - b) + 1e-5).all()
  for mean in (of_a.mean(0), of_b.mean(0)):
    assert (np.abs(mean - gradient / 2) <= error * np.abs(gradient) + 1e-5).all()


def test_evaluation_is_half_and_half():
  a, b, gradient = some_branches()
  y, pull = jax.vjp(lambda a, b: shake(a, b, None, False), a, b)
  np.testing.assert_allclose(y, (a + b) / 2, rtol=1e-6)
  for share in pull(gradient):
    np.testing.assert_allclose(share, gradient / 2, rtol=1e-6)


def test_draws_depend_on_the_key_alone():
  first, again, other = (coefficients(50, jax.random.key(seed)) for seed in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first[0] - other[0]).min() > 0
  assert np.abs(first[1] - other[1]).min() > 0


def test_the_mix_works_under_remat_and_in_bfloat16():
  a, b, gradient = some_branches(dtype=jnp.bfloat16)
  rng = jax.random.key(3)
  y, pull = jax.vjp(jax.checkpoint(lambda a, b: shake(a, b, rng, True)), a, b)
  for actual, expected in zip((y, *pull(gradient)), mix_and_pull(a, b, gradient, rng), strict=True):
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual, expected)


def test_unknown_backward():
  with pytest.raises(UserError, match=r"model\.backward='shak' is unknown; did you mean 'shake'"):
    shake(jnp.ones((1, 1)), jnp.ones((1, 1)), None, False, 'shak')


# Counts of independent definitions.


@pytest.mark.parametrize(
  ('name', 'options', 'params', 'stats', 'macs', 'se_macs', 'squeezed'),
  [
    (SHAKE_SHAKE, {}, 26_192_922, 22_880, 3_776_892_672, 0, 0),
    (SHAKE_SHAKE, {'se': NO_BIAS}, 26_386_458, 22_880, 3_777_086_208, 193_536, 1_376_256),
    (SHAKE_SHAKE, {'se': BIAS}, 26_392_170, 22_880, 3_777_086_208, 193_536, 1_376_256),
    (
      SHAKE_SHAKE,
      {'se': NO_BIAS, 'se_at': 'mix'},
      *(26_289_690, 22_880, 3_776_989_440, 96_768, 688_128),
    ),
    (
      SHAKE_SHAKE,
      {'se': BIAS, 'se_at': 'mix'},
      *(26_292_546, 22_880, 3_776_989_440, 96_768, 688_128),
    ),
    (SHAKE_EVEN, {}, 34_529_700, 68_224, 5_387_358_208, 0, 0),
    (SHAKE_EVEN, {'se': NO_BIAS}, 35_561_892, 68_224, 5_388_390_400, 1_032_192, 2_752_512),
    (SHAKE_EVEN, {'se': BIAS}, 35_573_316, 68_224, 5_388_390_400, 1_032_192, 2_752_512),
    (
      SHAKE_EVEN,
      {'se': NO_BIAS, 'se_at': 'mix'},
      *(35_045_796, 68_224, 5_387_874_304, 516_096, 1_376_256),
    ),
    (
      SHAKE_EVEN,
      {'se': BIAS, 'se_at': 'mix'},
      *(35_051_508, 68_224, 5_387_874_304, 516_096, 1_376_256),
    ),
  ],
)
def test_networks_cost_what_independent_definitions_cost(
  name, options, params, stats, macs, se_macs, squeezed
):
  cost = complexity(create_model(name, **options), 32)
  assert (cost.params, cost.batch_stats, cost.macs) == (params, stats, macs)
  assert (cost.se_macs, cost.squeezed_elements) == (se_macs, squeezed)
  assert cost.se_weights == cost.equation_5 == se_macs
  assert list(cost.stages) == ['stem', 'stage2', 'stage3', 'stage4', 'head']


# The registry and the options.


@pytest.mark.parametrize(
  ('name', 'classes', 'table', 'error', 'se_error'),
  [(SHAKE_SHAKE, 10, 'table_4', 2.56, 2.12), (SHAKE_EVEN, 100, 'table_5', 15.85, 15.41)],
)
def test_info(name, classes, table, error, se_error):
  assert set(list_models(f'*{name}')) == {name, f'se_{name}'}
  for full_name, top1 in ((name, error), (f'se_{name}', se_error)):
    info = model_info(full_name)
    assert (info.image_size, info.num_classes, info.family) == (32, classes, 'shake')
    assert info.preprocessing == Preprocessing()
    assert info.published == {table: {'top1_error': top1}}
    assert create_model(full_name).num_classes == classes


@pytest.mark.parametrize(
  ('name', 'overrides', 'message'),
  [
    (SHAKE_SHAKE, {'backward': 'none'}, r"model\.backward='none' .*shake, even"),
    (SHAKE_SHAKE, {'shortcut': 'pad'}, r"model\.shortcut='pad' .*shifted, projection"),
    (SHAKE_SHAKE, {'se_at': 'mix'}, r"model\.se_at='mix' has no effect on a network without SE"),
    (SHAKE_SHAKE, {'groups': 2}, 'groups has no effect on shake_shake26_2x96d'),
    (SHAKE_SHAKE, {'width': 3}, r'model\.width=3 must be even'),
    (f'se_{SHAKE_SHAKE}', {'se_at': 'branches'}, "did you mean 'branch'"),
    (f'se_{SHAKE_EVEN}', {'se': SEConfig(position='pre')}, r"model\.se\.position='pre' .*standard"),
    (f'se_{SHAKE_EVEN}', {'se': SEConfig(stages=(2, 5))}, r'model\.se\.stages=5'),
  ],
)
def test_mistakes_are_named(name, overrides, message):
  with pytest.raises(UserError, match=message) as caught:
    create_model(name, **overrides)
  assert '\n' not in str(caught.value)


# Small versions.

SMALL = {SHAKE_SHAKE: {'width': 8, 'stem_width': 4}, SHAKE_EVEN: {'width': 4, 'stem_width': 4}}


def small(name, depths=(1, 1), **options):
  return create_model(
    f'se_{name}', 5, **{'depths': depths, 'se': SEConfig(ratio=4), **SMALL[name], **options}
  )


@pytest.mark.parametrize('name', SMALL)
def test_passes(name):
  model, x = small(name), some_images(2, 10)
  variables = variables_of(model, x)

  @functools.partial(jax.jit, static_argnames='train')
  def run(variables, x, train):
    def loss(params):
      logits, new = model.apply(
        {**variables, 'params': params},
        x,
        train=train,
        mutable=['batch_stats', 'intermediates'],
        rngs={'shake': jax.random.key(2)} if train else None,
      )
      return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[:, 0]), (logits, new)

    return jax.grad(loss, has_aux=True)(variables['params'])

  for n, train in ((1, False), (1, True), (2, True)):  # the comparisons with torch are of two
    gradients, (logits, new) = run(variables, x[:n], train)
    assert (logits.shape, logits.dtype) == ((n, 5), jnp.float32)
    for path, leaf in jax.tree.leaves_with_path((gradients, logits, new)):
      assert np.isfinite(leaf).all(), path
  for path, leaf in jax.tree.leaves_with_path(gradients):
    assert np.any(leaf), f'{path} does not take part'
  moved = jax.tree.map(np.array_equal, new['batch_stats'], variables['batch_stats'])
  assert not any(jax.tree.leaves(moved))
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
  assert tree_of(model) == shapes


def test_rngs():
  model, x = small(SHAKE_SHAKE, depths=(2,)), some_images(2, 8)
  variables = variables_of(model, x)
  apply = functools.partial(model.apply, variables, x, mutable='batch_stats')

  def run(seed):
    return apply(train=True, rngs={'shake': jax.random.key(seed)})[0]

  first, again, other = run(0), run(0), run(1)
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  apply(train=False)
  with pytest.raises(Exception, match='shake'):
    apply(train=True)
  # `init` needs none, and makes the same variables.
  trees = [
    jax.eval_shape(functools.partial(model.init, train=train), jax.random.key(0), x)
    for train in (True, False)
  ]
  assert trees[0] == trees[1]


@pytest.mark.parametrize('name', SMALL)
def test_gates_have_names(name):
  x = jnp.zeros((2, 8, 8, 3))
  for se_at, ends in (('branch', ('_branch1', '_branch2')), ('mix', ('',))):
    model = small(name, se_at=se_at)
    apply = functools.partial(model.apply, train=False, mutable=['intermediates'])
    _, new = jax.eval_shape(apply, tree_of(model), x)
    units = ('SE_2_1', 'SE_3_1')
    assert list(excitations(new['intermediates'])) == [u + end for u in units for end in ends]


def test_bfloat16():
  x = some_images(2, 8)
  full, half = (small(SHAKE_SHAKE, dtype=dtype) for dtype in ('float32', 'bfloat16'))
  variables = variables_of(full, x)
  assert tree_of(half) == tree_of(full)
  expected, logits = (
    jax.jit(functools.partial(model.apply, train=False))(variables, x) for model in (full, half)
  )
  assert logits.dtype == jnp.float32
  assert 0 < np.abs(logits - expected).max() < 0.03 * np.abs(expected).max()


# Equality with a torch definition, weights and BN statistics random.


class Branch(nn.Sequential):
  """Convolutions, each with BN, ReLUs between them, and SE."""

  def __init__(self, inputs, shapes, ratio):
    super().__init__()
    self.count = len(shapes)
    for i, (kernel, features, stride, groups) in enumerate(shapes, start=1):
      padding = kernel // 2
      conv = nn.Conv2d(inputs, features, kernel, stride, padding, groups=groups, bias=False)
      self.add_module(f'conv{i}', conv)
      self.add_module(f'bn{i}', nn.BatchNorm2d(features))
      inputs = features
    self.se = SE(inputs, ratio) if ratio else nn.Identity()

  def forward(self, x):
    for i in range(1, self.count + 1):
      x = getattr(self, f'bn{i}')(getattr(self, f'conv{i}')(x))
      x = F.relu(x) if i < self.count else self.se(x)
    return x


class Unit(nn.Module):
  """Two branches and a shortcut; `mixed(a, b)` mixes."""

  def __init__(self, inputs, outputs, shapes, stride, even, ratio, mix_ratio, mixed):
    super().__init__()
    self.stride, self.even, self.mixed = stride, even, mixed
    self.branch1, self.branch2 = (Branch(inputs, shapes, ratio) for _ in range(2))
    self.se = SE(outputs, mix_ratio) if mix_ratio else nn.Identity()
    self.project = inputs != outputs
    if self.project and even:
      self.proj_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    elif self.project:
      self.proj_conv1, self.proj_conv2 = (
        nn.Conv2d(inputs, outputs // 2, 1, bias=False) for _ in range(2)
      )
    if self.project:
      self.proj_bn = nn.BatchNorm2d(outputs)

  def forward(self, x):
    activated = x if self.even else F.relu(x)
    y = self.se(self.mixed(self.branch1(activated), self.branch2(activated)))
    if self.project and self.even:
      x = self.proj_bn(self.proj_conv(x))
    elif self.project:
      # As the Torch code: one more row and column in front, one less behind.
      images = activated, F.pad(activated, (1, -1, 1, -1))
      paths = [F.avg_pool2d(image, 1, self.stride) for image in images]
      x = self.proj_bn(torch.cat([self.proj_conv1(paths[0]), self.proj_conv2(paths[1])], 1))
    return F.relu(x + y) if self.even else x + y


class Network(nn.Module):
  """Shake-Shake, or Shake-Even with its ReLUs behind and its bottlenecks in groups."""

  def __init__(self, depths, width, stem, classes, even, ratio=0, mix_ratio=0):
    super().__init__()
    self.even, self.stages = even, len(depths)
    self.conv1, self.bn1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem)
    inputs, self.coefficients = stem, None
    for stage, depth in enumerate(depths):
      units, n = [], width * 2**stage
      outputs = 4 * n if even else n
      for block in range(depth):
        stride = 2 if stage and not block else 1
        shapes = [(3, n, stride, 1), (3, n, 1, 1)]
        if even:
          shapes = [(1, 4 * n, 1, 1), (3, 4 * n, stride, 4), (1, outputs, 1, 1)]
        units.append(Unit(inputs, outputs, shapes, stride, even, ratio, mix_ratio, self.mixed))
        inputs = outputs
      setattr(self, f'layer{stage + 1}', nn.Sequential(*units))
    self.fc = nn.Linear(inputs, classes)

  def mixed(self, a, b):
    if not self.training:
      return (a + b) / 2
    alpha, beta = self.coefficients.pop(0)
    return beta * a + (1 - beta) * b + ((alpha - beta) * (a - b)).detach()

  def forward(self, x):
    x = self.bn1(self.conv1(x))
    x = F.relu(x) if self.even else x
    for stage in range(1, self.stages + 1):
      x = getattr(self, f'layer{stage}')(x)
    return self.fc((x if self.even else F.relu(x)).mean((2, 3)))


@pytest.mark.parametrize('se_at', ['branch', 'mix'])
@pytest.mark.parametrize('name', SMALL)
def test_evaluation_is_the_torch_one(name, se_at):
  model = small(name, (1, 2), se_at=se_at)
  ratios = (4, 0) if se_at == 'branch' else (0, 4)
  widths = model.width, model.stem_width
  network = Network(model.depths, *widths, 5, name == SHAKE_EVEN, *ratios)
  compare_evaluation(model, network, 13, 16)


@pytest.mark.parametrize('name', SMALL)
def test_training_is_the_torch_one(name, monkeypatch):
  """With the coefficients that torch is told, units and images each with their own."""
  n, model, even = 4, small(name, depths=(1, 2), se=SEConfig(ratio=2)), name == SHAKE_EVEN
  rng = np.random.default_rng(2)
  images, labels = rng.standard_normal((n, 9, 8, 3)).astype('f4'), rng.integers(0, 5, n)
  network = Network(model.depths, model.width, model.stem_width, 5, even, 2)
  randomized(network).train()
  variables = checked_variables(model, network, images)
  drawn, keys = [], []

  def recorded(a, b, key, train, backward):
    found = coefficients(n, key, backward)
    drawn.append([torch.from_numpy(c)[:, None, None, None].double() for c in found])
    keys.append(tuple(jax.random.key_data(key).tolist()))
    return shake(a, b, key, train, backward)

  monkeypatch.setattr(family, 'shake', recorded)

  def loss_of(params):
    logits, _ = model.apply(
      {**variables, 'params': params},
      images,
      train=True,
      mutable=['batch_stats'],
      rngs={'shake': jax.random.key(7)},
    )
    return -jnp.mean(jax.nn.log_softmax(logits)[np.arange(n), labels])

  actual_loss, actual = jax.value_and_grad(loss_of)(variables['params'])
  assert len(set(keys)) == len(keys) == sum(model.depths)
  network.coefficients = drawn
  logits = network(torch.from_numpy(images.transpose(0, 3, 1, 2)).double())
  loss = F.cross_entropy(logits, torch.from_numpy(labels))
  loss.backward()
  expected = to_flax({name: p.grad for name, p in network.named_parameters()})['params']
  np.testing.assert_allclose(actual_loss, loss.item(), rtol=1e-5)
  jax.tree.map_with_path(
    lambda path, a, b: near(a, b, 1e-3, jax.tree_util.keystr(path)), actual, expected
  )
