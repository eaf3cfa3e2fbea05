"""Pruning by gates: what goes, the smaller networks, and the command."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

import senet_jax
from senet_jax import config as config_lib, runtime
from senet_jax.data import datasets, feeds
from senet_jax.errors import UserError
from senet_jax.excitation import activations, pruning, pruning_trial
from senet_jax.layers import SEConfig, excitations, materialize
from senet_jax.models import create_model, pruned
from senet_jax.models.resnet import ResidualBlock
from senet_jax.tools import evaluate, prune as tool
from senet_jax.training.loop import train
from senet_jax.workdir import saved
from senet_jax.workdir.network import build_model, variable_shapes
from tests.helpers.commands import complaint
from tests.helpers.small_run import configured

DIGITS = {
  'model.name': 'se_resnet20_cifar',
  'model.width': 8,
  'model.depths': (1, 1, 2),
  'model.se.ratio': 4,
  'data.name': 'digits',
  'data.pad': 1,
  'data.flip': False,
  'batch_size': 64,
  'steps': 40,
  'schedule.name': 'constant',
  'optimizer.learning_rate': 0.1,
  'log.tensorboard': False,
}
SMALL = {'model.se.ratio': 4, 'data.name': 'digits', 'data.image_size': 16}
# Units of two convolutions and of three, of both orders, with all that is behind a branch's end.
NETWORKS = {
  'preact': {'model.name': 'se_resnet20_cifar', 'model.depths': (1, 2), 'model.width': 8},
  'basic': {
    'model.name': 'se_resnet18',
    'model.depths': (1, 2),
    'model.width': 8,
    'model.branch_relu': True,
    'model.se.squeeze': 'max',
    'model.se.excitation': 'relu',
  },
  'bottleneck': {
    'model.name': 'se_resnet50',
    'model.depths': (1, 2),
    'model.width': 4,
    'model.se.use_bias': False,
  },
  'keras': {
    'model.name': 'se_resnet46',
    'model.depths': (1, 1, 1),
    'model.width': 8,
    'model.se.excitation': 'tanh',
    'model.se.fused': False,
  },
}


def network(kind):
  """A network with random weights and statistics, and images for it."""
  config = configured({**SMALL, **NETWORKS[kind]})
  model = build_model(config, 10)
  rng = np.random.default_rng(0)

  def random(path, x):
    positive = path[-1].key in ('scale', 'var')
    fan_in = max(int(np.prod(x.shape[:-1])), 1)
    values = rng.uniform(0.5, 1.5, x.shape) if positive else rng.normal(0, fan_in**-0.5, x.shape)
    return (values * (3 if path[-3].key == 'se' else 1)).astype(np.float32)  # gates that move

  shapes = variable_shapes(config, model)
  run = saved.Saved(config, model, jax.tree.map_with_path(random, shapes), 0, None)
  images = rng.normal(0, 1, (6, 16, 16, 3)).astype(np.float32)
  return pruning.prepared(run), images


@pytest.fixture(scope='module', params=NETWORKS)
def given(request):
  """A network, images, and the gates of these."""
  run, images = network(request.param)
  return run, images, gates_of(run, images)


def forward(run, images, variables=None):
  """Logits and the gates by name."""
  apply = jax.jit(lambda v, x: run.model.apply(v, x, train=False, mutable=['intermediates']))
  logits, state = apply(run.variables if variables is None else variables, images)
  return np.asarray(logits), excitations(state.get('intermediates', {}))


def gates_of(run, images):
  gates = jax.device_get(forward(run, images)[1])
  gates = {name: gate.astype(np.float64) for name, gate in gates.items()}
  return {name: pruning.Gates(gate.mean(0), gate.var(0)) for name, gate in gates.items()}


def still(run, names):
  """The network with SE blocks whose gates do not depend on the image."""
  variables = jax.tree.map(np.copy, run.variables)
  for name in names:
    variables['params'][unit(name)]['se']['fc2']['kernel'][...] = 0
    if 'bias' in variables['params'][unit(name)]['se']['fc2']:
      variables['params'][unit(name)]['se']['fc2']['bias'][...] = np.linspace(
        0.1, 0.9, len(variables['params'][unit(name)]['se']['fc2']['bias'])
      )
  return dataclasses.replace(run, variables=variables)


def unit(name):
  return 'stage{}_block{}'.format(*name.split('_')[1:])


def count(run):
  return sum(x.size for x in jax.tree.leaves(run.variables['params']))


def masked(run, images, kept):
  """Logits of the whole network whose branches are zero outside `kept`, in front of SE."""

  def intercept(method, args, kwargs, context):
    mine = isinstance(context.module, ResidualBlock) and context.method_name == '_gated'
    if not mine or args[0] != 'standard':
      return method(*args, **kwargs)
    asked.append(context.module.name)
    return method('standard', materialize(args[1]) * masks[context.module.name])

  asked, masks = [], {unit(name): jnp.asarray(mask, jnp.float32) for name, mask in kept.items()}
  with nn.intercept_methods(intercept):
    logits = run.model.apply(run.variables, images, train=False)
  assert sorted(asked) == sorted(masks)
  return np.asarray(logits)


def some_kept(gates, seed=0):
  rng = np.random.default_rng(seed)
  scores = {name: rng.permutation(len(gate.mean)) for name, gate in gates.items()}
  return pruning.kept_channels(scores, 0.4)


# --- smaller networks ----------------------------------------------------------------------------


def test_a_block_with_a_constant_gate_is_not_missed(given):
  run, images, _ = given
  names = list(gates_of(run, images))[1:]
  run = still(run, names)
  logits, gates = forward(run, images)
  smaller = pruning.without_blocks(run, names, gates_of(run, images))
  found, left = forward(smaller, images)
  np.testing.assert_allclose(found, logits, atol=1e-5 * np.abs(logits).max())
  assert list(left) == list(gates)[:1]
  assert smaller.config.model.se.without == tuple(names)
  if run.model.se.use_bias:  # without, all of them are 0.5
    assert all(np.ptp(np.asarray(gates[name])) > 0.1 for name in names)
  hidden = {name: x.shape[-1] // 4 for name, x in gates.items()}
  biases = run.model.se.use_bias
  gone = sum(2 * h * 4 * h + (h + 4 * h) * biases for n, h in hidden.items() if n in names)
  assert count(run) - count(smaller) == gone


def test_channels_that_go_are_as_zero_for_se_too(given):
  run, images, gates = given
  kept = some_kept(gates)
  smaller = pruning.without_channels(run, kept)
  expected = masked(run, images, kept)
  logits, left = forward(smaller, images)
  np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
  whole = forward(run, images)[0]
  assert np.abs(logits - whole).max() > 1e-3 * np.abs(whole).max()
  assert {name: gate.shape[-1] for name, gate in left.items()} == {
    name: mask.sum() for name, mask in kept.items()
  }
  # The same in the shape of the whole network, where the gates of the channels do not matter.
  closed = forward(run, images, pruning.closed(run, kept))[0]
  np.testing.assert_allclose(closed, expected, atol=1e-5 * np.abs(expected).max())


def test_parameters_by_hand(given):
  run, _, gates = given
  kept = some_kept(gates)
  smaller = pruning.without_channels(run, kept)
  params, gone = run.variables['params'], 0
  for name, mask in kept.items():
    layers = params[unit(name)]
    last = 'conv3' if 'conv3' in layers else 'conv2'
    *_, fan_in, channels = layers[last]['kernel'].shape
    taps = 1 if last == 'conv3' else 9
    of_channel = taps * fan_in + ('bias' in layers[last]) + 2 * (not run.model.preact)
    of_channel += 2 * (channels // 4) + run.model.se.use_bias
    assert (~mask).sum() == int(0.4 * channels + 0.5) > 0
    gone += int((~mask).sum()) * of_channel
  assert count(run) - count(smaller) == gone
  shapes = variable_shapes(smaller.config, smaller.model)
  assert jax.tree.map(lambda x: x.shape, shapes) == jax.tree.map(np.shape, smaller.variables)


def test_held_gates_are_blocks_that_are_gone(given):
  run, images, gates = given
  whole = pruning.with_biases(run)
  expected = forward(run, images)[0]
  scale = np.abs(expected).max()
  np.testing.assert_allclose(forward(whole, images)[0], expected, atol=1e-5 * scale)
  names = list(gates)[::2]
  # A tanh has negative gates; no ReLU is behind the BN of that network.
  smaller = forward(pruning.without_blocks(run, names, gates), images)[0]
  held = forward(whole, images, pruning.held(whole, names, gates))[0]
  np.testing.assert_allclose(held, smaller, atol=1e-5 * scale)
  assert np.abs(smaller - expected).max() > 1e-3 * scale


def test_pruned_again(given):
  run, images, gates = given
  first = some_kept(gates)
  once = pruning.without_channels(run, first)
  second = some_kept(gates_of(once, images), seed=1)
  twice = pruning.without_channels(once, second)
  kept = {name: np.zeros_like(mask) for name, mask in first.items()}
  for name in kept:
    kept[name][np.flatnonzero(first[name])[second[name]]] = True
  expected = masked(run, images, kept)
  np.testing.assert_allclose(
    forward(twice, images)[0], expected, atol=1e-5 * np.abs(expected).max()
  )
  steady = still(twice, gates)
  blocks = pruning.without_blocks(steady, list(gates)[:1], gates_of(steady, images))
  blocks = pruning.without_blocks(blocks, list(gates)[1:], gates_of(steady, images))
  logits, left = forward(blocks, images)
  np.testing.assert_allclose(logits, forward(steady, images)[0], atol=1e-5 * np.abs(logits).max())
  assert not left and blocks.config.model.kept_channels == twice.config.model.kept_channels
  restored = config_lib.from_dict(json.loads(json.dumps(blocks.config.to_dict())))
  assert build_model(restored, 10) == blocks.model


def test_spread_and_its_gradient():
  y = np.random.default_rng(0).normal(size=(2, 3, 3, 3)).astype(np.float32)
  kept, weights = (1, 2, 6), np.arange(8, dtype=np.float32)
  expected = np.zeros((2, 3, 3, 8), np.float32)
  expected[..., list(kept)] = y
  np.testing.assert_array_equal(pruned.spread(y, kept, 8), expected)
  grad = jax.grad(lambda y: (pruned.spread(y, kept, 8) ** 2 * weights).sum())(y)
  np.testing.assert_allclose(grad, 2 * y * weights[list(kept)], rtol=1e-6)


def test_texts():
  mask = np.zeros(12, bool)
  mask[[0, 3, 11]] = True
  text = pruned.as_text('SE_4_6', mask)
  assert text == 'SE_4_6:9010'
  assert pruned.from_texts([text], {'SE_4_6': 12}) == {'SE_4_6': (0, 3, 11)}


# --- what goes -----------------------------------------------------------------------------------


def made_up(mean, variance):
  return pruning.Gates(np.asarray(mean, float), np.asarray(variance, float))


def test_gates_of_all_images():
  rng = np.random.default_rng(0)
  values, labels = rng.uniform(0, 1, (50, 3)), rng.integers(0, 4, 50)
  moments = activations.Moments(5, 3)
  moments.add(values, labels)
  block = activations.Block(moments.count, moments.mean, moments.squares, 0, 0)
  gates = pruning.Gates.of(block)
  np.testing.assert_allclose(gates.mean, values.mean(0))
  np.testing.assert_allclose(gates.variance, values.var(0))
  lost = np.square(values - values.mean(0)).sum() / np.square(values).sum()
  assert gates.information == pytest.approx(lost)
  assert made_up([0, 0], [0, 0]).information == 0


def test_blocks_from_the_last_stage_on():
  run, _ = network('preact')
  gates = {
    'SE_2_1': made_up([0.5], [0.0]),
    'SE_2_10': made_up([0.5], [0.2]),
    'SE_3_1': made_up([0.5], [0.3]),
    'SE_3_2': made_up([0.1], [0.1]),
    'SE_3_3': made_up([0.9], [0.1]),
  }
  order = pruning.lowest(pruning.block_scores(run, gates, 'gates'), 5)
  assert order == ['SE_3_3', 'SE_3_1', 'SE_3_2', 'SE_2_1', 'SE_2_10']
  random = [pruning.lowest(pruning.block_scores(run, gates, 'random', s), 5) for s in range(4)]
  assert len({tuple(names) for names in random}) > 1
  assert all(sorted(names) == sorted(gates) for names in random)
  assert random[3] == pruning.lowest(pruning.block_scores(run, gates, 'random', 3), 5)


def test_magnitudes_by_hand(given):
  run, _, gates = given
  blocks = pruning.block_scores(run, gates, 'magnitude')
  channels = pruning.channel_scores(run, gates, 'magnitude')
  for name in gates:
    layers = run.variables['params'][unit(name)]
    one, two = (np.abs(layers['se'][fc]['kernel']) for fc in ('fc1', 'fc2'))
    assert blocks[name] == pytest.approx((one.sum() + two.sum()) / (2 * one.size), rel=1e-5)
    last = '3' if 'conv3' in layers else '2'
    norms = np.abs(layers[f'conv{last}']['kernel']).sum((0, 1, 2))
    if not run.model.preact:
      var = run.variables['batch_stats'][unit(name)][f'bn{last}']['var']
      norms *= np.abs(layers[f'bn{last}']['scale']) / np.sqrt(var + run.model.bn.epsilon)
    np.testing.assert_allclose(channels[name], norms, rtol=1e-6)


def test_shares_of_each_unit():
  scores = {'SE_2_1': np.array([3.0, 1, 2, 0, 9, 8]), 'SE_3_1': np.arange(2.0)}
  kept = pruning.kept_channels(scores, 0.25)
  assert kept['SE_2_1'].tolist() == [True, False, True, False, True, True]  # 1.5 of 6
  assert kept['SE_3_1'].tolist() == [False, True]
  kept = pruning.kept_channels(scores, 0.99)
  assert [mask.sum() for mask in kept.values()] == [1, 1]
  run, _ = network('preact')
  gates = {'SE_2_1': made_up([0.3, 0.1, 0.2], [0, 1, 0])}
  assert pruning.channel_scores(run, gates, 'gates')['SE_2_1'].argsort().tolist() == [1, 2, 0]


# --- options of the networks ---------------------------------------------------------------------

RESNET20 = 'se_resnet20_cifar'


def without(*names, **options):
  return SEConfig(without=names, **options)


@pytest.mark.parametrize(
  ('name', 'options', 'message'),
  [
    (RESNET20, {'se': without('SE_5_1')}, r"without='SE_5_1' is unknown; did you mean 'SE_\d_1'"),
    (RESNET20, {'se': without('SE_2_1', stages=3)}, "'SE_2_1' is unknown"),
    ('se_vgg16_bn', {'se': without('SE_2_1')}, 'has no effect on se_vgg16_bn'),
    ('se_vgg16_bn', {'kept_channels': ('SE_2_1:ff',)}, "the override 'kept_channels' is unknown"),
    (RESNET20, {'kept_channels': ('SE_2_4:ffff',)}, "kept_channels='SE_2_4' is unknown"),
    (RESNET20, {'kept_channels': ('SE_2_1:ff',)}, "'SE_2_1:ff' does not say which .* of 16 a unit"),
    (RESNET20, {'kept_channels': ('SE_2_1:0000',)}, 'does not say which channels'),
    (RESNET20, {'kept_channels': ('SE_2_1:zz',)}, 'does not say which channels'),
    (RESNET20, {'kept_channels': ('SE_2_1:0001',), 'width': 12}, 'which channels of 12 a unit'),
    (RESNET20, {'kept_channels': ('SE_2_1:ffff',) * 2}, 'has SE_2_1 twice'),
  ],
)
def test_options_that_do_not_fit(name, options, message):
  with pytest.raises(UserError, match=message):
    create_model(name, **options)


def test_names_are_names():
  for wrong in ('SE_2_1', (2,)):
    with pytest.raises(UserError, match=r'model\.se\.without=.* must be names of SE blocks'):
      SEConfig(without=wrong)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'model.name': 'resnet20_cifar'}, 'resnet20_cifar has no SE blocks'),
    ({'model.name': 'se_mobilenet_v1'}, 'se_mobilenet_v1 cannot be pruned: only residual networks'),
    ({'model.name': 'se_shake_shake26_2x96d'}, 'cannot be pruned'),
    ({'model.name': 'se_resnet20_cifar', 'model.se.position': 'pre'}, "position='pre': only net"),
  ],
)
def test_networks_that_cannot_be_pruned(fields, message):
  config = configured({'data.name': 'cifar10', **fields})
  with pytest.raises(UserError, match=message):
    pruning.prepared(saved.Saved(config, build_model(config), {}, 0, None))


def test_negative_gates_in_front_of_a_relu():
  run, _ = network('basic')
  gates = {'SE_2_1': made_up([0.5] * 7 + [-0.1], [0] * 8)}
  with pytest.raises(UserError, match=r'SE_2_1 cannot go: its mean gates go down to -0\.1'):
    pruning.without_blocks(run, ['SE_2_1'], gates)
  with pytest.raises(UserError, match=r"SE block 'SE_2_2' is unknown; did you mean 'SE_2_1'"):
    pruning.without_blocks(run, ['SE_2_2'], gates)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp('digits')
  assert train(configured(DIGITS), path)
  return path


@pytest.fixture(scope='module')
def record(workdir, tmp_path_factory):
  """The table, of which all is measured."""
  out = tmp_path_factory.mktemp('table')
  flags = [f'--output={out / "table.json"}', f'--figure={out / "table.png"}', '--seeds=2']
  tool.main([f'--workdir={workdir}', *flags, '--drop_blocks=2,1', '--channels=0.25,.5'])
  with Image.open(out / 'table.png') as image:
    image.load()
    assert image.format == 'PNG' and image.width > 800
  return json.loads((out / 'table.json').read_text())


def row_of(record, **fields):
  (row,) = [r for r in record['rows'] if all(r[k] == v for k, v in fields.items())]
  return row


def test_table(record, workdir):
  summary = json.loads((workdir / 'summary.json').read_text())
  assert record['whole']['params'] == summary['params']
  assert record['whole']['top1_error'] == pytest.approx(summary['final']['top1_error'])
  assert (record['split'], record['gates_split']) == ('test', 'train')
  assert record['gates_images'] == 500 and list(record['blocks']) == [
    'SE_2_1', 'SE_3_1', 'SE_4_1', 'SE_4_2'
  ]  # fmt: skip
  assert len(record['rows']) == 2 * 2 * (1 + 1 + 2) and len(record['table']) == 2 * 2 * 3
  by_gates = row_of(record, what='blocks', by='gates', amount=2)
  assert sorted(by_gates['dropped']) == ['SE_4_1', 'SE_4_2']
  # 32 channels and 8 hidden units in each.
  assert record['whole']['params'] - by_gates['params'] == 2 * (2 * 32 * 8 + 32 + 8)
  half = [r['params'] for r in record['rows'] if r['what'] == 'channels' and r['amount'] == 0.5]
  gone = sum(c // 2 * (9 * c + 2 * (c // 4) + 1) for c in (8, 16, 32, 32))
  assert {record['whole']['params'] - params for params in half} == {gone}
  for row in record['table']:
    mine = [r for r in record['rows'] if all(r[k] == row[k] for k in ('what', 'amount', 'by'))]
    errors = [r['top1_error'] for r in mine]
    assert row['top1_error']['n'] == len(errors) == (2 if row['by'] == 'random' else 1)
    assert row['top1_error']['mean'] == pytest.approx(np.mean(errors))
    if len(errors) == 2:
      assert row['top1_error']['std'] == pytest.approx(np.std(errors, ddof=1))
  errors = {
    (r['what'], r['by']): r['top1_error'] for r in record['rows'] if r['amount'] in (2, 0.5)
  }
  assert len(set(errors.values())) > 2


def test_gates_are_those_of_the_training_split(record, workdir):
  mesh = runtime.data_mesh()
  run = saved.load(workdir, 'best', mesh)
  images, labels = datasets.load('digits', 'train')
  first = np.sort(np.concatenate([np.flatnonzero(labels == k)[:50] for k in range(10)]))
  feed = feeds.evaluation_feed(run.config, 'train', mesh)
  gates = gates_of(run, feed.transform.to_input(images[first]))
  for name, block in record['blocks'].items():
    assert block['mean_gate'] == pytest.approx(gates[name].mean.mean(), abs=1e-5)
    assert block['information'] == pytest.approx(gates[name].information, rel=1e-2)


@pytest.mark.parametrize(
  ('flags', 'row'),
  [
    (['--drop_blocks=2'], {'what': 'blocks', 'by': 'gates', 'amount': 2}),
    (['--channels=0.5', '--by=random', '--seed=1'],
     {'what': 'channels', 'by': 'random', 'amount': 0.5, 'seed': 1}),
  ],
)  # fmt: skip
def test_written_network_is_that_of_the_table(flags, row, record, workdir, tmp_path, capsys):
  to, output = tmp_path / 'to', tmp_path / 'row.json'
  tool.main([f'--workdir={workdir}', f'--to={to}', f'--output={output}', *flags])
  printed = capsys.readouterr().out
  one, expected = json.loads(output.read_text()), row_of(record, **row)
  assert one['choice'] == {'seed': None, **row}
  assert one['dropped'] == expected['dropped'] and one['whole'] == record['whole']
  for key in ('params', 'top1_error', 'top5_error'):
    assert one['pruned'][key] == pytest.approx(expected[key])
  assert one['pruned']['loss'] == pytest.approx(expected['loss'], rel=1e-4)
  evaluate.main([f'--workdir={to}', f'--output={tmp_path / "e.json"}'])
  evaluated = json.loads((tmp_path / 'e.json').read_text())
  assert evaluated['top1_error'] == pytest.approx(expected['top1_error'])
  run = saved.load(to, 'latest', runtime.data_mesh())
  assert count(run) == expected['params'] and run.class_names == tuple('0123456789')
  predictor = senet_jax.load(to)
  assert predictor.probabilities(np.zeros((1, 8, 8, 3), np.uint8)).shape == (1, 10)
  assert f'--config.init_from={to}' in printed  # which gives the network's options, too


@pytest.mark.thorough
def test_pruned_network_is_trained_further(workdir, tmp_path):
  to = tmp_path / 'to'
  tool.main([f'--workdir={workdir}', f'--to={to}', '--channels=0.25'])
  run = saved.load(to, 'latest', runtime.data_mesh())
  # No run goes on from here, but one can start.
  with pytest.raises(UserError, match=r'from other weights .*dataset\.pruned_from'):
    train(run.config, to)
  config = run.config.copy_and_resolve_references()
  config.update({'init_from': str(to), 'steps': 2})
  assert train(config, tmp_path / 'tuned')
  tuned = saved.load(tmp_path / 'tuned', 'latest', runtime.data_mesh())
  assert jax.tree.map(np.shape, tuned.variables) == jax.tree.map(np.shape, run.variables)
  assert all(
    np.abs(a - b).max() > 0
    for a, b in zip(*(jax.tree.leaves(r.variables['params']) for r in (tuned, run)), strict=True)
  )


def test_blocks_by_name(workdir, tmp_path):
  to, output = tmp_path / 'to', tmp_path / 'row.json'
  names = '--drop_blocks=SE_4_2,SE_2_1'
  tool.main([f'--workdir={workdir}', f'--to={to}', f'--output={output}', names])
  one = json.loads(output.read_text())
  assert one['choice'] == {'what': 'blocks', 'amount': 2, 'by': None, 'seed': None}
  assert one['dropped'] == ['SE_4_2', 'SE_2_1']
  assert saved.read_config(to).model.se.without == ('SE_2_1', 'SE_4_2')


def test_amounts_without_being_asked():
  choices = list(pruning_trial.choices(50, seeds=3))
  assert {c.amount for c in choices if c.what == 'channels'} == {0.1, 0.2, 0.3, 0.4, 0.5}
  blocks = sorted({c.amount for c in choices if c.what == 'blocks'})
  assert len(blocks) == 9 and blocks[0] >= 1 and blocks[-1] == 50
  assert {c.amount for c in pruning_trial.choices(2) if c.what == 'blocks'} == {1, 2}
  assert [c.seed for c in choices if c.amount == 0.3] == [None, None, 0, 1, 2]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--channels=1'], r"--channels: '1' must be shares between 0 and 1"),
    (['--channels=0'], 'must be shares between 0 and 1'),
    (['--channels=0.1,nan'], 'must be shares between 0 and 1'),
    (['--channels=half'], 'must be shares between 0 and 1'),
    (['--channels=0.01'], r'--channels=0\.01 drops none of at most 32 channels of a branch'),
    (['--drop_blocks=0'], r"--drop_blocks: '0' must be whole numbers from 1 on, or names"),
    (['--drop_blocks=-1'], 'must be whole numbers from 1 on, or names'),
    (['--drop_blocks=,'], 'must be whole numbers from 1 on, or names'),
    (['--drop_blocks=5'], '--drop_blocks=5 is more than the 4 SE blocks there are'),
    (['--drop_blocks=SE_4_1'], '--drop_blocks=SE_4_1: blocks have names where --to makes'),
    (
      ['--to={new}', '--drop_blocks=SE_4_9'],
      r"--drop_blocks='SE_4_9' is unknown; did you mean 'SE",
    ),
    (['--to={new}'], '--to takes one --drop_blocks or one --channels'),
    (['--to={new}', '--channels=.1,.2'], '--to takes one'),
    (
      ['--to={new}', '--channels=.1', '--drop_blocks=1'],
      'first make a network with fewer channels',
    ),
    (['--to={new}', '--channels=.1', '--figure=a.png'], 'leave --to out'),
    (['--to={there}', '--channels=.1'], 'is there already; choose another directory'),
    (['--to={there}/file', '--channels=.1'], 'is there already; choose another directory'),
    (['--figure=a.pdf'], r'--figure=a\.pdf must end in \.png'),
    (['--by=loss'], "invalid choice: 'loss'"),
    (['--seeds=0'], "--seeds: '0' must be an integer of at least 1"),
    (['--split=tset'], "'tset' is unknown"),
    (['--checkpoint=9'], "no checkpoint '9'"),
  ],
)
def test_mistakes(arguments, message, workdir, tmp_path, monkeypatch, capsys):
  new, there = tmp_path / 'new', tmp_path / 'there'
  there.mkdir()
  (there / 'file').touch()
  arguments = [a.format(new=new, there=there) for a in arguments]
  error = complaint(tool.main, [f'--workdir={workdir}', *arguments], monkeypatch, capsys)
  assert re.fullmatch(rf'senet_jax: [^\n]*{message}[^\n]*\n', error)
  assert list(tmp_path.iterdir()) == [there]
