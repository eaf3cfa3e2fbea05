"""BN, squeeze-and-excitation, addition and ReLU in one: against float64, and the textbook form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from senet_jax import runtime
from senet_jax.layers import (
  BatchNorm,
  BatchNormConfig,
  SEConfig,
  SqueezeExcite,
  materialize,
  max_pool,
)
from senet_jax.layers.pooling import compare_again, plain_max_pool
from senet_jax.models import create_model
from tests.helpers.parity import twin

N, H, W, C = 8, 5, 6, 16
EPSILON = 1e-5


class Unit(nn.Module):
  """The end of a residual unit."""

  fused: bool
  bn: BatchNormConfig = BatchNormConfig()
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, residual, train=True):
    norm = BatchNorm(self.bn, self.dtype, deferred=self.fused, image_means=self.fused, name='bn')
    y = SqueezeExcite(SEConfig(ratio=4), name='se')(norm(x, train))
    return materialize(y, residual, relu=True)


def unit_inputs(offset: float, seed: int = 0):
  """`x` whose channels have |mean| / std = offset, a residual, a cotangent, and variables."""
  rng = np.random.default_rng(seed)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)  # noqa: E731
  std = rng.uniform(0.5, 2, C).astype(np.float32)
  mean = offset * std * rng.choice([-1, 1], C).astype(np.float32)
  x = mean + std * draw(N, H, W, C)
  variables = {
    'params': {
      'bn': {'scale': 1 + 0.3 * draw(C), 'bias': draw(C)},
      'se': {
        'fc1': {'kernel': draw(C, C // 4), 'bias': draw(C // 4)},
        'fc2': {'kernel': draw(C // 4, C), 'bias': draw(C)},
      },
    },
    # As in training, the running mean is near the batch's.
    'batch_stats': {'bn': {'mean': mean + 0.3 * std * draw(C), 'var': std**2}},
  }
  return x, draw(N, H, W, C), draw(N, H, W, C), variables


def gradients_of(unit, variables, x, residual, cotangent, train=True):
  """Output and gradients, `params` as a tree and those of `x` and `residual`."""

  def loss(params, x, residual):
    y, _ = unit.apply(
      {**variables, 'params': params}, x, residual, train, mutable=['batch_stats', 'intermediates']
    )
    return (y.astype(jnp.float32) * cotangent).sum(), y

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
  grads, y = gradient(variables['params'], x, residual)
  return {'y': y, 'params': grads[0], 'x': grads[1], 'residual': grads[2]}


def reference(variables, x, residual, cotangent, train=True, groups=1):
  """The same in float64, written as the textbooks do."""

  def textbook(params, x, residual):
    stats, parts = variables['batch_stats']['bn'], []
    for part in jnp.split(x, groups):
      mean, var = stats['mean'], stats['var']
      if train:
        mean, var = part.mean((0, 1, 2)), part.var((0, 1, 2))
      parts.append((part - mean) / jnp.sqrt(var + EPSILON) * params['bn']['scale'])
    y = jnp.concatenate(parts) + params['bn']['bias']
    hidden = y.mean((1, 2)) @ params['se']['fc1']['kernel'] + params['se']['fc1']['bias']
    gate = jax.nn.relu(hidden) @ params['se']['fc2']['kernel'] + params['se']['fc2']['bias']
    return jax.nn.relu(y / (1 + jnp.exp(-gate))[:, None, None] + residual)

  with jax.enable_x64(True):
    double = functools.partial(jax.tree.map, lambda a: jnp.asarray(np.asarray(a, np.float64)))
    y, pull = jax.vjp(textbook, *double((variables['params'], x, residual)))
    gradients = pull(double(cotangent))
  assert y.dtype == np.float64
  return jax.device_get(dict(zip(('y', 'params', 'x', 'residual'), (y, *gradients), strict=True)))


def error(found, expected):
  """Largest relative error, by norm, over the arrays of two trees."""
  norm = lambda a, b: np.linalg.norm(np.asarray(a, np.float64) - b) / np.linalg.norm(b)  # noqa: E731
  return max(jax.tree.leaves(jax.tree.map(norm, found, expected)))


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize('offset', [0, 1, 10, 100])
def test_equals_float64(offset, train):
  x, residual, cotangent, variables = unit_inputs(offset)
  expected = reference(variables, x, residual, cotangent, train)
  for fused, most in ((True, 1e-5), (False, 1e-4)):
    found = gradients_of(Unit(fused), variables, x, residual, cotangent, train)
    assert error(found, expected) < most


def test_beyond_it_is_no_worse_than_flax():
  class Flax(nn.Module):
    @nn.compact
    def __call__(self, x, residual, train=True):
      y = nn.BatchNorm(not train, momentum=0.9, epsilon=EPSILON, name='bn')(x)
      return nn.relu(SqueezeExcite(SEConfig(ratio=4), name='se')(y) + residual)

  for offset in (300, 1000, 3000):
    x, residual, cotangent, variables = unit_inputs(offset)
    expected = reference(variables, x, residual, cotangent)
    ours, theirs = (
      error(gradients_of(unit, variables, x, residual, cotangent), expected)
      for unit in (Unit(True), Flax())
    )
    assert ours < theirs


def test_bfloat16_is_no_worse_than_the_textbook():
  x, residual, cotangent, variables = unit_inputs(3)
  half = lambda a: jnp.asarray(a, jnp.bfloat16)  # noqa: E731
  x, residual = half(x), half(residual)
  expected = reference(variables, x, residual, cotangent)
  fused, textbook = (
    error(gradients_of(Unit(f, dtype=jnp.bfloat16), variables, x, residual, cotangent), expected)
    for f in (True, False)
  )
  assert fused < 1.05 * textbook and fused < 0.02


def test_ghost_scope():
  x, residual, cotangent, variables = unit_inputs(2)
  unit = Unit(True, BatchNormConfig('ghost', ghost_size=4))
  found = gradients_of(unit, variables, x, residual, cotangent)
  assert error(found, reference(variables, x, residual, cotangent, groups=2)) < 1e-5


@pytest.mark.parametrize('scope', ['global', 'local'])
def test_several_devices(scope):
  x, residual, cotangent, variables = unit_inputs(2)
  unit = Unit(True, BatchNormConfig(scope))

  def step(variables, *arrays):
    found = gradients_of(unit, variables, *arrays)
    return {**found, 'params': jax.lax.psum(found['params'], runtime.DATA_AXIS)}

  mesh, shared = runtime.data_mesh(2), P(runtime.DATA_AXIS)
  specs = {'y': shared, 'params': P(), 'x': shared, 'residual': shared}
  step = runtime.data_parallel(step, mesh, (P(), shared, shared, shared), specs)
  found = step(variables, x, residual, cotangent)
  groups = 1 if scope == 'global' else 2
  assert error(found, reference(variables, x, residual, cotangent, groups=groups)) < 1e-5


def test_networks_do_not_change():
  """Logits, statistics and gradients of networks, also with what has no fused form."""
  images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
  for name, options in (
    ('se_resnet18', {'position': 'standard'}),
    ('se_resnet18', {'position': 'identity'}),
    ('se_resnet18', {'squeeze': 'max'}),
  ):
    results = []
    for fused in (True, False):
      model = create_model(
        name, width=8, depths=(1, 1), num_classes=5, se=SEConfig(ratio=4, fused=fused, **options)
      )
      variables = model.init(jax.random.key(1), images, train=False)

      @jax.jit
      def run(variables, model=model):
        def loss(params):
          logits, state = model.apply(
            {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
          )
          return jax.nn.logsumexp(logits, -1).sum(), (logits, state)

        return jax.grad(loss, has_aux=True)(variables['params'])

      results.append((jax.tree.structure(variables), run(variables)))
    (tree, fused), (same, textbook) = results
    assert tree == same
    assert error(fused, textbook) < 1e-3


def lowered(function, platform, *arguments):
  return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def test_barriers_are_for_gpus():
  x, residual, cotangent, variables = unit_inputs(0)
  step = functools.partial(gradients_of, Unit(True), variables)
  for platform, barriers in (('cpu', False), ('tpu', False), ('cuda', True)):
    text = lowered(step, platform, x, residual, cotangent)
    assert ('optimization_barrier' in text) == barriers, platform


@pytest.mark.parametrize('align', ['caffe', 'torch'])
@pytest.mark.parametrize('size', [7, 8, 11])
def test_gradient_of_pooling_by_comparing(golden, align, size):
  """Equal to XLA's own, which is torch's, also where pixels are equal."""
  rng = np.random.default_rng(size)
  x = rng.integers(-3, 3, (2, size, size + 1, 3)).astype(np.float32)
  y = max_pool(x, align)
  dy = rng.standard_normal(y.shape).astype(np.float32)
  expected = jax.vjp(functools.partial(max_pool, align=align), x)[1](dy)[0]
  padding = ((1, 1), (1, 1))
  if align == 'caffe':
    padding = tuple((0, 1 - n % 2) for n in x.shape[1:3])
  np.testing.assert_array_equal(plain_max_pool(x, padding), y)
  np.testing.assert_allclose(compare_again(x, y, dy, padding), expected, rtol=1e-6, atol=1e-6)
  golden(twin('layers.max_pool_gradient', x, dy, align))['gradient'].check(expected, 1e-6)
