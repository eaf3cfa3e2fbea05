"""The training step against one device, PyTorch, NumPy, and its own compiled program."""

import functools
import math
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from senet_jax import config as config_lib, runtime
from senet_jax.evaluation.metrics import cross_entropy
from senet_jax.layers import BatchNormConfig
from senet_jax.models import create_model
from senet_jax.training.classification import Classification
from senet_jax.training.optimizer import kernel_mask, make_optimizer, make_schedule
from senet_jax.training.step import StepOptions, train_step
from senet_jax.workdir.state import TrainState, params_sha256
from tests.helpers.parity import twin
from tests.helpers.steps import batch_of, tiny_model


def state_of(model, optimizer, size: int = 8, **fields) -> TrainState:
  variables = model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    opt_state=optimizer.init(variables['params']),
    **variables,
    **fields,
  )


def program_of(model, optimizer, devices: int, options=StepOptions(), **fields):  # noqa: B008
  config = config_lib.default()
  config.update(fields)
  step = functools.partial(
    train_step, task=Classification(config), model=model, optimizer=optimizer, options=options
  )
  return runtime.data_parallel(step, runtime.data_mesh(devices), (P(), P('data')), P())


def max_error(a, b) -> float:
  """Largest difference of two trees, relative to the largest value of each leaf."""

  def error(x, y):
    return float(np.abs(x - y).max() / (np.abs(y).max() + 1e-12))

  return max(jax.tree.leaves(jax.tree.map(error, *jax.device_get((a, b)))))


def tree_difference(a, b):
  return jax.tree.map(np.subtract, *jax.device_get((a, b)))


# --- many devices --------------------------------------------------------------------------------


def test_gradient_of_eight_devices_is_that_of_one():
  model, optimizer = tiny_model(bn=BatchNormConfig(scope='global')), optax.sgd(1.0)
  state, batch = state_of(model, optimizer), batch_of(32)
  after = {}
  for devices in (1, 8):
    after[devices], report = program_of(model, optimizer, devices)(state, batch)
    assert report.metrics.loss.count == 32
  # With plain SGD at rate 1 the change of the parameters is the gradient.
  gradient = {n: tree_difference(state.params, s.params) for n, s in after.items()}
  assert max(np.abs(g).max() for g in jax.tree.leaves(gradient[1])) > 0.05
  assert max_error(gradient[8], gradient[1]) < 1e-4
  assert max_error(after[8].batch_stats, after[1].batch_stats) < 1e-5


def test_local_scope_takes_statistics_of_each_device():
  model, optimizer = tiny_model(), optax.sgd(1.0)
  state, batch = state_of(model, optimizer), batch_of(32)
  local, _ = program_of(model, optimizer, 8)(state, batch)
  whole, _ = program_of(model, optimizer, 1)(state, batch)
  shards = [jax.tree.map(lambda x, i=i: x[4 * i : 4 * i + 4], batch) for i in range(8)]
  one = program_of(model, optimizer, 1)
  each = [one(state, shard)[0] for shard in shards]
  mean = jax.tree.map(lambda *x: sum(x) / 8, *[s.variables for s in each])
  assert max_error(local.variables, mean) < 1e-4
  assert max_error(local.params, whole.params) > 1e-3


_COLLECTIVE = re.compile(
  r'= (\(.*?\)|\S+) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(-start)?\('
)


@pytest.mark.thorough
@pytest.mark.parametrize(
  'name', ['se_resnet50', pytest.param('se_resnext50_32x4d', marks=pytest.mark.slow)]
)
def test_compiled_step_has_one_collective(name):
  model, optimizer = create_model(name), optax.sgd(0.1, 0.9)
  state = jax.eval_shape(lambda: state_of(model, optimizer, size=32))
  batch = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, batch_of(8, size=32)))
  program = program_of(model, optimizer, 8).lower(state, batch).compile()
  collectives = _COLLECTIVE.findall(program.as_text())
  assert [kind for _, kind, _ in collectives] == ['all-reduce']
  shapes = re.findall(r'(\w+)\[([\d,]*)\]', collectives[0][0])
  assert {dtype for dtype, _ in shapes} == {'f32'}
  elements = sum(math.prod(map(int, filter(None, dims.split(',')))) for _, dims in shapes)
  _, report = jax.eval_shape(program_of(model, optimizer, 8), state, batch)
  metrics = len(jax.tree.leaves(report.metrics))
  variables = sum(x.size for x in jax.tree.leaves(state.variables))
  assert elements == variables + metrics


# --- options of the step -------------------------------------------------------------------------


def test_accumulation_averages_micro_batches():
  model, optimizer = tiny_model(), optax.sgd(1.0)
  state, batch = state_of(model, optimizer), batch_of(8)
  program = program_of(model, optimizer, 1, StepOptions(accumulate=2))
  accumulated, report = program(state, batch)
  assert report.metrics.loss.count == 8
  one = program_of(model, optimizer, 1)
  first, second = (jax.tree.map(lambda x, s=s: x[s], batch) for s in (slice(4), slice(4, 8)))
  a = one(state, first)[0]
  b = one(state.replace(batch_stats=a.batch_stats), second)[0]
  mean = jax.tree.map(lambda x, y: (x + y) / 2, a.params, b.params)
  assert max_error(accumulated.params, mean) < 1e-4
  assert max_error(accumulated.batch_stats, b.batch_stats) < 1e-5


def test_ema_and_plateau_scale():
  model, optimizer = tiny_model(), optax.sgd(1.0)
  plateau = optax.contrib.reduce_on_plateau(0.5).init({'x': jnp.zeros(())})
  plain = state_of(model, optimizer)
  state = plain.replace(ema=plain.variables, plateau=plateau._replace(scale=jnp.float32(0.5)))
  program = program_of(model, optimizer, 1, StepOptions(ema_decay=0.9, rules=1))
  batch = batch_of(8)
  after, _ = program(state, batch)
  full, _ = program_of(model, optimizer, 1)(plain, batch)
  half = jax.tree.map(lambda x, y: (x + y) / 2, plain.params, full.params)
  assert max_error(after.params, half) < 1e-4
  expected = jax.tree.map(lambda x, y: 0.9 * x + 0.1 * y, plain.variables, after.variables)
  assert max_error(after.ema, expected) < 1e-5
  assert after.eval_variables is after.ema


def test_divergence_is_noticed_at_its_step():
  model, optimizer = tiny_model(), optax.sgd(0.1)
  state, batch = state_of(model, optimizer), batch_of(8)
  program = program_of(model, optimizer, 1)
  state, report = program(state, batch)
  assert report.first_bad_step() is None
  state, bad = program(state, {**batch, 'images': batch['images'] * np.nan})
  _, worse = program(state, batch)
  assert report.add(bad).add(worse).first_bad_step() == 2


def test_label_smoothing_against_numpy():
  rng = np.random.default_rng(0)
  logits, labels = rng.normal(size=(6, 5)), rng.integers(0, 5, 6)
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  target = 0.9 * np.eye(5)[labels] + 0.1 / 5
  smoothed = cross_entropy(jnp.float32(logits), labels, 0.1)
  np.testing.assert_allclose(smoothed, -(target * log_p).sum(-1), rtol=1e-5)
  plain = cross_entropy(jnp.float32(logits), labels)
  np.testing.assert_allclose(plain, -log_p[np.arange(6), labels], rtol=1e-5)


class TwoHeads(nn.Module):
  """A linear classifier with dropout and an auxiliary one."""

  rate: float = 0.0
  num_classes: int = 10
  aux: bool = True

  @nn.compact
  def __call__(self, images, train):
    x = images.reshape(len(images), -1)
    aux = nn.Dense(self.num_classes, name='aux')(x)
    if train:
      self.sow('intermediates', 'aux_logits', aux)
    self.variable('batch_stats', 'unused', jnp.zeros, (1,))
    x = nn.Dropout(self.rate, deterministic=not train)(x)
    return nn.Dense(self.num_classes, name='fc')(x)


def test_auxiliary_loss_against_numpy():
  model, batch, optimizer = TwoHeads(), batch_of(16, size=2), optax.sgd(1.0)
  state = state_of(model, optimizer, size=2)

  def gradient_of(head):
    """Of the mean cross-entropy, by hand: x^T (softmax - one-hot) / n."""
    x = batch['images'].reshape(16, -1).astype(float)
    logits = x @ np.asarray(state.params[head]['kernel'], float)
    p = np.exp(logits - logits.max(1, keepdims=True))
    return x.T @ (p / p.sum(1, keepdims=True) - np.eye(10)[batch['labels']]) / 16

  for weight in (0.0, 0.4):
    program = program_of(model, optimizer, 1, aux_loss_weight=weight)
    after, report = program(state, batch)
    change = tree_difference(state.params, after.params)
    np.testing.assert_allclose(change['fc']['kernel'], gradient_of('fc'), atol=1e-6)
    np.testing.assert_allclose(change['aux']['kernel'], weight * gradient_of('aux'), atol=1e-6)
    reported = float(report.metrics.loss.total / report.metrics.loss.count)
    logits = model.apply(state.variables, batch['images'], train=False)
    assert reported == pytest.approx(float(cross_entropy(logits, batch['labels']).mean()), rel=1e-5)


def test_dropout_is_drawn_anew_in_each_step_and_on_each_device():
  model, optimizer = TwoHeads(rate=0.5), optax.sgd(1.0)
  state, half = state_of(model, optimizer, size=2), batch_of(8, size=2)

  def change(batch, devices=1, step=0, seed=0):
    program = program_of(model, optimizer, devices, StepOptions(seed=seed))
    after, _ = program(state.replace(step=jnp.int32(step)), batch)
    return np.asarray(tree_difference(state.params, after.params)['fc']['kernel'])

  first = change(half)
  np.testing.assert_array_equal(change(half), first)
  for other in (change(half, step=1), change(half, seed=1)):
    assert np.abs(other - first).max() > 1e-3
  # The same images on two devices: dropped alike, they would have the gradient of one.
  twice = jax.tree.map(lambda x: np.concatenate([x, x]), half)
  assert np.abs(change(twice, devices=2) - first).max() > 1e-3


class Masked(nn.Module):
  """A linear classifier, at first of zeros, that half of the input's values do not reach."""

  collection: str

  @nn.compact
  def __call__(self, images, train):
    x = images.reshape(len(images), -1)
    if train:
      x *= jax.random.bernoulli(self.make_rng(self.collection), 0.5, x.shape[1:])
    self.variable('batch_stats', 'unused', jnp.zeros, (1,))
    return nn.Dense(10, kernel_init=nn.initializers.zeros, name='fc')(x)


@pytest.mark.parametrize('collection', ['dropout', 'shake', 'drop_path', 'sampling'])
def test_each_micro_batch_draws_anew(collection):
  model, optimizer = Masked(collection), optax.sgd(1.0)
  state = state_of(model, optimizer)
  batch = {'images': np.ones((2, 8, 8, 3), np.float32), 'labels': np.zeros(2, np.int32)}
  after, _ = program_of(model, optimizer, 1, StepOptions(accumulate=2))(state, batch)
  # Of two equal images a value reaches the kernel twice, once, or not at all.
  times = np.round(after.params['fc']['kernel'][:, 0] / 0.45).astype(int)
  np.testing.assert_allclose(np.bincount(times) / times.size, [0.25, 0.5, 0.25], atol=0.12)


def test_bfloat16_keeps_float32_state():
  model, optimizer = tiny_model(dtype=jnp.bfloat16), optax.sgd(0.1, 0.9)
  state, batch = state_of(model, optimizer), batch_of(16)
  after, report = program_of(model, optimizer, 8)(state, batch)
  assert {x.dtype.name for x in jax.tree.leaves((after.params, after.batch_stats))} == {'float32'}
  assert report.metrics.loss.total.dtype == jnp.float32
  exact, _ = program_of(tiny_model(), optimizer, 8)(state, batch)
  change = tree_difference(after.params, state.params)
  exact_change = tree_difference(exact.params, state.params)
  flat, exact_flat = (
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (change, exact_change)
  )
  cosine = flat @ exact_flat / np.linalg.norm(flat) / np.linalg.norm(exact_flat)
  assert 0.97 < cosine < 0.9999


# --- optimizer and schedules ---------------------------------------------------------------------


def optimized(start, gradients, **fields):
  """The parameters behind as many steps as there are gradients, at a rate of 0.1."""
  config = config_lib.default()
  config.optimizer.update({'weight_decay': 0.01, **fields})
  config_lib.check(config)
  optimizer = make_optimizer(config, optax.constant_schedule(0.1))
  params = jax.tree.map(jnp.float32, start)
  opt_state = optimizer.init(params)
  for gradient in gradients:
    updates, opt_state = optimizer.update(jax.tree.map(jnp.float32, gradient), opt_state, params)
    params = optax.apply_updates(params, updates)
  return params


@pytest.mark.parametrize('nesterov', [False, True])
def test_sgd_is_that_of_torch(golden, nesterov):
  rng = np.random.default_rng(0)
  start, gradients = rng.normal(size=5), rng.normal(size=(4, 5))
  found = optimized({'kernel': start}, [{'kernel': g} for g in gradients], nesterov=nesterov)
  options = {'lr': 0.1, 'momentum': 0.9, 'nesterov': nesterov, 'weight_decay': 0.01}
  theirs = golden(twin('layers.optimized', 'SGD', start, gradients, **options))
  theirs['parameter'].check(found['kernel'], 1e-5)


def by_hand(name, start, gradients, rate, decay):
  """LARS and LAMB as their papers have them, in float64; `scale` is on the list to skip."""
  params = {k: v.copy() for k, v in start.items()}
  first = {k: np.zeros_like(v) for k, v in start.items()}
  second = {k: np.zeros_like(v) for k, v in start.items()}
  for t, gradient in enumerate(gradients, 1):
    for key, w in params.items():
      kernel = key == 'kernel'
      g = gradient[key]
      if name == 'lars':
        g = g + decay * w * kernel
        trust = 0.001 * np.linalg.norm(w) / np.linalg.norm(g) if kernel else 1
        first[key] = 0.9 * first[key] - rate * trust * g
        params[key] = w + first[key]
      else:
        first[key] = 0.9 * first[key] + 0.1 * g
        second[key] = 0.999 * second[key] + 0.001 * g**2
        update = first[key] / (1 - 0.9**t) / (np.sqrt(second[key] / (1 - 0.999**t)) + 1e-6)
        update = update + decay * w * kernel
        trust = np.linalg.norm(w) / np.linalg.norm(update) if kernel else 1
        params[key] = w - rate * trust * update
  return params


@pytest.mark.parametrize('name', ['lars', 'lamb'])
def test_large_batch_optimizers(name):
  rng = np.random.default_rng(0)
  shapes = {'kernel': (4, 3), 'scale': (3,)}
  start, *gradients = ({k: rng.normal(size=s) for k, s in shapes.items()} for _ in range(5))
  params = optimized(start, gradients, name=name, decay_mask='kernels')
  for key, expected in by_hand(name, start, gradients, 0.1, 0.01).items():
    np.testing.assert_allclose(params[key], expected, rtol=2e-5, err_msg=key)


def test_adam_is_that_of_torch(golden):
  rng = np.random.default_rng(0)
  start, *gradients = rng.normal(size=(5, 6))
  params = optimized({'kernel': start}, [{'kernel': g} for g in gradients], name='adam')
  options = {'lr': 0.1, 'weight_decay': 0.01}
  theirs = golden(twin('layers.optimized', 'Adam', start, gradients, **options))
  theirs['parameter'].check(params['kernel'], 1e-4)


def test_rate_in_proportion_to_the_batch():
  config = config_lib.default()
  config.optimizer.base_batch, config.batch_size = 256, 1024
  config.schedule.name, config.schedule.warmup = 'constant', 5.0
  schedule = make_schedule(config, 1000, 10.0)
  assert float(schedule(50)) == pytest.approx(4 * config.optimizer.learning_rate)
  assert float(schedule(25)) < float(schedule(50))


def test_accumulation_is_the_large_batch_under_equal_statistics():
  """Global BN over 8 devices, and micro-batches with the same images in another order."""
  model, optimizer = tiny_model(bn=BatchNormConfig(scope='global')), optax.sgd(1.0, 0.9)
  state, micro = state_of(model, optimizer), batch_of(16)
  # Each device's share of the large batch is its shares of the micro-batches.
  twice = jax.tree.map(lambda x: np.repeat(x.reshape(8, 1, 2, *x.shape[1:]), 2, 1), micro)
  large = jax.tree.map(lambda x, y: x.reshape(32, *y.shape[1:]), twice, micro)
  whole, _ = program_of(model, optimizer, 8)(state, large)
  parts, _ = program_of(model, optimizer, 8, StepOptions(accumulate=2))(state, large)
  assert max_error(whole.params, parts.params) < 1e-5


def test_kernel_mask_leaves_out_all_but_kernels():
  params = state_of(tiny_model(), optax.sgd(0.1)).params
  mask = jax.tree.leaves_with_path(kernel_mask('kernels')(params))
  decayed = {jax.tree_util.keystr(path, simple=True, separator='/') for path, use in mask if use}
  assert 'fc/kernel' in decayed and 'stage2_block1/se/fc1/kernel' in decayed
  assert not any(name.endswith(('bias', 'scale')) for name in decayed)
  assert kernel_mask('all') is None


def schedule_of(total: int, steps_per_epoch: float, **fields):
  config = config_lib.default()
  config.optimizer.learning_rate = 0.6
  config.schedule.update(fields)
  return make_schedule(config, total, steps_per_epoch)


def test_step_schedule_drops_every_30_of_100_epochs():
  schedule = schedule_of(1000, 10.0, name='step')
  for step, rate in (
    (0, 0.6),
    (299, 0.6),
    (300, 0.06),
    (599, 0.06),
    (600, 6e-3),
    (900, 6e-4),
    (999, 6e-4),
  ):
    assert float(schedule(step)) == pytest.approx(rate), step


def test_cifar_recipe_is_the_published_one():
  config = config_lib.cifar('se_resnet110_cifar')
  per_epoch = 50_000 / 128
  schedule = make_schedule(config, 64_000, per_epoch)
  for step, rate in (
    (0, 0.01),
    (399, 0.01),
    (400, 0.1),
    (31_999, 0.1),
    (32_000, 0.01),
    (48_000, 1e-3),
  ):
    assert float(schedule(step)) == pytest.approx(rate), step


def test_warmup_and_cosine():
  schedule = schedule_of(110, 10.0, name='cosine', warmup=1.0, warmup_start=0.1)
  assert float(schedule(0)) == pytest.approx(0.06)
  assert float(schedule(5)) == pytest.approx(0.06 + 0.54 * 0.5)
  for step in (10, 35, 60, 110):
    expected = 0.6 * 0.5 * (1 + math.cos(math.pi * (step - 10) / 100))
    assert float(schedule(step)) == pytest.approx(expected, abs=1e-6), step


def test_multistep_in_steps_and_bad_boundaries():
  fields = {'name': 'multistep', 'unit': 'steps', 'factor': 0.2}
  schedule = schedule_of(100, 10.0, boundaries=(3.0, 7.0), **fields)
  assert [round(float(schedule(s)), 4) for s in (2, 3, 6, 7)] == [0.6, 0.12, 0.12, 0.024]
  with pytest.raises(ValueError, match=r'boundaries.*must rise'):
    schedule_of(100, 10.0, boundaries=(7.0, 3.0), **fields)


# --- digests -------------------------------------------------------------------------------------


def test_digests_see_every_change():
  variables = state_of(tiny_model(), optax.sgd(0.1)).variables
  digests = {params_sha256(variables)}
  sums = {(runtime.checksum(variables))}
  leaves, structure = jax.tree.flatten(variables)
  for i in (0, 3, len(leaves) - 1):
    changed = list(leaves)
    changed[i] = leaves[i].at[(0,) * leaves[i].ndim].add(1e-3)
    tree = jax.tree.unflatten(structure, changed)
    digests.add(params_sha256(tree))
    sums.add(runtime.checksum(tree))
  assert len(digests) == len(sums) == 4
  swapped = [jnp.array([1.0, 2.0]), jnp.array([2.0, 1.0])]
  assert (runtime.checksum(swapped[0])) != (runtime.checksum(swapped[1]))


def test_deterministic_programs_for_gpus(monkeypatch):
  """What the compiler is told; there is no GPU here to run it on."""
  told = {}
  monkeypatch.setattr(jax, 'shard_map', lambda function, **_: function)
  monkeypatch.setattr(jax, 'jit', lambda _, **options: options['compiler_options'])
  for platform in ('gpu', 'cpu'):
    mesh = types.SimpleNamespace(devices=np.array([types.SimpleNamespace(platform=platform)]))
    for wanted in (True, False):
      told[platform, wanted] = runtime.data_parallel(None, mesh, P(), P(), deterministic=wanted)
  assert told.pop(('gpu', True)) == {'xla_gpu_deterministic_ops': True}
  assert set(told.values()) == {None}
