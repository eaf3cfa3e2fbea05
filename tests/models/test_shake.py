"""Shake-Shake and Shake-Even: the mix of branches, its gradient, and the networks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.layers import SEConfig, excitations, shake
from senet_jax.models import create_model, shake as family
from tests.helpers.models import some_images, tree_of, variables_of
from tests.helpers.parity import check_gradients, compare_evaluation, compare_training, twin
from tests.helpers.weights import random_images

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


# The options.


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


# Equality with a torch definition, weights and BN statistics random.


@pytest.mark.parametrize('se_at', ['branch', 'mix'])
@pytest.mark.parametrize('name', SMALL)
def test_evaluation_is_the_torch_one(golden, name, se_at):
  model = small(name, (1, 2), se_at=se_at)
  ratios = (4, 0) if se_at == 'branch' else (0, 4)
  widths = model.width, model.stem_width
  make = twin('shake.shake', model.depths, *widths, 5, name == SHAKE_EVEN, *ratios)
  compare_evaluation(golden, model, random_images(2, 13, 16), make)


@pytest.mark.parametrize('name', SMALL)
def test_training_is_the_torch_one(golden, name, monkeypatch):
  """With coefficients that both are told, units and images each with their own."""
  n, model = 4, small(name, depths=(1, 2), se=SEConfig(ratio=2))
  given = np.random.default_rng(2).uniform(size=(sum(model.depths), 2, n)).astype('f4')
  if name == SHAKE_EVEN:
    given[:, 1] = 0.5
  passed = []

  def told(a, b, key, train, backward):
    alpha, beta = (c[:, None, None, None] for c in given[len(passed) % len(given)])
    passed.append(key)
    return beta * a + (1 - beta) * b + jax.lax.stop_gradient((alpha - beta) * (a - b))

  monkeypatch.setattr(family, 'shake', told)
  widths = model.width, model.stem_width
  make = twin('shake.shake', model.depths, *widths, 5, name == SHAKE_EVEN, 2, coefficients=given)
  check_gradients(*compare_training(golden, model, random_images(n, 9, 8), make))


def test_units_draw_their_own_coefficients(monkeypatch):
  model, x, keys = small(SHAKE_SHAKE, depths=(2, 1)), some_images(2, 8), []

  def recorded(a, b, key, *args):
    keys.append(tuple(jax.random.key_data(key).tolist()))
    return shake(a, b, key, *args)

  variables = variables_of(model, x)
  monkeypatch.setattr(family, 'shake', recorded)
  model.apply(variables, x, train=True, mutable='batch_stats', rngs={'shake': jax.random.key(7)})
  assert len(set(keys)) == len(keys) == sum(model.depths)
