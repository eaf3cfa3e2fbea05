"""Speed is measured fairly, compared turn by turn, and written with all that belongs to it."""

import dataclasses
import json
import re
import sys
import types

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from senet_jax import cli, runtime
from senet_jax.config import reading
from senet_jax.config.length import total_steps
from senet_jax.errors import UserError
from senet_jax.export import formats
from senet_jax.measure import (
  agreement,
  cases,
  exported_models,
  feeding,
  machine,
  programs,
  targets,
  throughput,
  timing,
  torch_models,
)
from senet_jax.measure.networks import networks
from senet_jax.models import create_model, registry
from senet_jax.reporting.statistics import spread
from senet_jax.tools import benchmark, latency
from senet_jax.training.classification import training_program
from senet_jax.training.optimizer import make_optimizer, make_schedule
from senet_jax.workdir.network import build_model, init_variables, variable_shapes

QUICK = ('--seconds=0.01', '--repeats=2', '--devices=1', '--image_size=8')


def run(monkeypatch, capsys, tool, *argv: str) -> tuple[int, str, str]:
  """Runs a command as `python -m` would; returns the exit status and what it printed."""
  monkeypatch.setattr(sys, 'argv', ['tool', *map(str, argv)])
  # The command sets them for libraries that are not loaded yet; no other test is to see them.
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  monkeypatch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
  with pytest.raises(SystemExit) as exit_info:
    cli.run(tool.main)
  captured = capsys.readouterr()
  return exit_info.value.code or 0, captured.out, captured.err


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch):
  """`tiny` and `se_tiny`: the network of 20 layers with one unit a stage."""
  for prefix in ('', 'se_'):
    entry = registry.ENTRIES[f'{prefix}resnet20_cifar']
    info = dataclasses.replace(entry.info, name=f'{prefix}tiny')
    arguments = {**entry.arguments, 'depths': (1, 1, 1)}
    small = dataclasses.replace(entry, info=info, arguments=arguments)
    monkeypatch.setitem(registry.ENTRIES, f'{prefix}tiny', small)


@pytest.fixture(autouse=True)
def no_garbage_collection(monkeypatch):
  """It takes seconds among the objects of a whole session, and is asked for often."""
  monkeypatch.setattr(timing.gc, 'collect', lambda: 0)


@pytest.fixture
def torch_and_timm():
  pytest.importorskip('torch')
  try:
    return torch_models.import_timm()
  except UserError as error:
    pytest.skip(str(error))


# --- timing --------------------------------------------------------------------------------------


class FakeMachine:
  """Steps that take time on a clock of their own, and what was run on it."""

  def __init__(self):
    self.now, self.log = 0.0, []

  def perf_counter(self) -> float:
    return self.now

  def process_time(self) -> float:
    return 3 * self.now  # three cores at work

  def workload(self, name: str, seconds: float) -> timing.Workload:
    def dispatch() -> None:
      self.log.append(name)
      self.now += seconds

    return timing.Workload(1, dispatch, lambda: None, compile_s=0.0)


def test_in_turn_alternates_and_does_not_count_the_first_dispatch(monkeypatch):
  machine = FakeMachine()
  clock = types.SimpleNamespace(
    perf_counter=machine.perf_counter, process_time=machine.process_time
  )
  monkeypatch.setattr(timing, 'time', clock)
  steps = {'a': machine.workload('a', 0.5), 'b': machine.workload('b', 2.0)}
  found = timing.in_turn(steps, 3, seconds=1.0)
  # Warm-up; then in each turn one that is not counted and two of `a`, one of `b` that are.
  assert ''.join(machine.log) == 'aabb' + 'aaabb' + 'bbaaa' + 'aaabb'
  assert found['a'].turns == [[0.5]] * 3 and found['b'].turns == [[2.0]] * 3
  assert found['a'].cores == [3.0] * 3 and found['a'].waiting == [0.0] * 3
  assert (found['a'].warm_up_s, found['b'].warm_up_s) == (1.0, 4.0)
  each = timing.in_turn(steps, 2, seconds=1.0, each=True)
  assert each['a'].turns == [[0.5, 0.5]] * 2 and each['b'].turns == [[2.0]] * 2


def test_se_tax_and_ratios_are_of_one_turn():
  # The machine is twice as slow in the second turn, for both.
  se = timing.Timing(0.0, [[0.11], [0.24], [0.105]])
  plain = timing.Timing(0.0, [[0.1], [0.2], [0.1]])
  tax = timing.added_percent(se, plain)
  np.testing.assert_allclose(tax['values'], [10, 20, 5])
  assert tax['median'] == pytest.approx(10) and tax['n'] == 3
  assert tax['mean'] == pytest.approx(35 / 3)
  assert tax['std'] == pytest.approx(np.std([10, 20, 5], ddof=1))
  assert spread([2.0])['std'] is None
  assert timing.Timing(0.0, [[1.0, 9.0, 2.0]]).per_turn == [2.0]


# --- batch search --------------------------------------------------------------------------------


class FakeMemory:
  """Raises what XLA raises above a number of images."""

  def __init__(self, most: int):
    self.most, self.asked = most, []

  def __call__(self, batch: int) -> None:
    self.asked.append(batch)
    if batch > self.most:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes')


@pytest.mark.parametrize(
  ('fits', 'options', 'expected', 'asked'),
  [
    (300, {}, 256, [32, 64, 128, 256, 512]),
    (20, {}, 16, [32, 16]),
    (300, {'refine': True}, 288, [32, 64, 128, 256, 512, 384, 320, 288]),
    (10**9, {'most': 100}, 64, [32, 64]),
    (10**9, {'most': 100, 'refine': True}, 96, [32, 64, 80, 88, 96]),
    (100, {'devices': 8}, 64, [32, 64, 128]),
    (7, {'devices': 8}, None, [32, 16, 8]),
    (0, {}, None, [32, 16, 8, 4, 2, 1]),
  ],
)
def test_largest_batch(fits, options, expected, asked):
  memory = FakeMemory(fits)
  assert timing.largest_batch(memory, 32, **{'most': 4096, **options}) == expected
  assert memory.asked == asked


def test_largest_batch_raises_other_errors():
  def measure(batch):
    raise ValueError('a bug')

  with pytest.raises(ValueError, match='a bug'):
    timing.largest_batch(measure, 32, most=64)


def test_errors_of_memory_are_known():
  assert timing.is_out_of_memory(MemoryError())
  assert timing.is_out_of_memory(RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB'))
  assert not timing.is_out_of_memory(RuntimeError('INVALID_ARGUMENT: shapes'))


def test_a_cpu_refuses_what_it_has_no_memory_for(monkeypatch):
  monkeypatch.setattr(machine, 'free_memory', lambda: 1000)
  config = tiny_config()
  with pytest.raises(MemoryError, match='out of memory'):
    throughput.prepare(config, 'inference', runtime.data_mesh(1))


# --- steps ---------------------------------------------------------------------------------------


def tiny_config(**fields):
  config = throughput.configuration('tiny', batch_size=2, dtype='float32', image_size=8)
  config.update_from_flattened_dict(fields)
  return config


def test_a_looped_inference_computes_each_step():
  config, mesh = tiny_config(), runtime.data_mesh(1)
  config.steps_per_dispatch = 3
  captured = {}

  def lowered(function, *arguments, **options):
    program = real(function, *arguments, **options)
    captured['program'] = program
    return program

  real = runtime.data_parallel
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(runtime, 'data_parallel', lowered)
    workload = throughput.prepare(config, 'inference', mesh)
  assert workload.images == 6
  variables = programs.variables(config, build_model(config), mesh)
  images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
  zero = jax.device_put(np.zeros((2, 10), 'f4'), jax.NamedSharding(mesh, P('data')))
  total = captured['program'](zero, variables, images)
  once = create_model('tiny').apply(variables, images, train=False)
  np.testing.assert_allclose(total, 3 * once, rtol=1e-4, atol=1e-5)
  text = captured['program'].lower(zero, variables, images).compile().as_text()
  entry = text[text.index('\nENTRY') :]
  assert 'convolution' in text and 'convolution' not in entry[: entry.index('\n}')]


def test_gflops():
  # He et al.: ResNet-50 is 3.8 billion multiply-adds.
  config = throughput.configuration('resnet50', batch_size=1, dtype='bfloat16')
  forward = throughput.gflops_per_image(config, 'inference')
  assert forward == pytest.approx(2 * 3.86, rel=0.01)
  assert throughput.gflops_per_image(config, 'train') == 3 * forward


# --- commands ------------------------------------------------------------------------------------

ROW = {
  'network', 'model', 'se', 'options', 'framework', 'mode', 'batch_size', 'batch_per_device',
  'devices', 'image_size', 'dtype', 'bn_scope', 'steps_per_dispatch', 'images_per_second',
  'ms_per_step', 'compile_s', 'warm_up_dispatches', 'warm_up_s', 'gflops_per_image',
  'tflops_per_second', 'program_mib', 'mfu', 'bytes_per_step', 'bytes_counted_by',
  'gb_per_second', 'of_copy_rate',
}  # fmt: skip
HEAD = {
  'what', 'command', 'date', 'device', 'cpu_cores', 'cpu', 'platform', 'flags',
  'compilation_cache', 'git_commit', 'versions', 'not_in_torch', 'rows', 'se_tax', 'against_torch',
  'changes', 'over_textbook', 'copy',
  'out_of_memory', 'device_peak_mib',
}  # fmt: skip


def test_benchmark_of_training(monkeypatch, capsys, tmp_path):
  path = tmp_path / 'x.json'
  arguments = ('--models=se_tiny:bn.momentum=0.8', '--mode=train', '--batch=4')
  arguments = (*arguments, '--config.model.se.ratio=4', *QUICK, '--devices=2')
  status, out, err = run(monkeypatch, capsys, benchmark, *arguments, f'--output={path}')
  assert status == 0, err
  found = json.loads(path.read_text())
  assert found.keys() == HEAD
  assert found['cpu_cores'] == runtime.usable_cores() and found['versions']['jax']
  assert found['command'].endswith(f' --output={path}') and '--mode=train' in found['command']
  (row,) = found['rows']
  assert row.keys() == ROW
  assert (row['model'], row['mode'], row['se']) == ('se_tiny', 'train', True)
  assert row['batch_size'] == 4 and row['batch_per_device'] == row['devices'] == 2
  assert row['images_per_second']['n'] == 2 and row['images_per_second']['mean'] > 0
  assert row['compile_s'] > 0 and row['bn_scope'] == 'local' and row['image_size'] == 8
  assert row['options'] == {'bn.momentum': 0.8, 'model.se.ratio': 4}
  assert re.search(r'se_tiny:bn.momentum=0.8 +senet_jax +train +float32 +4 ', out)


def test_what_bounds_a_step(monkeypatch, capsys, tmp_path):
  path = tmp_path / 'x.json'
  arguments = ('--models=tiny', '--mode=train', '--batch=2', *QUICK, '--devices=2', '--ceilings')
  status, out, err = run(monkeypatch, capsys, benchmark, *arguments, f'--output={path}')
  assert status == 0, err
  found = json.loads(path.read_text())
  copy = found['copy']['gb_per_second']['median']
  (row,) = found['rows']
  step_s = row['ms_per_step'] / 1000
  assert row['gb_per_second'] == pytest.approx(row['bytes_per_step'] / step_s / 1e9)
  assert row['of_copy_rate'] == pytest.approx(row['gb_per_second'] / copy)
  # Each parameter and running statistic, in float32.
  shapes = variable_shapes(tiny_config(), build_model(tiny_config()))
  assert row['all_reduce']['bytes'] == 4 * sum(x.size for x in jax.tree.leaves(shapes))
  assert row['all_reduce']['ms']['n'] == 2 and row['mfu'] is None  # of an unknown chip
  assert re.search(r'copies of memory, read and written: \d', out)


def test_mfu_is_of_the_operations_of_the_chip(monkeypatch, capsys, tmp_path):
  path = tmp_path / 'x.json'
  chip = dataclasses.replace(targets.CHIPS['h100'], flops=1e9)
  monkeypatch.setattr(targets, 'here', lambda kind: chip)
  arguments = ('--models=tiny', '--mode=inference', '--batch=2', '--dtype=float32,bfloat16')
  status, _, err = run(monkeypatch, capsys, benchmark, *arguments, *QUICK, f'--output={path}')
  assert status == 0, err
  exact, half = json.loads(path.read_text())['rows']
  assert exact['mfu'] is None  # the figure is one of bfloat16
  operations = half['gflops_per_image'] * half['images_per_second']['median']
  assert half['mfu'] == pytest.approx(operations)


def test_a_batch_that_does_not_fit_is_halved_for_all(monkeypatch, capsys, tmp_path):
  path, real = tmp_path / 'x.json', throughput.prepare

  def prepare(config, mode, mesh, model):
    if config.batch_size > 4 and config.model.name == 'se_tiny':
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')
    return real(config, mode, mesh, model)

  monkeypatch.setattr(throughput, 'prepare', prepare)
  arguments = ('--models=tiny,se_tiny', '--mode=inference', '--batch=16', '--or_smaller', *QUICK)
  status, out, err = run(monkeypatch, capsys, benchmark, *arguments, f'--output={path}')
  assert status == 0, err
  found = json.loads(path.read_text())
  assert [(r['model'], r['batch_size']) for r in found['rows']] == [('tiny', 4), ('se_tiny', 4)]
  assert [(r['model'], r['batch_size']) for r in found['out_of_memory']] == [
    ('se_tiny', 16), ('se_tiny', 8),
  ]  # fmt: skip
  assert found['se_tax'][0]['batch_size'] == 4 and 'a batch of 8 instead of 16' in out


def test_the_textbook_network_is_flax_s():
  # 25,557,032 parameters: He et al.'s ResNet-50 with BN; SE adds 2,530,992 with biases.
  bench = cases.Bench.create(1, 32)
  sizes = []
  for case in bench.cases(networks('textbook,textbook_se'), mode='train', dtype='bfloat16',
                          batch_size=2):  # fmt: skip
    shapes = variable_shapes(case.config, case.module)['params']
    sizes.append(sum(x.size for x in jax.tree.leaves(shapes)))
    assert case.module.dtype == 'bfloat16' and case.se == (case.network.name == 'textbook_se')
  assert sizes == [25_557_032, 25_557_032 + 2_530_992]


def test_logits_agree_with_those_of_the_cpu(monkeypatch, capsys, tmp_path):
  path = tmp_path / 'x.json'
  arguments = ('--models=se_tiny', '--logits', '--dtype=float32,bfloat16', f'--output={path}')
  arguments = (*arguments, '--image_size=8', '--devices=1')
  status, _, err = run(monkeypatch, capsys, benchmark, *arguments)
  assert status == 0, err
  exact, half = json.loads(path.read_text())['rows']
  assert exact['relative'] == 0  # the device is a CPU
  assert 1e-4 < half['relative'] < 0.2 and half['spread'] > 0.01
  monkeypatch.setattr(agreement, 'BOUND', -1.0)
  status, out, _ = run(monkeypatch, capsys, benchmark, *arguments)
  assert status == 1 and 'float32 differs by 0.0e+00 of the spread' in out


def test_a_step_on_the_data_of_a_run(monkeypatch, capsys, tmp_path, request):
  path, config = tmp_path / 'x.json', request.config.rootpath / 'configs' / 'digits_se_r20.py'
  arguments = ('--feed', f'--config={config}', '--config.model.name=se_tiny', '--devices=1')
  # Convolutions in loops take long on a CPU.
  arguments = (*arguments, '--config.batch_size=2', '--config.data.image_size=8', '--repeats=1')
  arguments = (*arguments, '--steps_per_dispatch=1,2', '--seconds=0.02')
  status, out, err = run(monkeypatch, capsys, benchmark, *arguments, f'--output={path}')
  assert status == 0, err
  found = json.loads(path.read_text())
  rows = found['rows']
  assert [(r['kind'], r['steps_per_dispatch']) for r in rows] == [('fed', 1), ('fed', 2)]
  for row in rows:
    assert row['images_per_second']['mean'] > 0 and 0 <= row['waiting_share']['mean'] < 1
    assert row['cpu_cores_used']['mean'] > 0 and 0 < row['device_busy_share'] <= 1
  assert found['best'] == max(rows, key=lambda r: r['images_per_second']['median'])
  assert found['together'] == [] and re.search(r'fed +float32 +2 ', out)


@pytest.mark.thorough
def test_runs_that_share_the_devices(monkeypatch, capsys, tmp_path, request):
  path, config = tmp_path / 'x.json', request.config.rootpath / 'configs' / 'digits_se_r20.py'
  arguments = ('--feed', f'--config={config}', '--config.batch_size=8', '--together=1,2')
  arguments = (*arguments, '--repeats=1', '--steps_per_dispatch=1', '--seconds=0.1')
  status, _, err = run(monkeypatch, capsys, benchmark, *arguments, f'--output={path}')
  assert status == 0, err
  one, two = json.loads(path.read_text())['together']
  assert (one['runs'], two['runs']) == (1, 2) == (len(one['each']), len(two['each']))
  for row in (one, two):
    assert min(row['each']) > 0 and row['images_per_second'] == sum(row['each'])

  # This process alone knows that network.
  arguments = ('--feed', '--config.model.name=se_tiny', *arguments[1:])
  status, _, err = run(monkeypatch, capsys, benchmark, *arguments)
  assert status == 2
  assert re.search(r"--together=1: .*'se_tiny' is unknown.*; use fewer", err.splitlines()[-1])


def test_a_fed_step_is_that_of_the_run(monkeypatch):
  """The very program, so that its batches are those of a run and its cache serves both."""
  config = reading.load('configs/digits_se_r20.py', ['--config.model.name=se_tiny'])
  config.steps_per_dispatch = 2
  seen, mesh = [], runtime.data_mesh(1)
  real = programs.compile_timed
  monkeypatch.setattr(programs, 'compile_timed', lambda *a: seen.append(a) or real(*a))
  work, feed = feeding.prepare(config, mesh)
  assert work.images == 2 * 64 and work.waited() == 0
  work.dispatch()
  work.wait()
  ((program, state, inputs, steps),) = seen
  text = program.lower(state, inputs, steps).as_text()
  run_steps = total_steps(config, 1437)
  schedule = make_schedule(config, run_steps, 1437 / 64)
  model = build_model(config, 10)
  of_run = training_program(
    config, model, make_optimizer(config, schedule), feed, mesh, looped=True
  )
  assert of_run.lower(state, inputs, steps).as_text() == text


def test_pairs_of_twins_alone():
  def case(label, framework='senet_jax', batch=2):
    (network,) = networks(label)
    config = tiny_config()
    config.batch_size = batch
    return cases.Case(network, framework, 'train', config)

  se, textbook = case('se_resnet50'), case('se_resnet50:model.se.fused=False')
  plain, theirs = case('resnet50'), case('resnet50', 'torch')
  elsewhere = case('se_resnet50:bn.scope=global')
  flax, flax_se = case('textbook'), case('textbook_se')
  others = [elsewhere, case('resnet18'), case('se_resnet50', batch=4), flax, flax_se]
  found = list(cases.pairs(dict.fromkeys([plain, se, textbook, theirs, *others])))
  expected = {
    ('se_tax', se, plain), ('se_tax', textbook, plain), ('se_tax', flax_se, flax),
    ('against_torch', plain, theirs), ('changes', textbook, se), ('changes', elsewhere, se),
  }  # fmt: skip
  ours = (plain, se, textbook, elsewhere, others[1])
  expected |= {('over_textbook', network, flax) for network in ours}
  assert set(found) == expected and len(found) == len(expected)


def test_benchmark_against_torch(monkeypatch, capsys, tmp_path, torch_and_timm):
  path = tmp_path / 'x.json'
  arguments = ('--models=se_resnet18,tiny', '--batch=2', '--against=torch', *QUICK)
  arguments = (*arguments, '--image_size=32', '--mode=inference', '--dtype=bfloat16')
  status, out, err = run(monkeypatch, capsys, benchmark, *arguments, f'--output={path}')
  assert status == 0, err
  assert 'timm has no tiny: it is measured without PyTorch' in out
  found = json.loads(path.read_text())
  assert found['not_in_torch'] == ['tiny']
  assert [(r['model'], r['framework'], r.get('torch_model')) for r in found['rows']] == [
    ('se_resnet18', 'senet_jax', None),
    ('se_resnet18', 'torch', 'timm:seresnet18'),
    ('tiny', 'senet_jax', None),
  ]
  assert found['rows'][0]['options'] == {'model.pool_align': 'torch', 'model.se.hidden_divisor': 8}
  assert found['versions']['torch'] and found['versions']['timm']
  ours, theirs = (r['images_per_second']['values'] for r in found['rows'][:2])
  (ratio,) = found['against_torch']
  assert (ratio['network'], ratio['over']) == ('se_resnet18', 'torch')
  np.testing.assert_allclose(ratio['ratio']['values'], np.divide(ours, theirs), rtol=1e-6)
  assert 'se_resnet18 over torch (inference, bfloat16, batch 2): ' in out


@pytest.mark.parametrize('model', ['resnet18', 'se_resnet50', 'senet154', 'mobilenet_v1'])
def test_torch_has_the_same_network(model, torch_and_timm):
  torch, timm = torch_and_timm
  config = throughput.configuration(model, batch_size=1, dtype='float32')
  torch_models.as_in_torch(config)
  name = torch_models.variant(model).name.removeprefix('timm:')
  with torch.device('meta'):
    network = timm.create_model(name)
  ours = jax.eval_shape(lambda: init_variables(config, build_model(config), runtime.data_mesh(1)))
  sizes = [sum(x.size for x in jax.tree.leaves(ours['params']))]
  assert sizes == [sum(p.numel() for p in network.parameters())]


def test_torch_trains(torch_and_timm):
  torch, _ = torch_and_timm
  config = throughput.configuration('resnet18', batch_size=2, dtype='float32', image_size=32)
  networks = []
  real = torch.optim.SGD

  def optimizer(parameters, *arguments, **options):
    networks.append(list(parameters))
    return real(networks[-1], *arguments, **options)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(torch.optim, 'SGD', optimizer)
    workload = torch_models.prepare(config, 'train', 'cpu', 'off')
  before = [p.detach().clone() for p in networks[0]]
  workload.dispatch()
  assert all((a != b).any() for a, b in zip(before, networks[0], strict=True))


def test_find_batch(monkeypatch, capsys, tmp_path):
  path, asked = tmp_path / 'x.json', []
  real = throughput.prepare

  def prepare(config, mode, mesh, model):
    asked.append(config.batch_size)
    if config.batch_size > 2:
      raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory')
    return real(config, mode, mesh, model)

  monkeypatch.setattr(throughput, 'prepare', prepare)
  arguments = ('--models=tiny', '--batch=1', '--mode=inference', *QUICK)
  status, _, err = run(
    monkeypatch, capsys, benchmark, *arguments, '--find_batch', f'--output={path}'
  )
  assert status == 0, err
  assert asked == [1, 2, 4, 2]
  assert json.loads(path.read_text())['rows'][0]['batch_size'] == 2
  # Without a search: what does not fit is named, and the others are measured.
  arguments = ('--models=tiny', '--mode=inference', *QUICK)
  status, out, err = run(
    monkeypatch, capsys, benchmark, *arguments, '--batch=2,8', f'--output={path}'
  )
  assert status == 0, err
  assert 'out of memory: tiny, senet_jax, inference, float32, batch 8' in out
  found = json.loads(path.read_text())
  assert [r['batch_size'] for r in found['rows']] == [2]
  assert [r['batch_size'] for r in found['out_of_memory']] == [8]
  status, _, err = run(monkeypatch, capsys, benchmark, *arguments, '--batch=8')
  assert status == 2 and 'out of memory with every network' in err


def test_latency_measures_twins_and_draws(monkeypatch, capsys, tmp_path):
  json_path, png = tmp_path / 'x.json', tmp_path / 'sub' / 'x.png'
  arguments = ('--models=tiny', '--batches=1,2', *QUICK, f'--output={json_path}')
  status, out, err = run(monkeypatch, capsys, latency, *arguments, f'--plot={png}')
  assert status == 0, err
  found = json.loads(json_path.read_text())
  assert [(r['model'], r['batch_size']) for r in found['rows']] == [
    ('tiny', 1), ('se_tiny', 1),
    ('tiny', 2), ('se_tiny', 2),
  ]  # fmt: skip
  for row in found['rows']:
    ms = row['ms_per_batch']
    assert 0 < ms['p10'] <= ms['median'] <= ms['p90'] and ms['n'] >= 2 and len(ms['turns']) == 2
    assert row['ms_per_image'] == ms['median'] / row['batch_size']
    assert (row['se_percent'] is None) == (row['model'] == 'tiny')
  turns = [r['ms_per_batch']['turns'] for r in found['rows'][:2]]
  tax = found['rows'][1]['se_percent']['values']
  np.testing.assert_allclose(tax, 100 * (np.divide(turns[1], turns[0]) - 1))
  assert png.read_bytes().startswith(b'\x89PNG\r\n')
  assert re.search(r'se_tiny +senet_jax +2 ', out)


def test_exported_files_that_are_measured_compute_the_same():
  config = throughput.configuration('se_resnet20_cifar', batch_size=2, dtype='float32')
  runtimes = ('onnxruntime', *(name for name in formats.NAMES if name != 'onnx'))
  results = [
    exported_models.prepare(config, f'exported, {name}').dispatch()['logits'] for name in runtimes
  ]
  assert results[0].shape == (2, 10) and results[0].std() > 0
  for result in results[1:]:
    np.testing.assert_allclose(result, results[0], atol=1e-4 * results[0].std())


MISTAKES = {
  'nothing': ([], r'one of the arguments --models --feed --input is required'),
  'both': (['--input', '--models=resnet18'], r'not allowed with'),
  'config': (['--models=resnet18', '--config=x.py'], r'--config=FILE is what --input and --feed'),
  'no_config': (['--input'], r'--config=FILE is what --input and --feed need'),
  'model': (['--models=se_resnet51'], r"model\.name='se_resnet51' is unknown; did you mean"),
  'mode': (['--models=resnet18', '--mode=test'], r"--mode='test' is unknown.*train, inference"),
  'dtype': (['--models=resnet18', '--dtype=float8'], r"--dtype='float8' is unknown.*float32, bf"),
  'against': (['--models=resnet18', '--against=tf'], r"--against='tf' is unknown.*torch"),
  'devices': (['--models=resnet18', '--batch=9'], r'batch of 9 is not divisible by the 8 devices'),
  'too_many': (['--models=resnet18', '--devices=9'], r'--devices=9: there are 8 x cpu'),
  'batch': (['--models=resnet18', '--batch=0'], r"--batch: '0' must be an integer of at least 1"),
  'seconds': (['--models=resnet18', '--seconds=0'], r"--seconds: '0' must be greater than 0"),
  'together': (['--models=resnet18', '--together=2'], r'--together has no effect without --feed'),
  'refine': (['--models=resnet18', '--refine'], r'--refine has no effect without --find_batch'),
  'compile': (['--models=resnet18', '--torch_compile=off'], r'no effect without --against=torch'),
  'field': (['--models=resnet18:bn.scop=global'], r"'bn\.scop' is unknown; did you mean"),
  'options': (
    ['--models=resnet18:model.se.ratio=4'],
    r"model\.se\.ratio=4 has no effect on 'resnet18'",
  ),
  'torch_devices': (
    ['--models=resnet18', '--against=torch'],
    r'--against=torch compares on one device, not 8; add --devices=1',
  ),
  'torch_model': (
    ['--models=shufflenet_v1_g3', '--against=torch', '--devices=1'],
    r'timm has no shufflenet_v1_g3; it has resnet18',
  ),
}  # fmt: skip


@pytest.mark.parametrize('mistake', MISTAKES)
def test_one_line_and_status_2(mistake, monkeypatch, capsys, request):
  arguments, pattern = MISTAKES[mistake]
  if '--against=torch' in arguments:
    request.getfixturevalue('torch_and_timm')
  status, _, err = run(monkeypatch, capsys, benchmark, *arguments)
  assert status == cli.USER_ERROR
  assert re.fullmatch(r'senet_jax: [^\n]+\n', err), err
  assert re.search(pattern, err), err


def test_mistakes_of_latency(monkeypatch, capsys):
  for arguments, pattern in (
    (['--models=resnet18', '--plot=x.pdf'], r'--plot=x\.pdf must end in \.png'),
    (['--models=nothing'], r"model\.name='nothing' is unknown"),
    (['--models=resnet18', '--batches=1,x'], r"'x' must be an integer"),
  ):
    status, _, err = run(monkeypatch, capsys, latency, *arguments)
    assert status == cli.USER_ERROR and re.search(pattern, err), err


def test_missing_timm_names_the_extra(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, 'torch', None)
  arguments = ('--models=resnet18', '--against=torch', '--devices=1')
  status, _, err = run(monkeypatch, capsys, benchmark, *arguments)
  assert status == cli.USER_ERROR
  assert re.fullmatch(r"senet_jax: [^\n]+pip install 'senet_jax\[test\]'\.\n", err), err


def test_input_of_data_in_device_memory(monkeypatch, capsys, tmp_path, request):
  config = request.config.rootpath / 'tests' / 'helpers' / 'default_config.py'
  fields = {'data.name': 'digits', 'model.name': 'resnet20_cifar', 'data.erasing': 0.5}
  given = [f'--config.{name}={value}' for name, value in fields.items()]
  given += ['--repeats=2', '--seconds=0.01', f'--output={tmp_path / "input.json"}']
  status, out, _ = run(monkeypatch, capsys, benchmark, '--input', f'--config={config}', *given)
  assert not status and 'digits, batches of 128' in out and 'ms of CPU an image' in out
  record = json.loads((tmp_path / 'input.json').read_text())
  assert record['what'] == 'input pipeline alone, and the same without random changes, images/s'
  assert len(record['input']['rounds']) == 2 and record['raw']['cpu_ms']['mean'] > 0
  assert record['ratio'] == record['input']['mean'] / record['raw']['mean']
