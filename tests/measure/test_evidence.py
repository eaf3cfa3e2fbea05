"""Evidence: its commands accept their arguments, nothing is lost, and nothing stops the rest."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from senet_jax import cli, flags
from senet_jax.config import reading
from senet_jax.errors import UserError
from senet_jax.measure import evidence, evidence_tables, plan
from senet_jax.measure.plan import Command, Context, Measurement
from senet_jax.runtime import children as children_lib
from senet_jax.tools import benchmark, evidence as tool, latency
from senet_jax.training import studies
from tests.helpers.paths import ROOT
from tests.helpers.until import until

MACHINE = {
  'platform': 'gpu',
  'device': '8 x NVIDIA H200',
  'kind': 'NVIDIA H200',
  'devices': 8,
  'cpu_cores': 16,
  'git_commit': 'abcdef0',
  'versions': {'jax': '0.0'},
  'missing': [],
  'torch_on_device': True,
  'torchvision_works': True,
}
# What CIFAR at its fastest comes to, which later commands are made from.
RATE = {
  'best': {'dtype': 'bfloat16', 'steps_per_dispatch': 50},
  'together': [
    {'runs': 1, 'images_per_second': 10.0},
    {'runs': 2, 'images_per_second': 15.0},
    {'runs': 4, 'images_per_second': 14.0},
  ],
}


def keep(output: pathlib.Path, name: str, seconds: float = 60.0, **record) -> None:
  """Writes the record of a measurement that was completed."""
  how = {'name': name, 'status': 'done', 'seconds': seconds}
  (output / f'{name}.json').write_text(json.dumps({'measurement': how, **record}))


@pytest.fixture
def context(tmp_path) -> Context:
  """A machine with eight GPUs, CIFAR and photos, whose rate of CIFAR is known."""
  keep(tmp_path, 'cifar_rate', **RATE)
  for name in ('cifar-10-binary.tar.gz', 'cifar-100-binary.tar.gz'):
    (tmp_path / 'published').mkdir(exist_ok=True)
    (tmp_path / 'published' / name).touch()
  return Context(tmp_path, False, MACHINE, data=tmp_path / 'published', photos=tmp_path / 'photos')


# --- the list ------------------------------------------------------------------------------------


def test_parts_are_chosen_by_name():
  groups = {m.group for m in plan.MEASUREMENTS}
  names = [m.name for m in plan.MEASUREMENTS]
  assert len(set(names)) == len(names)
  shared = set(names) & groups  # names nothing but the measurement, as a group of its own
  assert all([m.name for m in plan.MEASUREMENTS if m.group == name] == [name] for name in shared)
  assert plan.chosen(('se_tax', 'digits'))[0].name == 'digits'
  assert {m.group for m in plan.chosen(('se_tax',))} == {'se_tax'}
  with pytest.raises(UserError, match=r"--only='se_tacks' is unknown; did you mean 'se_tax'"):
    plan.chosen(('se_tacks',))


def accepts(arguments: tuple[str, ...]) -> None:
  """Checks a command line as far as that goes without any device."""
  module, *argv = arguments
  match module:
    case 'main':
      flags.parse(argv)
    case 'tools.benchmark':
      args, overrides = benchmark.parse(argv)
      if args.config:
        reading.load(args.config, overrides)
    case 'tools.latency':
      latency.parse(argv)
    case 'tools.study':
      options = dict(a.removeprefix('--').split('=', 1) for a in argv if a.count('=') == 1)
      rows = options.get('rows')
      overrides = tuple(a for a in argv if a.startswith(reading.FIELD))
      part = studies.part(
        reading.load_study(options['study']), rows and cli.words(rows),
        cli.words(options['seeds']), overrides,
      )  # fmt: skip
      studies.check(part, options['study'])
    case 'tools.profile':
      overrides = [a for a in argv if a.startswith(reading.FIELD)]
      reading.load(next(a for a in argv if a.startswith('--config=')).split('=')[1], overrides)
    case 'tools.prepare_data':
      assert {a.split('=')[0] for a in argv} == {
        '--dataset', '--source', '--data_dir', '--arrays_only',
      }  # fmt: skip
    case _:
      raise AssertionError(module)


@pytest.mark.parametrize('rehearse', [False, True])
@pytest.mark.parametrize('name', [m.name for m in plan.MEASUREMENTS])
def test_commands_accept_what_they_are_given(name, rehearse, context, monkeypatch):
  monkeypatch.chdir(ROOT)
  context = dataclasses.replace(context, rehearse=rehearse)
  (measurement,) = (m for m in plan.MEASUREMENTS if m.name == name)
  commands = measurement.commands(context)
  assert commands and commands[-1].result.is_relative_to(context.work)
  assert plan.why_not(measurement, context) is None
  for command in commands:
    accepts(command.arguments)


def test_cifar_is_trained_the_fastest_way(context):
  (pair,) = plan.chosen(('cifar10_r110',))
  prepare, command = pair.commands(context)
  assert '--dataset=cifar10' in prepare.arguments and f'--source={context.data}' in (
    prepare.arguments)  # fmt: skip
  assert {'--together=2', '--config.steps_per_dispatch=50', '--config.model.dtype=bfloat16',
          '--seeds=0'} < set(command.arguments)  # fmt: skip


@pytest.mark.parametrize(
  ('name', 'machine', 'changes', 'reason'),
  [
    ('torch_train', {'missing': ['torch', 'timm']}, {}, 'torch and timm not installed'),
    ('torch_train', {'torch_on_device': False}, {}, 'cannot use the device'),
    ('detection_torch', {'torchvision_works': False}, {}, 'torchvision is not installed, or not'),
    ('detection_torch', {'torch_on_device': False}, {}, 'cannot use the device'),
    ('photos', {'missing': ['tensorflow']}, {}, 'TensorFlow.*not installed'),
    ('photos', {}, {'photos': None}, '--photos=FOLDER'),
    ('devices', {'devices': 1}, {}, 'there is one device'),
    ('cifar_rate', {}, {'data': None}, 'no cifar10: give --data=DIR'),
    ('cifar100_r110', {}, {'data': ROOT}, 'no cifar100: give --data=DIR'),
  ],
)
def test_what_a_machine_cannot_do_is_named(name, machine, changes, reason, context, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(context.output / 'nothing'))
  context = dataclasses.replace(context, machine={**MACHINE, **machine}, **changes)
  (measurement,) = plan.chosen((name,))
  assert re.search(reason, plan.why_not(measurement, context))


def test_every_measurement_comes_after_what_it_is_made_from():
  names = [m.name for m in plan.MEASUREMENTS]
  for i, measurement in enumerate(plan.MEASUREMENTS):
    assert measurement.after is None or measurement.after in names[:i]


def test_two_runs_are_compared(context):
  (determinism,) = plan.chosen(('determinism',))
  labels = [command.label for command in determinism.commands(context)]
  for other, equal in (('a', True), ('b', False)):
    results = [{'params_sha256': 'a', 'steps': 4}, {'params_sha256': other}, {'changes': [1]}]
    found = determinism.merge(dict(zip(labels, results, strict=True)))
    assert found['bitwise_equal'] is equal and found['params_sha256'] == ['a', other]
    assert found['runs'] == results[:2] and found['changes'] == [1]


def test_devices_are_compared_with_one(context):
  (devices,) = plan.chosen(('devices',))
  counts, rates = [1, 2, 4, 8], [100.0, 190.0, 300.0, 400.0]
  commands = devices.commands(context)
  assert [c.label for c in commands] == [f'devices_{count}' for count in counts]
  assert all(f'--devices={n}' in c.arguments for n, c in zip(counts, commands, strict=True))
  results = {
    command.label: {'device': 'x', 'rows': [{'devices': n, 'images_per_second': {'median': rate}}]}
    for command, n, rate in zip(commands, counts, rates, strict=True)
  }
  found = devices.merge(results)
  assert [row['devices'] for row in found['rows']] == counts and found['device'] == 'x'
  assert [row['efficiency'] for row in found['rows']] == pytest.approx([1, 0.95, 0.75, 0.5])
  assert evidence.headline(found).startswith('1 devices 100 %; 2 devices 95 %')


# --- one after the other -------------------------------------------------------------------------


class FakeChildren:
  """Commands that end at once, or never, on a clock of their own."""

  def __init__(self, clock):
    self.clock, self.ran, self.stopping = clock, [], False

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass

  def start(self, command, log, environment):
    name, status, seconds = command[0], int(command[1]), float(command[2])
    self.ran.append(name)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(f'line 1\n{name} says something\n')
    self.environment = environment
    self.running = command, status, seconds
    return self.running

  def wait(self, child, seconds):
    command, status, takes = child
    self.clock.now += min(takes, seconds)
    if takes > seconds:
      return None
    if len(command) > 3:
      path = pathlib.Path(command[3])
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(json.dumps({'what': f'result of {command[0]}', 'device': '8 x NVIDIA H200'}))
    return status

  def stop(self, child, grace_s):
    self.clock.now += 1
    return child[1] or cli.PREEMPTED


class Clock:
  def __init__(self):
    self.now = 100.0

  def monotonic(self) -> float:
    return self.now


@pytest.fixture
def world(monkeypatch, context):
  """A function that goes through made-up measurements: `(name, status, seconds, options)`."""
  clock = Clock()
  monkeypatch.setattr(evidence, 'time', clock)
  monkeypatch.setattr(plan, 'MEASUREMENTS', ())

  def run(*wanted, budget=None):
    found = []
    for name, status, seconds, options in wanted:
      options = dict(options)
      minutes = options.pop('minutes', 1.0)
      path = context.work / 'results' / f'{name}.json'
      command = Command(name, (name, str(status), str(seconds), str(path)), path)
      found.append(
        Measurement(name, 'group', 'a measurement', minutes,
                    lambda _, command=command: [command], **options)
      )  # fmt: skip
    monkeypatch.setattr(plan, 'MEASUREMENTS', tuple(found))
    fake = FakeChildren(clock)
    monkeypatch.setattr(evidence, 'Children', lambda: fake)
    said = []
    rows = evidence.Evidence(context, found, budget, said.append).run()
    return {row.name: row for row in rows}, fake, said

  return run


def record(context, name):
  return json.loads((context.output / f'{name}.json').read_text())


def test_what_is_there_is_left_out_and_what_failed_is_tried_again(world, context):
  wanted = (('a', 0, 30, {}), ('b', 2, 30, {}), ('c', -9, 30, {}), ('d', 0, 30, {}))
  rows, fake, said = world(*wanted)
  assert fake.ran == ['a', 'b', 'c', 'd']  # a failure does not stop the others
  assert [row.status for row in rows.values()] == ['done', 'failed', 'failed', 'done']
  kept = record(context, 'a')
  assert (kept['what'], kept['device']) == ('result of a', '8 x NVIDIA H200')
  assert kept['git_commit'] == 'abcdef0' and kept['command'].startswith('python -m senet_jax.a')
  assert kept['measurement']['seconds'] == 30
  failed = record(context, 'b')['measurement']
  assert failed['last_lines'] == ['line 1', 'b says something'] and failed['status'] == 'failed'
  assert record(context, 'c')['measurement']['last_lines'][-1] == 'killed from outside by SIGKILL'
  assert '4 to do, about 4 min' in said[0]
  assert fake.environment['JAX_COMPILATION_CACHE_DIR'] == str(context.work / 'xla')
  rows, fake, _ = world(*((name, 0, 30, {}) for name in 'abcd'))
  assert fake.ran == ['b', 'c'] and {row.status for row in rows.values()} == {'done'}


def test_nothing_is_begun_that_does_not_fit(world):
  # Five minutes, of which half a one is kept; `b` needs more, `d` can be resumed.
  wanted = (
    ('a', 0, 60, {}),
    ('b', 0, 60, {'minutes': 10.0}),
    ('c', 0, 60, {}),
    ('d', 0, 3600, {'minutes': 60.0, 'resumable': True}),
    ('e', 0, 60, {}),
  )
  rows, fake, _ = world(*wanted, budget=5)
  assert fake.ran == ['a', 'c', 'd']
  assert [row.status for row in rows.values()] == ['done', 'not run', 'done', 'unfinished',
                                                   'not run']  # fmt: skip
  assert rows['b'].what == 'does not fit the rest of the budget'
  with pytest.raises(UserError, match=r'--budget=1 fits nothing.*shortest, e, .* 1\.5 minutes'):
    world(*wanted, budget=1)


def test_what_is_made_from_a_failed_one_is_not_run(world, context):
  wanted = lambda status: (('a', status, 1, {}), ('b', 0, 1, {'after': 'a'}))  # noqa: E731
  rows, fake, said = world(*wanted(2))
  assert fake.ran == ['a'] and (rows['b'].status, rows['b'].what) == ('not run', 'a is not there')
  assert '2 to do' in said[0]
  rows, fake, _ = world(*wanted(0))
  assert fake.ran == ['a', 'b'] and rows['b'].status == 'done'


def test_estimates_are_of_this_machine(world, context):
  world(('a', 0, 180, {}), ('b', 0, 180, {}))
  wanted = (('a', 0, 0, {}), ('b', 0, 0, {}), ('c', 0, 60, {}))
  with pytest.raises(UserError, match=r'c, needs about 3\.5 minutes'):  # three minutes, not one
    world(*wanted, budget=3)
  assert world(*wanted, budget=4)[0]['c'].status == 'done'


def test_what_takes_too_long_is_ended(world, context):
  rows, _, _ = world(('a', 0, 10_000, {}), ('b', 0, 1, {}))
  assert rows['a'].status == 'failed' and 'longer than its limit' in rows['a'].what
  assert rows['a'].minutes < 5 and rows['b'].status == 'done'


def test_a_directory_of_something_else_is_left_alone(tmp_path):
  (tmp_path / 'mine.txt').write_text('x')
  with pytest.raises(UserError, match='holds something else; give a new or an empty directory'):
    evidence.open_directory(tmp_path, MACHINE, rehearse=False)
  with pytest.raises(UserError, match='holds something else'):
    evidence.open_directory(tmp_path / 'mine.txt', MACHINE, rehearse=False)
  evidence.open_directory(tmp_path / 'new', MACHINE, rehearse=False)
  evidence.open_directory(tmp_path / 'new', MACHINE, rehearse=False)
  assert (tmp_path / 'new' / 'work' / '.gitignore').read_text() == '*\n'
  with pytest.raises(UserError, match=r'results of 8 x NVIDIA H200, and this is 1 x TPU v4'):
    evidence.open_directory(tmp_path / 'new', {**MACHINE, 'device': '1 x TPU v4'}, rehearse=False)
  with pytest.raises(UserError, match='give another directory'):
    evidence.open_directory(tmp_path / 'new', MACHINE, rehearse=True)
  (tmp_path / 'new' / evidence.INDEX).write_text('{')
  with pytest.raises(UserError, match=r'evidence\.json is damaged'):
    evidence.open_directory(tmp_path / 'new', MACHINE, rehearse=False)


# --- the command ---------------------------------------------------------------------------------


def command(*arguments, **options) -> subprocess.CompletedProcess:
  line = [sys.executable, '-m', 'senet_jax.tools.evidence', *map(str, arguments)]
  return subprocess.run(line, capture_output=True, text=True, cwd=ROOT, **options)


def test_the_list_needs_no_directory(capsys):
  assert tool.main(['--list']) == 0
  shown = capsys.readouterr().out
  assert all(re.search(rf'^{m.name} ', shown, re.MULTILINE) for m in plan.MEASUREMENTS)
  assert tool.main(['--list', '--only=se_tax']) == 0
  assert 'digits' not in capsys.readouterr().out


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--rehearse'], r'--output=DIR is missing'),
    (['--output={tmp}/x', '--only=sea_tax'], r"--only='sea_tax' is unknown; did you mean 'se_tax'"),
    (['--output={tmp}/x', '--budget=0'], r"--budget: '0' must be greater than 0"),
    (['--output={tmp}/x', '--data={tmp}/none'], r'--data=.*none is not a directory'),
    (['--output={tmp}/x'], r'there is no accelerator here, only 8 x cpu; .* --rehearse'),
  ],
)
def test_one_line_and_status_2(arguments, message, tmp_path):
  ended = command(*(a.format(tmp=tmp_path) for a in arguments))
  assert ended.returncode == cli.USER_ERROR and not (tmp_path / 'x').exists()
  assert re.fullmatch(rf'senet_jax: [^\n]*{message}[^\n]*\n', ended.stderr), ended.stderr


@pytest.mark.thorough
def test_a_child_ends_with_its_parent(tmp_path):
  """Also where the parent is killed, and could tell it nothing."""
  code = (
    'import pathlib, sys, time\n'
    'from senet_jax.runtime.children import Children\n'
    'with Children() as children:\n'
    '  run = ("main", "--config=configs/digits_se_r20.py", "--config.epochs=10000",\n'
    '         "--config.model.depths=(1, 1, 1)", "--config.log.every_steps=1",\n'
    '         "--config.log.tensorboard=False", f"--workdir={sys.argv[1]}/run")\n'
    '  child = children.start(run, pathlib.Path(sys.argv[1], "log"))\n'
    '  print(child.pid, flush=True)\n'
    '  time.sleep(600)\n'
  )
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '1'}
  parent = subprocess.Popen(
    [sys.executable, '-c', code, tmp_path], env=environment, stdout=subprocess.PIPE
  )
  child = int(parent.stdout.readline())
  until(lambda: b'train  epoch' in (tmp_path / 'log').read_bytes())
  parent.kill()
  parent.wait()
  until(lambda: not pathlib.Path(f'/proc/{child}').exists())
  assert 'preempted: saved step' in (tmp_path / 'log').read_text()  # SIGTERM, not a crash


def test_a_child_has_the_environment_that_is_given(tmp_path):
  with children_lib.Children() as children:
    child = children.start(('main', '--help'), tmp_path / 'log', {'COLUMNS': '40'})
    assert children.wait(child, 60) == 0
  assert max(map(len, (tmp_path / 'log').read_text().splitlines()[1:4])) <= 60
  assert (tmp_path / 'log').read_text()


def test_children_are_stopped_at_the_end_of_the_block(tmp_path):
  with children_lib.Children() as children:
    run = ('main', '--config=configs/digits_se_r20.py', f'--workdir={tmp_path}/run')
    child = children.start(run, tmp_path / 'log')
    assert children.wait(child, 0.1) is None
  assert child.returncode is not None


# --- tables --------------------------------------------------------------------------------------


def spread(value: float, std: float | None = 0.1) -> dict:
  return {'mean': value, 'std': std, 'median': value, 'n': 2, 'values': [value, value]}


def put(results: pathlib.Path, name: str, status: str = 'done', **record) -> None:
  how = {'name': name, 'status': status, 'seconds': 60.0}
  path = results / 'evidence' / 'h200' / f'{name}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps({'device': '1 x NVIDIA H200', 'measurement': how, **record}))


def test_tables_say_what_was_not_run(tmp_path):
  rows = evidence_tables.details(tmp_path).splitlines()[2:]
  assert rows and all('| not run |' in row for row in rows)
  text = evidence_tables.overview(tmp_path)
  assert text.startswith('Not run on an accelerator: ') and 'SENet-154' in text


def test_tables_show_what_was_measured(tmp_path):
  of = {'network': 'se_resnet50', 'mode': 'train', 'batch_size': 128}
  ours = {**of, 'framework': 'senet_jax', 'images_per_second': spread(3000.0), 'mfu': 0.25,
          'ms_per_step': 42.0, 'gb_per_second': 1000.0, 'of_copy_rate': 0.5,
          'bytes_per_step': 45_000_000_000, 'batch_per_device': 128}  # fmt: skip
  put(tmp_path, 'se_tax_r50_train', rows=[ours], se_tax=[{**of, 'percent': spread(1.25)}])
  theirs = {**ours, 'framework': 'torch', 'images_per_second': spread(2000.0)}
  put(tmp_path, 'torch_train', rows=[ours, theirs], against_torch=[{**of, 'ratio': spread(1.5)}])
  trained = {'row': 'cifar10_r110', 'mean': 6.25, 'std': None, 'published': 6.37,
             'difference': -0.12, 'errors': {'0': 6.25}, 'best': {'0': 6.0},
             'images_per_second': {'0': 10_000.0}}  # fmt: skip
  put(tmp_path, 'cifar10_r110', rows=[trained])
  put(tmp_path, 'logits', status='failed', rows=[])
  profile = {'target': 'gpu:h200', 'command': 'x', 'profiles': [
    {'name': 'resnet50', 'batch_per_device': 128, 'bytes': 1},
    {'name': 'se_resnet50', 'batch_per_device': 64, 'bytes': 2},
    {'name': 'se_resnet50', 'batch_per_device': 128, 'bytes': 46_000_000_000},
  ]}  # fmt: skip
  (tmp_path / 'benchmarks').mkdir()
  (tmp_path / 'benchmarks' / 'profile_h200.json').write_text(json.dumps(profile))
  text = evidence_tables.details(tmp_path)
  assert '### 1 x NVIDIA H200' in text
  assert (
    '| `se_resnet50` | train | 128 | 42.00 | 3,000 | 0.250 | 1,000 | 50% | 45.00 | 46.00 | +1.2 |'
    in text
  )
  assert '| `se_resnet50` | train | 128 | 3,000 | 2,000 | 1.50 ± 0.10 |' in text
  # An epoch of 50,000 images at 10,000 a second.
  assert '| `cifar10_r110` | 6.37 | 6.25 | -0.12 | 6.00 | 5.0 |' in text
  assert re.search(r'^\| `logits` \| .* \| not run \|$', text, re.MULTILINE)
  text = evidence_tables.overview(tmp_path)
  assert '| `se_resnet50` | train | 128 | +1.2 % |  |  | 1.50 |' in text
  assert '| `cifar10_r110` | 6.37 | 6.25 |' in text
  assert 'SE-ResNeXt-50' in text and 'SE-ResNet-50, training, 128' not in text
  (tmp_path / 'evidence' / 'h200' / 'digits.json').write_text('[]')
  with pytest.raises(UserError, match=r'digits\.json is no record of tools\.evidence; remove it'):
    evidence_tables.overview(tmp_path)
