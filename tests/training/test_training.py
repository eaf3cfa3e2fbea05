"""Whole runs: exact resumption after every kind of stop, schedules, faults, reports."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from senet_jax import cli, config as config_lib, runtime
from senet_jax.data.device_feed import DeviceFeed, EvalFeed
from senet_jax.errors import UserError
from senet_jax.evaluation.evaluate import eval_program, evaluate
from senet_jax.tools import evaluate as evaluate_tool
from senet_jax.training import classification, resume, trainer
from senet_jax.training.loop import train
from senet_jax.workdir import checkpoints, saved
from senet_jax.workdir.records import read_records
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState
from tests.helpers import paths
from tests.helpers.small_run import SMALL, kill_at, programs_by_step, small, summary

DEFAULTS = paths.TESTS / 'helpers' / 'default_config.py'


def arguments(workdir, *module, **fields) -> list[str]:
  """The command line of a run of `small(**fields)`."""
  values = {**SMALL, **{k.replace('__', '.'): v for k, v in fields.items()}}
  overrides = [f'--config.{k}={v}' for k, v in values.items()]
  module = module or ('senet_jax.main',)
  return [
    sys.executable, '-m', *module, f'--config={DEFAULTS}', f'--workdir={workdir}', *overrides
  ]  # fmt: skip


def killed(workdir, step, number) -> list[str]:
  """The command line of a run that gets a signal when it asks for the inputs of `step`."""
  return arguments(workdir, 'tests.helpers.killed_run', str(step), str(int(number)))


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The run that nothing interrupted."""
  workdir = tmp_path_factory.mktemp('whole')
  assert train(small(), workdir)
  return workdir


@pytest.fixture(scope='module')
def first_half(tmp_path_factory):
  """A run of the first ten of the twenty steps."""
  workdir = tmp_path_factory.mktemp('half')
  assert train(small(steps=10), workdir)
  return workdir


@pytest.fixture
def half(first_half, tmp_path):
  """A copy of the first half, to go on from."""
  return shutil.copytree(first_half, tmp_path / 'half')


# --- resumption ----------------------------------------------------------------------------------


def test_two_halves_are_the_whole(whole, half, capsys):
  assert summary(half)['steps'] == 10
  assert train(small(), half)
  assert 'resumed from step 10' in capsys.readouterr().out
  halves, full = summary(half), summary(whole)
  assert halves['params_sha256'] == full['params_sha256']
  assert halves['final'] == full['final'] and halves['examples_seen'] == 20 * 64
  # The end of the first half was an evaluation of its own; it stays in the records.
  evals = {r['step']: r for r in read_records(half / 'metrics.jsonl') if r['kind'] == 'eval'}
  assert list(evals) == [8, 10, 16, 20]


def test_records_of_steps_that_are_run_again_go(whole, half):
  shutil.rmtree(half / 'checkpoints' / '10')  # as if it had been killed after step 8
  assert train(small(), half)
  steps = [(r['kind'], r['step']) for r in read_records(half / 'metrics.jsonl')]
  assert steps == [(r['kind'], r['step']) for r in read_records(whole / 'metrics.jsonl')]


def test_sigterm_saves_and_the_same_command_goes_on(whole, tmp_path, monkeypatch):
  before = signal.getsignal(signal.SIGTERM)
  with monkeypatch.context() as patch:
    kill_at(patch, 7)
    assert train(small(), tmp_path) is False
  assert signal.getsignal(signal.SIGTERM) is before
  assert not (tmp_path / 'summary.json').exists()
  assert '8' in os.listdir(tmp_path / 'checkpoints')
  assert train(small(), tmp_path)
  assert summary(tmp_path)['params_sha256'] == summary(whole)['params_sha256']
  # The stop came before the evaluation of step 8, which the second run made up for.
  steps = [(r['kind'], r['step']) for r in read_records(tmp_path / 'metrics.jsonl')]
  assert steps == [(r['kind'], r['step']) for r in read_records(whole / 'metrics.jsonl')]
  assert summary(tmp_path)['best'] == summary(whole)['best']


@pytest.mark.thorough
def test_sigkill_between_checkpoints(whole, tmp_path):
  done = subprocess.run(killed(tmp_path, 12, signal.SIGKILL), stdout=subprocess.DEVNULL)
  assert done.returncode == -signal.SIGKILL
  # The save of step 10, which is under way, has waited for that of step 8.
  assert (tmp_path / 'checkpoints' / '8').exists()
  assert train(small(), tmp_path)
  assert summary(tmp_path)['params_sha256'] == summary(whole)['params_sha256']


@pytest.mark.thorough
def test_command_ends_with_75_after_sigterm(tmp_path):
  command = killed(tmp_path, 7, signal.SIGTERM)
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
  assert done.returncode == cli.PREEMPTED
  assert 'the same command resumes from there' in done.stdout


@pytest.mark.thorough
def test_looped_run_keeps_its_kind(tmp_path, monkeypatch):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  assert train(small(steps_per_dispatch=5), whole)
  with monkeypatch.context() as patch:
    kill_at(patch, 4)
    assert train(small(steps_per_dispatch=4), parts) is False
  assert train(small(steps_per_dispatch=1), parts)
  assert summary(parts)['params_sha256'] == summary(whole)['params_sha256']


@pytest.mark.thorough
def test_eight_devices_resumed_on_four(tmp_path):
  """Which examples a step sees is `test_feed.py`'s; here the numbers agree as well."""
  fields = {'bn__scope': 'global', 'steps': 12}
  config = small(**fields)
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  assert train(config, whole)
  assert train(small(**{**fields, 'steps': 6}), parts)
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '4'}
  done = subprocess.run(arguments(parts, **fields), env=environment, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert 'resumed from step 6' in done.stdout and '64 = 4 x 16 images' in done.stdout
  assert '4 devices instead of 8, the same batches.' in done.stdout
  assert summary(parts)['device'].startswith('4 x')
  mesh = runtime.data_mesh()
  eight, four = (saved.load(d, 'latest', mesh).variables for d in (whole, parts))
  for a, b in zip(jax.tree.leaves(eight), jax.tree.leaves(four), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-3)
  assert summary(parts)['final']['loss'] == pytest.approx(summary(whole)['final']['loss'], rel=1e-3)


def test_other_devices_under_local_normalisation():
  said = []
  resume.say_if_devices_changed(small(), 4, 4, said.append)
  assert not said
  resume.say_if_devices_changed(small(), 8, 4, said.append)
  assert 'is now over 16 images instead of 8' in said[0]


def test_finished_run_says_so_again(whole, capsys):
  before = summary(whole)
  assert train(small(), whole)
  assert 'resumed from step 20 of 20' in capsys.readouterr().out
  after = summary(whole)
  assert after['params_sha256'] == before['params_sha256'] and after['final'] == before['final']


@pytest.mark.thorough
@pytest.mark.parametrize('where', ['compile', 'save', 'evaluation'])
def test_sigterm_at_any_other_moment(whole, tmp_path, monkeypatch, where):
  """Not between steps: while compiling, while saving after an evaluation, while evaluating."""
  owner, name, call = {
    'compile': (trainer.Trainer, 'compile', 1),
    'save': (checkpoints.Checkpoints, 'save', 3),
    'evaluation': (EvalFeed, 'inputs', 3),
  }[where]
  original = getattr(owner, name)
  calls = []

  def interrupting(*args, **kwargs):
    calls.append(args)
    if len(calls) == call:
      os.kill(os.getpid(), signal.SIGTERM)
    return original(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(owner, name, interrupting)
    assert train(small(eval__batch_size=16), tmp_path) is False
  assert train(small(), tmp_path)
  assert summary(tmp_path)['params_sha256'] == summary(whole)['params_sha256']
  assert summary(tmp_path)['final'] == pytest.approx(summary(whole)['final'])


def test_everything_is_compiled_before_the_first_step(tmp_path, monkeypatch):
  """A preemption must not wait for a compiler while steps are not saved."""
  at_step = programs_by_step(monkeypatch)
  assert train(small(bn__freeze_last_epochs=1.25), tmp_path)
  assert at_step[0][0] < 10 and at_step[-1][0] == 20  # BN is frozen from step 10 on
  assert {count for _, count in at_step} == {3}  # two kinds of steps, and the evaluation


def test_sigterm_before_the_first_step(tmp_path, monkeypatch):
  create = DeviceFeed.create

  def interrupting(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    return create(*args)

  with monkeypatch.context() as patch:
    patch.setattr(DeviceFeed, 'create', interrupting)
    assert train(small(steps=2), tmp_path) is False
  assert train(small(steps=2), tmp_path)


def test_per_step_run_keeps_its_kind(whole, half, capsys):
  assert train(small(steps_per_dispatch=10), half)
  assert 'began with one step a dispatch and keeps that' in capsys.readouterr().out
  found, full = summary(half), summary(whole)
  assert found['params_sha256'] == full['params_sha256']
  assert (found['steps'], found['examples_seen']) == (20, 1280)


def test_length_of_a_run(whole, tmp_path):
  with pytest.raises(UserError, match='at step 20, past the 12 steps of this run'):
    train(small(steps=12), whole)
  assert train(small(steps=2, schedule__name='cosine'), tmp_path)
  # Under a cosine the steps already taken depend on the length.
  with pytest.raises(UserError, match='steps: 2 there, 4 given'):
    train(small(steps=4, schedule__name='cosine'), tmp_path)


def test_what_must_lie_within_the_run(tmp_path):
  with pytest.raises(UserError, match=r'profile\.start=20 is past the run of 20 steps'):
    train(small(profile__start=20), tmp_path)


def test_run_of_an_older_version():
  """A field that came later counts with its default."""
  saved_identity = {'seed': 0, 'model': {'name': 'se_resnet50'}}
  given = config_lib.default().to_dict()
  assert set(config_lib.differences(saved_identity, given)) == set()
  given['optimizer']['clip_norm'] = 1.0
  assert config_lib.differences(saved_identity, given) == {'optimizer.clip_norm': (0.0, 1.0)}


def test_fields_and_values_that_went():
  old = {'model': {'name': 'se_resnet50', 'scan_blocks': None, 'se': {'fused': 'auto', 'ratio': 8}}}
  config = config_lib.from_dict(old)
  assert config.model.se.fused is True and config.model.se.ratio == 8
  assert not hasattr(config.model, 'scan_blocks')
  assert old['model']['se']['fused'] == 'auto' and 'scan_blocks' in old['model']
  given = config.to_dict()
  assert config_lib.differences(old, given) == {}
  old['model']['scan_blocks'] = False
  assert config_lib.differences(old, given) == {} and config_lib.from_dict(old) == config
  old['model']['scan_blocks'] = True
  for read in (config_lib.from_dict, lambda old: config_lib.differences(old, given)):
    with pytest.raises(
      UserError, match=r'config\.model\.scan_blocks=True is of an earlier version'
    ):
      read(old)
  for odd in ({'model.scan_blocks': None}, {'model': None}, {'model': {'se': 3}}):
    with pytest.raises(UserError, match='not a configuration of this version'):
      config_lib.from_dict(odd)


def test_evaluation_that_is_not_finite(tmp_path, monkeypatch):
  monkeypatch.setattr(
    classification, 'evaluate', lambda *_: {'loss': float('nan'), 'top1_error': 90.0}
  )
  with pytest.raises(UserError, match='evaluation loss is not finite at step 2'):
    train(small(steps=2), tmp_path)
  assert not (tmp_path / 'summary.json').exists()


def test_trace_of_an_interrupted_run(tmp_path, monkeypatch, capsys):
  config = small(steps=8, profile__start=2, profile__steps=5)
  with monkeypatch.context() as patch:
    kill_at(patch, 4)
    assert train(config, tmp_path) is False
  assert 'trace of steps 2 to 5' in capsys.readouterr().out
  assert train(config, tmp_path)
  assert 'trace of steps 5 to 7' in capsys.readouterr().out


def test_relative_workdir(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert train(small(steps=2), 'runs/here')
  assert (tmp_path / 'runs' / 'here' / 'summary.json').exists()
  assert os.listdir(tmp_path / 'runs' / 'here' / 'checkpoints') == ['2']


def test_averaged_weights_are_the_evaluated_ones(tmp_path):
  assert train(small(steps=8, optimizer__ema_decay=0.5), tmp_path)
  mesh = runtime.data_mesh()
  averaged = saved.load(tmp_path, 'latest', mesh)
  feed = EvalFeed.create(averaged.config, 'test[:128]', mesh)
  program = eval_program(averaged.model, feed, mesh)
  assert evaluate(program, averaged.variables, feed)['loss'] == pytest.approx(
    summary(tmp_path)['final']['loss'], rel=1e-5
  )


# --- damage and mistakes -------------------------------------------------------------------------


@pytest.mark.parametrize('damage', ['truncated', 'flipped', 'missing'])
def test_damaged_newest_checkpoint(whole, half, capsys, damage):
  newest = half / 'checkpoints' / '10'
  files = sorted((p for p in newest.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  if damage == 'truncated':
    files[-1].write_bytes(files[-1].read_bytes()[: files[-1].stat().st_size // 2])
  elif damage == 'flipped':
    data = bytearray(files[-1].read_bytes())
    data[len(data) // 2] ^= 0xFF
    files[-1].write_bytes(data)
  else:
    files[-1].unlink()
  assert train(small(), half)
  out = capsys.readouterr().out
  assert 'checkpoint 10 ' in out and 'is damaged' in out and 'Falling back' in out
  assert 'resumed from step 8' in out
  assert summary(half)['params_sha256'] == summary(whole)['params_sha256']
  assert list((half / 'damaged').iterdir())  # set aside, not lost


def test_all_checkpoints_damaged(tmp_path):
  assert train(small(steps=2), tmp_path)
  for path in (tmp_path / 'checkpoints').rglob('*'):
    if path.is_file() and 'state' in path.parts and 'METADATA' not in path.name:
      path.write_bytes(b'')
  with pytest.raises(UserError, match=r'none of the checkpoints .* can be read'):
    train(small(), tmp_path)
  assert (tmp_path / 'checkpoints' / '2').exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
  ('file', 'text'),
  [
    ('metrics/metrics', ''),
    ('metrics/metrics', '{"top1_error": []}'),
    ('_CHECKPOINT_METADATA', '{"performance_metrics": "x"}'),
  ],
)
def test_damaged_metrics_of_a_checkpoint(whole, half, file, text):
  (half / 'checkpoints' / '10' / file).write_text(text)
  with pytest.raises(
    UserError, match=r'10 in .* is damaged \(.*\)\. Resume the run, which sets it aside'
  ):
    saved.load(half, 'latest', runtime.data_mesh())
  assert train(small(), half)
  assert [p.name for p in (half / 'damaged').iterdir()] == ['10.0']
  assert summary(half)['params_sha256'] == summary(whole)['params_sha256']


def test_checksum_finds_what_the_format_does_not(whole, monkeypatch):
  monkeypatch.setattr(checkpoints, 'checksum', lambda state: 1)
  with pytest.raises(UserError, match='checksum differs'):
    saved.load(whole, 'latest', runtime.data_mesh())


def test_workdir_of_another_run_is_refused(whole):
  given = small(model__se__ratio=2, optimizer__weight_decay=0.0)
  with pytest.raises(UserError) as error:
    train(given, whole)
  assert 'model.se.ratio: 4 there, 2 given' in str(error.value)
  assert 'optimizer.weight_decay: 0.0001 there, 0.0 given' in str(error.value)
  with pytest.raises(UserError, match=r'data.eval_split.*dataset.eval.examples: 128 there, 64'):
    train(small(data__eval_split='test[:64]'), whole)
  neutral = small(model__se__fused=False, log__every_steps=3, checkpoint__keep=11)
  assert train(neutral, whole)


def test_full_disk(tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(ocp.CheckpointManager, 'save', full)
  with pytest.raises(UserError, match=r'cannot write a checkpoint to .*: no space left'):
    train(small(steps=2), tmp_path)


def test_divergence_names_step_rate_and_checkpoint(tmp_path):
  config = small(
    optimizer__learning_rate=1e32, schedule__unit='steps', schedule__warmup=10.0,
    schedule__warmup_shape='constant', schedule__warmup_start=1e-33,
  )  # fmt: skip
  with pytest.raises(UserError) as error:
    train(config, tmp_path)
  message = str(error.value)
  assert 'not finite at step 11' in message and '1e+32' in message
  assert f'last good checkpoint: step 10 in {tmp_path}' in message


# --- schedules that look at the evaluation -------------------------------------------------------


@pytest.mark.thorough
def test_plateau_and_early_stopping(tmp_path, monkeypatch):
  config = small(
    steps=200, optimizer__learning_rate=1e-9, bn__momentum=0.0, bn__freeze_last_epochs=24.9,
    schedule__name='plateau', schedule__patience=2, early_stopping__patience=5,
    early_stopping__min_delta=1e-4,
    checkpoint__every_steps=0,
  )  # fmt: skip
  with monkeypatch.context() as patch:
    kill_at(patch, 29)  # the counts survive a restart
    assert train(config, tmp_path) is False
  assert train(config, tmp_path)
  records = read_records(tmp_path / 'metrics.jsonl')
  # Nothing changes, so the first of six evaluations stays the best.
  assert [r['step'] for r in records if r['kind'] == 'eval'] == [8, 16, 24, 32, 40, 48]
  rates = {r['step']: r['learning_rate'] for r in records if r['kind'] == 'train'}
  assert rates[24] == pytest.approx(1e-9)
  assert rates[32] == pytest.approx(1e-10)
  assert rates[48] == pytest.approx(1e-11)
  assert summary(tmp_path)['steps'] == 48
  assert train(config, tmp_path)
  assert summary(tmp_path)['steps'] == 48


@pytest.mark.parametrize(('metric', 'rate'), [('loss', 0.05), ('top1_error', 0.005)])
def test_the_plateau_is_of_the_metric(metric, rate, tmp_path, monkeypatch):
  falling = (
    {'loss': 1 / step, 'top1_error': 50.0, 'top3_error': 0.0, 'top5_error': 0.0}
    for step in range(1, 9)
  )
  monkeypatch.setattr('senet_jax.training.classification.evaluate', lambda *args: next(falling))
  plateau = {'name': 'plateau', 'patience': 1, 'metric': metric}
  config = small(steps=24, **{f'schedule__{key}': value for key, value in plateau.items()})
  assert train(config, tmp_path)
  last = [r for r in read_records(tmp_path / 'metrics.jsonl') if r['kind'] == 'train'][-1]
  assert last['learning_rate'] == pytest.approx(rate)


def test_frozen_statistics_at_the_end(tmp_path):
  assert train(small(bn__freeze_last_epochs=1.25), tmp_path)
  mesh = runtime.data_mesh()
  stats, params = {}, {}
  for step in ('8', '10', '15', '20'):
    variables = saved.load(tmp_path, step, mesh).variables
    stats[step], params[step] = (
      np.asarray(variables['batch_stats']['stage2_block1']['bn1']['mean']),
      np.asarray(variables['params']['stage2_block1']['conv1']['kernel']),
    )
  assert (stats['8'] != stats['10']).any()
  np.testing.assert_array_equal(stats['10'], stats['20'])
  assert (params['15'] != params['20']).any()


# --- reports -------------------------------------------------------------------------------------


def test_what_a_run_leaves(whole):
  found = summary(whole)
  keys = 'final best steps epochs examples_seen wall_time_s device_hours images_per_second params '
  keys += 'params_sha256 device versions git_commit'
  assert ' '.join(found) == keys
  results = ['step', 'epoch', 'loss', 'top1_error', 'top3_error', 'top5_error']
  assert list(found['final']) == list(found['best']) == results
  assert (found['steps'], found['epochs'], found['examples_seen']) == (20, 2.5, 1280)
  assert found['images_per_second'] > 0 and found['wall_time_s'] > 0
  # Eight devices for the whole time, both rounded.
  assert found['device_hours'] == pytest.approx(8 * found['wall_time_s'] / 3600, abs=2e-4)
  assert json.loads((whole / 'config.json').read_text())['model']['se']['ratio'] == 4
  assert (whole / 'curves.png').read_bytes().startswith(b'\x89PNG')
  records = read_records(whole / 'metrics.jsonl')
  assert [r['step'] for r in records if r['kind'] == 'train'] == [4, 8, 12, 16, 20]
  assert [r['step'] for r in records if r['kind'] == 'eval'] == [8, 16, 20]


def test_evaluate_tool_agrees_with_the_run(whole, tmp_path, capsys):
  output = tmp_path / 'e.json'
  evaluate_tool.main([f'--workdir={whole}', '--checkpoint=latest', f'--output={output}'])
  row, final = json.loads(output.read_text()), summary(whole)['final']
  assert row['examples'] == 128 and row['step'] == 20
  for name in ('loss', 'top1_error', 'top3_error', 'top5_error'):
    assert row[name] == pytest.approx(final[name]), name
  assert '128 images' in capsys.readouterr().out
  evaluate_tool.main([f'--workdir={whole}', f'--output={output}', '--batch_size=24'])
  row, best = json.loads(output.read_text()), summary(whole)['best']
  assert row['step'] == best['step'] and row['top1_error'] == pytest.approx(best['top1_error'])
  with pytest.raises(UserError, match="no checkpoint '12'; give best, latest or of"):
    evaluate_tool.main([f'--workdir={whole}', '--checkpoint=12'])


def test_old_checkpoints_go_as_a_whole(tmp_path, monkeypatch):
  """They are moved before their files are deleted, which a kill may interrupt."""
  state = TrainState(np.int32(0), {'w': np.zeros(3)}, {}, ())
  directory = tmp_path / 'checkpoints'

  def save(steps):
    with checkpoints.Checkpoints(tmp_path, keep=1) as kept:
      for step in steps:
        kept.save(state.replace(step=np.int32(step)), RunProgress({}), None)

  with monkeypatch.context() as patch:
    patch.setattr(shutil, 'rmtree', lambda *_, **__: None)  # killed before it is done
    save((1, 2, 3))
  assert sorted(p.name for p in directory.iterdir()) == ['3', 'deleted']
  for step in ('1', '2'):
    assert {'state', 'host'} <= {p.name for p in (directory / 'deleted' / step).iterdir()}
  save((4,))
  assert [p.name for p in directory.iterdir()] == ['4']


def test_half_a_checkpoint_is_set_aside(tmp_path):
  assert train(small(steps=2), tmp_path)
  half = tmp_path / 'checkpoints' / '1'
  shutil.copytree(tmp_path / 'checkpoints' / '2', half)
  shutil.rmtree(half / 'host')
  assert train(small(steps=2), tmp_path)
  assert not half.exists() and [p.name for p in (tmp_path / 'damaged').iterdir()] == ['1.0']


def test_profile_of_chosen_steps(tmp_path, capsys):
  assert train(small(steps=6, profile__start=2, profile__steps=3), tmp_path)
  assert 'trace of steps 2 to 5' in capsys.readouterr().out
  assert list((tmp_path / 'profile').rglob('*.xplane.pb'))


def test_tensorboard_files(tmp_path):
  pytest.importorskip('tensorflow')
  assert train(small(steps=2, log__tensorboard=True), tmp_path)
  assert list(tmp_path.glob('events.out.tfevents.*'))


# --- without TensorFlow --------------------------------------------------------------------------

_WITHOUT = """
import sys
for name in ('tensorflow', 'tensorflow_datasets', 'clu.metric_writers', 'clu.periodic_actions'):
  sys.modules[name] = None  # an import of it is an ImportError
import senet_jax
from senet_jax.models import create_model
create_model('se_resnet50')
from senet_jax import main
sys.exit(main.main(sys.argv[1:]))
"""


@pytest.mark.thorough
def test_no_tensorflow_is_needed(tmp_path):
  command = [sys.executable, '-c', _WITHOUT, *arguments(tmp_path)[3:]]
  command += ['--config.data.fake=False', '--config.steps=2', '--config.log.tensorboard=True']
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  assert "no TensorBoard files (they need pip install 'senet_jax[tensorboard]'" in done.stdout
  assert (tmp_path / 'summary.json').exists()
