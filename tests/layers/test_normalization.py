"""BatchNorm against a float64 computation, torch, and itself on other devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec as P

from senet_jax.errors import UserError
from senet_jax.layers import BatchNorm, BatchNormConfig
from tests.helpers.parity import twin

EPSILON = 1e-5
N, H, W, C = 16, 3, 5, 4


def arrays(seed=0, shape=(N, H, W, C), mean=2.0, std=3.0):
  """Input, cotangent and variables."""
  rng = np.random.default_rng(seed)
  channels = shape[-1]
  draw = lambda *size: rng.standard_normal(size).astype(np.float32)  # noqa: E731
  x = mean + std * draw(*shape)
  variables = {
    'params': {'scale': 1 + 0.3 * draw(channels), 'bias': draw(channels)},
    'batch_stats': {'mean': draw(channels), 'var': rng.uniform(0.5, 2, channels).astype('f4')},
  }
  return x, draw(*shape), variables


def oracle(x, variables, groups=1, momentum=0.9):
  """Training output and new statistics, float64; the running variance is the biased one."""
  x = x.astype(np.float64)
  params, stats = variables['params'], variables['batch_stats']
  parts = np.split(x, groups)
  means = np.stack([p.mean((0, 1, 2)) for p in parts])
  variances = np.stack([p.var((0, 1, 2)) for p in parts])
  y = np.concatenate(
    [
      (p - m) / np.sqrt(v + EPSILON) * params['scale'] + params['bias']
      for p, m, v in zip(parts, means, variances, strict=True)
    ]
  )
  new = {
    'mean': momentum * stats['mean'] + (1 - momentum) * means.mean(0),
    'var': momentum * stats['var'] + (1 - momentum) * variances.mean(0),
  }
  return y, new


def train(variables, x, **options):
  y, new = BatchNorm(BatchNormConfig(**options)).apply(
    variables, x, train=True, mutable=['batch_stats']
  )
  return y, new['batch_stats']


def gradients(variables, x, cotangent, **options):
  """Of `mean(cotangent * y)` with respect to the parameters and the input."""

  def loss(params, x):
    y, new = train({**variables, 'params': params}, x, **options)
    return jnp.mean(cotangent * y), new

  return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables['params'], x)


def close(actual, expected, tolerance=1e-5):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
    dict(actual) if isinstance(actual, dict) else actual,
    expected,
  )


def test_init():
  variables = BatchNorm().init(jax.random.key(0), jnp.full((2, 3, 3, 5), 7.0), train=True)
  assert set(variables) == {'params', 'batch_stats'}
  close(variables['params'], {'scale': np.ones(5), 'bias': np.zeros(5)}, 0)
  close(variables['batch_stats'], {'mean': np.zeros(5), 'var': np.ones(5)}, 0)


def test_local_equals_oracle():
  x, _, variables = arrays()
  y, stats = train(variables, x, momentum=0.8)
  expected, expected_stats = oracle(x, variables, momentum=0.8)
  close(y, expected)
  close(stats, expected_stats)


def test_evaluation_normalizes_by_running_statistics():
  x, _, variables = arrays()
  params, stats = variables['params'], variables['batch_stats']
  y = BatchNorm().apply(variables, x, train=False)
  expected = (x - stats['mean']) / np.sqrt(stats['var'] + EPSILON) * params['scale']
  close(y, expected + params['bias'])


def test_local_equals_torch(golden):
  x, cotangent, variables = arrays()
  theirs = golden(twin('layers.batch_norm', variables, x, cotangent))
  y, stats = train(variables, x)
  theirs['y'].check(y, 1e-5)
  theirs['mean'].check(stats['mean'], 1e-5)
  # Torch adds the unbiased variance, n / (n - 1) times ours, to its running one.
  n, kept = N * H * W, 0.9 * variables['batch_stats']['var']
  theirs['var'].check(kept + (stats['var'] - kept) * n / (n - 1), 1e-5)
  assert theirs['var'].error(stats['var']) > 1e-3 * theirs['var'].scale
  (d_params, d_x), _ = gradients(variables, x, cotangent)
  for name, gradient in {**d_params, 'x': d_x}.items():
    theirs[f'gradient of {name}'].check(gradient, 2e-5, name)


def test_variance_keeps_its_digits_where_the_mean_is_large():
  x, _, variables = arrays(shape=(32, 8, 8, C), mean=100.0, std=1.0)
  expected = x.astype(np.float64).var((0, 1, 2))

  def error(center):
    stats = {'mean': center.astype(np.float32), 'var': np.zeros(C, np.float32)}
    step = jax.jit(functools.partial(train, momentum=0.0))  # Unjitted sums are cruder on CPU.
    _, new = step({**variables, 'batch_stats': stats}, x)
    return np.max(np.abs(new['var'] - expected) / expected)

  fresh, warm = error(np.zeros(C)), error(x.mean((0, 1, 2)) + 0.5)
  # With |mean| / std = 100, E[x²] - E[x]² about 0 loses four of float32's seven digits: this is
  # what the first steps of a training have. With the running mean in place nothing is lost.
  assert fresh < 1e-2
  assert warm < 2e-6
  assert fresh > 10 * warm


@pytest.mark.parametrize('size', [2, 4, 16])
def test_ghost_equals_independent_norms(size):
  x, cotangent, variables = arrays()
  y, stats = train(variables, x, scope='ghost', ghost_size=size)
  expected, expected_stats = oracle(x, variables, groups=N // size)
  close(y, expected)
  close(stats, expected_stats)
  _, d_x = gradients(variables, x, cotangent, scope='ghost', ghost_size=size)[0]
  parts = [
    gradients(variables, x[i : i + size], cotangent[i : i + size])[0][1] for i in range(0, N, size)
  ]
  close(1e3 * d_x, 1e3 * np.concatenate(parts) * size / N)


def test_ghost_size_must_divide():
  x, _, variables = arrays()
  with pytest.raises(UserError, match=r'^bn\.ghost_size=5 does not divide the 16 images .*change'):
    train(variables, x, scope='ghost', ghost_size=5)
  with pytest.raises(UserError, match=r'^bn\.ghost_size=0 must be at least 1'):
    BatchNormConfig(scope='ghost')
  with pytest.raises(UserError, match=r"^bn\.scope='glboal' is unknown; did you mean 'global'"):
    BatchNormConfig(scope='glboal')


def on_8_devices(variables, x, cotangent, scope):
  """Outputs, averaged statistics and gradients of a data-parallel step on eight devices."""

  @jax.jit
  @functools.partial(
    jax.shard_map,
    mesh=Mesh(np.array(jax.devices()[:8]), ('data',)),
    in_specs=(P(), P('data'), P('data')),
    out_specs=(P('data'), P(), P(), P('data')),
    check_vma=False,
  )
  def step(variables, x, cotangent):
    y, stats = train(variables, x, scope=scope)
    (d_params, d_x), _ = gradients(variables, x, cotangent, scope=scope)
    stats, d_params = jax.lax.pmean((stats, d_params), 'data')
    return y, stats, d_params, d_x / 8

  return step(variables, x, cotangent)


def test_global_on_8_devices_equals_one_device():
  x, cotangent, variables = arrays()
  x += np.arange(N, dtype=np.float32)[:, None, None, None]  # Each device has its own mean.
  y, stats, d_params, d_x = on_8_devices(variables, x, cotangent, 'global')
  expected, expected_stats = oracle(x, variables)
  close(y, expected)
  close(stats, expected_stats)
  (expected_d_params, expected_d_x), _ = gradients(variables, x, cotangent)
  close(d_params, expected_d_params, 1e-6)
  close(1e3 * d_x, 1e3 * expected_d_x)


def test_local_on_8_devices_normalizes_each_shard():
  x, cotangent, variables = arrays()
  y, stats, _, d_x = on_8_devices(variables, x, cotangent, 'local')
  expected, expected_stats = oracle(x, variables, groups=8)
  close(y, expected)
  close(stats, expected_stats)
  shards = [gradients(variables, x[i : i + 2], cotangent[i : i + 2])[0][1] for i in range(0, N, 2)]
  close(1e3 * d_x, 1e3 * np.concatenate(shards) / 8)


def test_frozen():
  x, cotangent, variables = arrays()
  y, stats = train(variables, x, frozen=True)
  np.testing.assert_array_equal(y, BatchNorm().apply(variables, x, train=False))
  close(stats, variables['batch_stats'], 0)
  (d_params, d_x), _ = gradients(variables, x, cotangent, frozen=True)
  slope = variables['params']['scale'] / np.sqrt(variables['batch_stats']['var'] + EPSILON)
  close(1e3 * d_x, 1e3 * cotangent * slope / x.size)
  assert np.abs(d_params['scale']).min() > 0  # The parameters still train.


def test_frozen_by_path():
  """In the modules named, as `nn.BatchNorm` with running statistics; elsewhere as ever."""
  x, _, variables = arrays()
  names = ('stem_bn', 'stage2_bn', 'stage20_bn', 'head')

  class Inner(nn.Module):
    bn: BatchNormConfig

    @nn.compact
    def __call__(self, x, train):
      return BatchNorm(self.bn, name='stem_bn')(x, train)

  class Net(nn.Module):
    bn: BatchNormConfig

    @nn.compact
    def __call__(self, x, train):
      norms = [BatchNorm(self.bn, name=name) for name in names[:3]]
      return [norm(x, train) for norm in (*norms, Inner(self.bn, name=names[3]))]

  each = {kind: dict.fromkeys(names[:3], of) for kind, of in variables.items()}
  each = {kind: {**of, 'head': {'stem_bn': of['stem_bn']}} for kind, of in each.items()}
  net = Net(BatchNormConfig(frozen=('stem_', 'stage2_')))
  outputs, new = net.apply(each, x, train=True, mutable=['batch_stats'])
  flax = nn.BatchNorm(use_running_average=True, epsilon=EPSILON).apply(variables, x)
  batch, moved = train(variables, x)
  for name, y in zip(names, outputs, strict=True):
    frozen = name in ('stem_bn', 'stage2_bn')  # not head/stem_bn
    close(y, flax if frozen else batch)
    stats = new['batch_stats'][name].get('stem_bn', new['batch_stats'][name])
    close(stats, variables['batch_stats'] if frozen else moved, 0)


def test_bfloat16_keeps_variables_and_arithmetic_float32():
  x, _, variables = arrays()
  half = jnp.asarray(x, jnp.bfloat16)
  module = BatchNorm(dtype=jnp.bfloat16)
  created = jax.eval_shape(functools.partial(module.init, train=True), jax.random.key(0), half)
  assert {leaf.dtype for leaf in jax.tree.leaves(created)} == {jnp.dtype('float32')}
  y, new = module.apply(variables, half, train=True, mutable=['batch_stats'])
  assert y.dtype == jnp.bfloat16
  expected, expected_stats = oracle(np.asarray(half, np.float32), variables)
  assert {leaf.dtype for leaf in jax.tree.leaves(new)} == {jnp.dtype('float32')}
  close(new['batch_stats'], expected_stats)
  np.testing.assert_allclose(np.asarray(y, np.float32), expected, rtol=2**-8, atol=1e-5)
