"""Starting from the weights of another run, and training a part of a network."""

import functools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

from senet_jax import config as config_lib, runtime
from senet_jax.errors import UserError
from senet_jax.evaluation.evaluate import zero_metrics
from senet_jax.layers import BatchNormConfig
from senet_jax.training import initial, setup
from senet_jax.training.classification import Classification, loss_fn
from senet_jax.training.loop import train
from senet_jax.training.optimizer import make_optimizer
from senet_jax.training.step import StepOptions, train_step
from senet_jax.workdir import network, saved
from senet_jax.workdir.network import trained
from senet_jax.workdir.state import TrainState
from tests.helpers.small_run import configured, summary
from tests.helpers.steps import batch_of, tiny_model

# 4 steps an epoch.
SMALL = {
  'model.name': 'se_resnet20_cifar',
  'model.width': 4,
  'model.depths': (1, 1, 1),
  'model.se.ratio': 2,
  'data.name': 'digits',
  'data.fake': True,
  'data.train_split': 'train[:128]',
  'data.eval_split': 'test[:64]',
  'data.pad': 1,
  'batch_size': 32,
  'steps': 8,
  'schedule.name': 'constant',
  'optimizer.learning_rate': 0.05,
  'checkpoint.every_steps': 2,
  'checkpoint.keep': 10,
  'log.tensorboard': False,
}
FROZEN = ('stem_', 'stage2_')


def small(**fields):
  return configured(SMALL, **fields)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """A run whose weights the others start from; it averaged them."""
  workdir = tmp_path_factory.mktemp('source')
  assert train(small(seed=1, optimizer__ema_decay=0.5), workdir)
  return workdir


def variables_of(workdir, step='latest') -> dict:
  return jax.device_get(saved.load(workdir, str(step), runtime.data_mesh()).variables)


def start(config, num_classes=10) -> dict:
  """What a fresh run of `config` starts from."""
  model = network.build_model(config, num_classes)
  return jax.device_get(
    initial.initial_variables(config, model, runtime.data_mesh(), lambda text: None)
  )


def flat(variables) -> dict[str, np.ndarray]:
  leaves = jax.tree.leaves_with_path(jax.device_get(variables))
  return {jax.tree_util.keystr(p, simple=True, separator='/'): x for p, x in leaves}


def same_bits(a, b) -> bool:
  return a.shape == b.shape and np.asarray(a).tobytes() == np.asarray(b).tobytes()


def changed(before, after) -> dict[str, bool]:
  before, after = flat(before), flat(after)
  assert before.keys() == after.keys()
  return {path: not same_bits(before[path], after[path]) for path in before}


def optimizer_of(**fields) -> optax.GradientTransformation:
  return make_optimizer(small(**fields), optax.constant_schedule(0.1))


# --- weights of another run ----------------------------------------------------------------------


def test_evaluated_weights_are_taken_over_with_the_head(source):
  kept = start(small(init_from=str(source)))
  best = saved.load(source, 'best', runtime.data_mesh())
  assert not any(changed(best.variables, kept).values())  # the averaged ones
  chosen = start(small(init_from=str(source), init_checkpoint='4'))
  assert not any(changed(variables_of(source, 4), chosen).values())
  assert any(changed(variables_of(source, 6), chosen).values())


@pytest.mark.parametrize('num_classes', [10, 7])
def test_new_head(source, num_classes):
  config = small(init_from=str(source), init_checkpoint='latest', new_head=True, seed=3)
  begun, theirs = start(config, num_classes), variables_of(source)
  model = network.build_model(config, num_classes)
  fresh = jax.device_get(network.init_variables(config, model, runtime.data_mesh()))
  for path, x in flat(begun).items():
    origin = fresh if path in ('params/fc/kernel', 'params/fc/bias') else theirs
    assert same_bits(x, flat(origin)[path]), path
  assert begun['params']['fc']['kernel'].shape == (16, num_classes)
  assert not same_bits(fresh['params']['fc']['kernel'], theirs['params']['fc']['kernel'])


def test_a_run_begins_with_them(source):
  """Step, optimizer and averages begin anew, the last as a copy."""
  config = small(init_from=str(source), optimizer__ema_decay=0.9)
  begun, model, optimizer = start(config), network.build_model(config, 10), optimizer_of()
  state = setup.init_state(config, model, optimizer, None, runtime.data_mesh(), begun)
  for variables in (state.variables, state.ema):
    assert not any(changed(begun, variables).values())
  assert state.step == 0 and not any(np.any(x) for x in jax.tree.leaves(state.opt_state))


def test_other_precision_scope_and_image_size_do_not_matter(source):
  config = small(
    init_from=str(source), init_checkpoint='latest', model__dtype='bfloat16', bn__scope='global',
    data__image_size=16,
  )  # fmt: skip
  assert not any(changed(variables_of(source), start(config)).values())


@pytest.mark.parametrize(
  'fields, message',
  {
    'classes': (
      {'model__num_classes': 12},
      r'the network of \S+ has 10 classes and this one 12; .* --config\.new_head=True',
    ),
    'shapes': (
      {'model__width': 8, 'new_head': True},
      r'se_resnet20_cifar of \S+ is another network than this se_resnet20_cifar; \d+ variables '
      r'differ: batch_stats/final_bn/mean is \(16,\) there and \(32,\) here; .*; …\. Set',
    ),
    'extra': (
      {'model__name': 'resnet20_cifar', 'model__se__ratio': 16, 'model__num_classes': 12},
      r'12 variables differ: params/stage2_block1/se/fc1/bias is \(2,\) there and missing here',
    ),
    'missing': (
      {'model__shortcut': 'projection', 'new_head': True},
      r' 2 variables differ: params/stage3_block1/proj_conv/kernel is missing there and '
      r'\(1, 1, 4, 8\) here; params/stage4_\S+ is missing there and \(1, 1, 8, 16\) here\. Set',
    ),
    'function': (
      {'model__se__excitation': 'tanh', 'model__preact': True},
      r'another function of these settings: model\.preact is None there and True here, '
      r'model\.se\.excitation is sigmoid there and tanh here; set '
      r'--config\.model\.se\.excitation="sigmoid" and leave out config\.model\.preact\.',
    ),
    'checkpoint': (
      {'init_checkpoint': '5'},
      r"^config\.init_from: \S+ has no checkpoint '5'; give best, latest or of \[2, 4, 6, 8\]",
    ),
  }.values(),
)
def test_weights_that_do_not_fit(source, fields, message):
  with pytest.raises(UserError, match=message) as error:
    start(small(init_from=str(source), **fields))
  assert '\n' not in str(error.value) and len(str(error.value)) < 700


def test_no_such_source(tmp_path, source):
  with pytest.raises(UserError, match=r'^config\.init_from: \S+/none holds no run: there is no'):
    train(small(init_from=str(tmp_path / 'none')), tmp_path / 'a')
  empty = tmp_path / 'empty'
  empty.mkdir()
  shutil.copy(source / 'config.json', empty)
  with pytest.raises(UserError, match=r'^config\.init_from: \S+/empty has no checkpoint yet'):
    train(small(init_from=str(empty)), tmp_path / 'a')
  with pytest.raises(UserError, match=r'is the --workdir itself; give another --workdir'):
    train(small(init_from=f'{source.parent}/../{source.parent.name}/{source.name}'), source)


def test_a_refused_start_leaves_nothing(tmp_path, source):
  other = small(init_from=str(source), model__width=8, log__tensorboard=True)
  with pytest.raises(UserError, match='is another network than this'):
    train(other, tmp_path / 'runs' / 'a')
  assert not list(tmp_path.iterdir())
  (tmp_path / 'notes.txt').write_text('mine')
  with pytest.raises(UserError, match='is another network than this'):
    train(other, tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']


def test_options_without_a_source():
  with pytest.raises(UserError, match=r'^config\.new_head=True has no effect without config\.ini'):
    config_lib.check(small(new_head=True))
  with pytest.raises(UserError, match=r'^config\.init_checkpoint=latest has no effect without'):
    config_lib.check(small(init_checkpoint='latest'))


@pytest.mark.thorough
def test_two_halves_are_the_whole_and_the_source_may_go(source, tmp_path, capsys):
  moved = tmp_path / 'source'
  shutil.copytree(source, moved)
  config = functools.partial(
    small, init_from=str(moved), new_head=True, optimizer__frozen=FROZEN,
    optimizer__ema_decay=0.9, data__cutout=2,
  )  # fmt: skip
  whole, halves = tmp_path / 'whole', tmp_path / 'halves'
  assert train(config(), whole)
  assert train(config(steps=4), halves)
  assert 'with a new head of 10 classes' in capsys.readouterr().out
  moved.rename(tmp_path / 'elsewhere')
  assert train(config(), halves)
  assert 'starts from' not in capsys.readouterr().out
  assert summary(whole)['params_sha256'] == summary(halves)['params_sha256']
  # In the evaluated variables, which are averages, what is frozen is what it was there.
  start = saved.load(source, 'best', runtime.data_mesh()).variables
  for path, moves in changed(start, variables_of(whole)).items():
    assert moves != path.split('/')[1].startswith(FROZEN), path
  with pytest.raises(UserError, match=r'init_from: .* there, None given'):
    train(small(), whole)


# --- frozen modules ------------------------------------------------------------------------------


def state_of(optimizer, frozen=FROZEN, **fields) -> TrainState:
  """A state with running statistics unlike those of the batches."""
  variables = tiny_model().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
  rng = np.random.default_rng(1)
  variables['batch_stats'] = jax.tree.map(
    lambda x: jnp.float32(rng.uniform(0.5, 1.5, x.shape)), variables['batch_stats']
  )
  # A negative zero stays one.
  variables['params']['stem_conv']['kernel'] *= jnp.ones((8,)).at[0].set(-0.0)
  opt_state = optimizer.init(trained(variables['params'], frozen))
  return TrainState(step=jnp.zeros((), jnp.int32), opt_state=opt_state, **variables, **fields)


def program_of(optimizer, devices, frozen=FROZEN, bn=None, **options):
  bn = BatchNormConfig(**{'scope': 'global', 'frozen': frozen, **(bn or {})})
  step = functools.partial(
    train_step,
    task=Classification(small()),
    model=tiny_model(bn=bn),
    optimizer=optimizer,
    options=StepOptions(frozen=frozen, **options),
  )
  return runtime.data_parallel(step, runtime.data_mesh(devices), (P(), P('data')), P())


@pytest.mark.thorough
@pytest.mark.parametrize(
  'devices, bn, options',
  [
    (1, {}, {}),
    (8, {'scope': 'local'}, {'ema_decay': 0.9}),
    (8, {'scope': 'ghost', 'ghost_size': 2}, {'accumulate': 2, 'ema_decay': 0.9}),
    (3, {}, {'accumulate': 4, 'unroll': True}),
  ],
)
def test_frozen_modules_keep_their_bits(devices, bn, options):
  optimizer = optimizer_of(optimizer__weight_decay=0.1, optimizer__clip_norm=5.0)
  state = state_of(optimizer)
  if 'ema_decay' in options:
    state = state.replace(ema=jax.tree.map(jnp.copy, state.variables))
  program = program_of(optimizer, devices, bn=bn, **options)
  after = state
  for _ in range(3):
    after, report = program(after, batch_of(48 if devices == 3 else 32))
    assert report.first_bad_step() is None
  pairs = [(state.variables, after.variables)]
  if after.ema is not None:
    pairs.append((state.ema, after.ema))
  for before, now in pairs:
    for path, moves in changed(before, now).items():
      assert moves != path.split('/')[1].startswith(FROZEN), path


def test_updates_are_those_of_sgd_by_hand():
  """Against gradients of all parameters and SGD in float64, where only some are applied."""
  clip, decay, rate, momentum = 0.5, 0.01, 0.1, 0.9
  optimizer = optimizer_of(optimizer__weight_decay=decay, optimizer__clip_norm=clip)
  batch, program = batch_of(16), program_of(optimizer, 1)
  model = tiny_model(bn=BatchNormConfig(frozen=FROZEN))
  all_gradients = jax.jit(jax.grad(functools.partial(loss_fn, model=model), has_aux=True))
  state, traces = state_of(optimizer), {}
  for _ in range(3):
    gradients = flat(all_gradients(state.params, state.batch_stats, batch)[0])
    gradients = {k: v for k, v in gradients.items() if not k.startswith(FROZEN)}
    norm = np.sqrt(sum(np.sum(np.float64(g) ** 2) for g in gradients.values()))
    assert norm > clip
    expected = flat(state.params)
    for path, gradient in gradients.items():
      gradient = np.float64(gradient) * clip / norm + decay * expected[path]
      traces[path] = momentum * traces.get(path, 0.0) + gradient
      expected[path] = expected[path] - rate * traces[path]
    state, report = program(state, batch)
    assert float(report.grad_norm) == pytest.approx(norm, rel=1e-4)  # before clipping
    for path, x in flat(state.params).items():
      np.testing.assert_allclose(x, expected[path], rtol=1e-4, atol=1e-5, err_msg=path)


def test_optimizer_state():
  """Without frozen modules it is what it was before there were any; theirs have none."""
  optimizer, params = optimizer_of(), state_of(optimizer_of()).params
  config, model = small(), tiny_model()
  build = functools.partial(setup.init_state, model=model, optimizer=optimizer, plateau=None)
  for frozen, expected in (((), params), (FROZEN, trained(params, FROZEN))):
    config.optimizer.frozen = frozen
    state = jax.eval_shape(lambda config=config: build(config, mesh=runtime.data_mesh()))
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(optimizer.init(expected))
    paths = {jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(state.opt_state)}
    assert any('stem_conv' in path for path in paths) == (not frozen)
    assert any('fc' in path for path in paths)


def test_no_work_is_done_for_what_is_frozen():
  optimizer, batch = optax.sgd(0.1, 0.9), batch_of(32)
  flops, elements = {}, {}
  for frozen in ((), ('stem_',), FROZEN, (*FROZEN, 'stage3_')):
    state = state_of(optimizer, frozen)
    program = program_of(optimizer, 2, frozen, {'scope': 'local'}).lower(state, batch).compile()
    flops[frozen] = program.cost_analysis()['flops']
    reduced = re.findall(r'= (\(.*?\)|\S+) all-reduce', program.as_text())
    elements[frozen] = sum(
      np.prod([int(d) for d in dims.split(',') if d])
      for shapes in reduced
      for dims in re.findall(r'f32\[([\d,]*)\]', shapes)
    )
    metrics = len(jax.tree.leaves(zero_metrics()))
    modules = (trained(state.params, frozen), trained(state.batch_stats, frozen))
    assert elements[frozen] == sum(x.size for x in jax.tree.leaves(modules)) + metrics
  # The forward pass is a third of the step; the units of each stage cost about the same.
  nothing, stem, first, second = flops.values()
  assert stem < nothing and first < 0.8 * nothing and second < 0.6 * nothing


@pytest.mark.thorough
def test_statistics_of_frozen_modules_at_the_end(source, tmp_path, capsys):
  """`bn.freeze_last_epochs` freezes the other ones too, and no parameter."""
  config = small(
    init_from=str(source), init_checkpoint='latest', optimizer__frozen=FROZEN,
    bn__freeze_last_epochs=1.0,
  )  # fmt: skip
  assert train(config, tmp_path)
  assert f'starts from step 8 of {source} with its head' in capsys.readouterr().out
  begun, before, after = variables_of(source), variables_of(tmp_path, 4), variables_of(tmp_path, 8)
  for path, moves in changed(begun, before).items():
    assert moves != path.split('/')[1].startswith(FROZEN), path
  for path, moves in changed(before, after).items():
    frozen = path.split('/')[1].startswith(FROZEN) or path.startswith('batch_stats')
    assert moves != frozen, path


def test_what_cannot_be_frozen(tmp_path):
  with pytest.raises(UserError, match=r"with 'stage5_'; they begin with fc, final_bn, stage2_bl"):
    train(small(optimizer__frozen=('stem_', 'stage5_')), tmp_path)
  with pytest.raises(UserError, match=r'leaves no module of se_resnet20_cifar to be trained'):
    train(small(optimizer__frozen=('st', 'f')), tmp_path)
  with pytest.raises(UserError, match=r'optimizer\.frozen=\(2,\) must be a tuple of'):
    config_lib.check(small(optimizer__frozen=(2,)))
  assert not any(tmp_path.iterdir())
