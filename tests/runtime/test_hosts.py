"""Several processes of one run: they compute what one does, agree, and end together."""

import os
import re
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.runtime import hosts as hosts_lib
from senet_jax.storage import files
from senet_jax.training import loop
from senet_jax.workdir import saved
from tests.helpers.ports import free_port
from tests.helpers.small_run import summary

pytestmark = pytest.mark.thorough

CONFIG = '--config=configs/digits_se_r20.py'
COMMAND = [sys.executable, '-m', 'senet_jax.main', CONFIG]
SHORT = (
  '--config.steps=16',
  '--config.eval.every_epochs=0.2',
  '--config.log.every_steps=1',
  '--config.log.tensorboard=False',
  '--config.model.depths=(1, 1, 1)',
)
KILLED = [sys.executable, '-m', 'tests.helpers.killed_run']


class Job:
  """Processes of one run on this machine, each with its own output.

  `killed` is the number of one that gets a signal, the step it then asks for, and the signal.
  """

  def __init__(self, count, workdir, *flags, devices=1, each=None, killed=None):
    port = free_port()
    environment = {
      **os.environ,
      'JAX_NUM_CPU_DEVICES': str(devices),
      # XLA has as many threads as cores or devices, cuts its work to them, and so rounds by them.
      'PJRT_NPROC': '2',
    }
    self.processes = []
    for number in range(count):
      hosts = [
        f'--coordinator=127.0.0.1:{port}',
        f'--num_processes={count}',
        f'--process_id={number}',
      ]
      own = each(number) if each else ()
      command = COMMAND
      if killed and killed[0] == number:
        command = [*KILLED, *map(str, map(int, killed[1:])), CONFIG]
      self.processes.append(
        subprocess.Popen(
          [*command, f'--workdir={workdir}', *flags, *hosts, *own],
          env=environment,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
        )
      )

  def wait(self, timeout=240):
    """Exit statuses and outputs."""
    try:
      outputs = [process.communicate(timeout=timeout)[0] for process in self.processes]
    finally:
      for process in self.processes:
        process.kill()
    return [process.returncode for process in self.processes], outputs


def variables_of(workdir):
  return saved.load(workdir, 'latest', runtime.data_mesh(1)).variables


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  """What two processes of one device each make of a short run, under global BN."""
  workdir = tmp_path_factory.mktemp('two')
  statuses, outputs = Job(2, workdir, *SHORT, '--config.bn.scope=global').wait()
  assert statuses == [0, 0], outputs
  return workdir, outputs


def assert_same_run(workdir, alone):
  """Parameters and statistics to 1e-6, the evaluation exactly."""
  for a, b in zip(leaves(variables_of(workdir)), leaves(variables_of(alone)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
  here, there = summary(workdir)['final'], summary(alone)['final']
  assert {k: here[k] for k in here if 'error' in k} == {k: there[k] for k in there if 'error' in k}
  assert here['loss'] == pytest.approx(there['loss'], rel=1e-6)
  assert summary(workdir)['examples_seen'] == summary(alone)['examples_seen']


def test_two_processes_compute_what_one_does(uninterrupted, tmp_path):
  workdir, outputs = uninterrupted
  assert re.search(r'process 0 of 2 on \S+: 1 of 2 devices \(cpu\), batch 64 = 2 x 32', outputs[0])
  assert re.search(r'process 1 of 2 on \S+: 1 of 2 devices', outputs[1])
  assert 'loss' not in outputs[1]  # the first process reports for all
  statuses, alone = Job(1, tmp_path, *SHORT, '--config.bn.scope=global', devices=2).wait()
  assert statuses == [0], alone
  assert_same_run(workdir, tmp_path)


@pytest.mark.slow
def test_four_processes_compute_what_one_does(tmp_path):
  # One step: four devices are summed in another order, and further ones blow that up.
  flags = (*SHORT, '--config.steps=1', '--config.schedule.warmup=0.0', '--config.bn.scope=global')
  for count, devices in ((4, 1), (1, 4)):
    workdir = tmp_path / f'{count}'
    job = Job(count, workdir, *flags, devices=devices)
    statuses, outputs = job.wait()
    assert statuses == [0] * count, outputs
  assert_same_run(tmp_path / '4', tmp_path / '1')


def leaves(tree):
  return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_sigterm_to_one_stops_all_at_the_same_step(uninterrupted, tmp_path):
  # Process 1 gets the signal; and process 0 saves.
  flags = (*SHORT, '--config.bn.scope=global')
  statuses, outputs = Job(2, tmp_path, *flags, killed=(1, 3, signal.SIGTERM)).wait()
  assert statuses == [75, 75], outputs
  assert 'preempted: saved step' in outputs[0]
  statuses, outputs = Job(2, tmp_path, *flags).wait()
  assert statuses == [0, 0] and 'resumed from step' in outputs[0], outputs
  assert summary(tmp_path)['params_sha256'] == summary(uninterrupted[0])['params_sha256']


@pytest.mark.parametrize('victim', [0, pytest.param(1, marks=pytest.mark.slow)])
def test_sigkill_of_one_ends_the_others(victim, uninterrupted, tmp_path):
  flags = (*SHORT, '--config.bn.scope=global', '--config.checkpoint.every_steps=1')
  statuses, outputs = Job(2, tmp_path, *flags, killed=(victim, 4, signal.SIGKILL)).wait()
  assert statuses[1 - victim] not in (0, 2, 75)
  # Of ours or of JAX's runtime, whichever notices first: one line, and nobody's stack.
  said = outputs[1 - victim]
  assert re.search(rf'senet_jax: process {1 - victim} on \S+: lost another process', said), outputs
  assert not re.search('stack trace|UNAVAILABLE|grpc', said.partition('lost another')[0]), outputs
  assert '    @ ' not in said and 'Polled an error' not in said, outputs
  statuses, outputs = Job(2, tmp_path, *flags).wait()
  assert statuses == [0, 0], outputs
  assert 'resumed from step' in outputs[0]
  assert summary(tmp_path)['params_sha256'] == summary(uninterrupted[0])['params_sha256']


@pytest.mark.parametrize(
  ('error', 'lost'),
  [
    (ValueError('Gather failed: [external/gloo/gloo/transport/tcp/pair.cc:538] Read error'), True),
    (jax.errors.JaxRuntimeError('INTERNAL: Gloo all-reduce failed'), True),
    (jax.errors.JaxRuntimeError('UNAVAILABLE: Failed to send RPC'), True),
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: out of memory'), False),
    (ConnectionResetError(104, 'Connection reset by peer'), False),  # of a bucket
  ],
)
def test_what_is_the_loss_of_another_process(error, lost):
  assert hosts_lib.lost_another(error) is lost


def test_processes_that_differ_are_named(tmp_path):
  each = {0: ('--config.seed=1',), 1: ('--config.seed=2',)}.get
  statuses, outputs = Job(2, tmp_path, *SHORT, each=each).wait()
  assert statuses == [2, 2], outputs
  message = 'not started like process 0: seed is 2 here and 1 there'
  assert re.search(rf'process 1 on \S+: {message}', outputs[1])
  assert re.search(rf'process 1 on \S+ failed: {message}', outputs[0])
  assert not (tmp_path / 'metrics.jsonl').exists()


def test_wrong_number_of_processes(tmp_path):
  each = {0: (), 1: ('--num_processes=3',)}.get
  statuses, outputs = Job(2, tmp_path, *SHORT, each=each).wait()
  assert statuses == [2, 2], outputs
  assert '--num_processes is 3 here and 2 there' in outputs[1]


def test_missing_process(tmp_path):
  """Of two jobs of two processes each, one has only its first, the other only its second."""
  messages = 'not all processes came', '127.0.0.1:{port} did not answer'
  started = []
  for number in range(2):
    port = free_port()
    flags = [f'--workdir={tmp_path}', f'--coordinator=127.0.0.1:{port}', '--num_processes=2']
    flags += [f'--process_id={number}', '--hosts_timeout=3']
    process = subprocess.Popen([*COMMAND, *flags], stderr=subprocess.PIPE, text=True)
    started.append((process, messages[number].format(port=port)))
  for process, message in started:
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 2, said
    assert message in said and 'Traceback' not in said


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    ({'coordinator': '10.0.0.1:1'}, 'not given: --num_processes'),
    ({'coordinator': '10.0.0.1:1', 'num_processes': 2, 'process_id': 2}, 'from 0 to 1'),
    ({'coordinator': '10.0.0.1', 'num_processes': 2, 'process_id': 0}, 'must be HOST:PORT'),
    ({'coordinator': 'a:70000', 'num_processes': 2, 'process_id': 0}, 'must be HOST:PORT'),
  ],
)
def test_what_does_not_fit_together(given, message):
  with pytest.raises(UserError, match=message):
    runtime.connect(**given)


def test_environment_variables(monkeypatch):
  monkeypatch.setenv('JAX_COORDINATOR_ADDRESS', '10.0.0.1:1')
  monkeypatch.setenv('JAX_NUM_PROCESSES', 'two')
  monkeypatch.setenv('JAX_PROCESS_ID', '0')
  with pytest.raises(UserError, match='must be numbers'):
    runtime.connect()
  monkeypatch.setenv('JAX_NUM_PROCESSES', '1')
  runtime.connect()  # alone: nothing to do


@pytest.mark.parametrize(
  ('environment', 'count'),
  [
    ({'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'node[3-4]', 'SLURM_NTASKS': '2',
      'SLURM_PROCID': '1', 'SLURM_LOCALID': '0', 'SLURM_STEP_NUM_TASKS': '2'}, 2),
    ({'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:34911', 'OMPI_COMM_WORLD_SIZE': '4',
      'OMPI_COMM_WORLD_RANK': '3', 'OMPI_COMM_WORLD_LOCAL_RANK': '3'}, 4),
    # An allocation of two tasks, in which a single program runs.
    ({'SLURM_JOB_ID': '7', 'SLURM_NTASKS': '2', 'SLURM_PROCID': '0'}, None),
  ],
)  # fmt: skip
def test_clusters_are_found(environment, count, monkeypatch):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  calls = []
  monkeypatch.setattr('jax.distributed.initialize', lambda *a, **k: calls.append(a))
  runtime.connect()
  # JAX itself reads the rest from the environment.
  assert calls == ([(None, None, None)] if count else [])
  if count:
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, None, 1)
    assert found[1] == count


def test_second_run_on_a_workdir(tmp_path):
  taken = pytest.raises(UserError, match=rf'is in use by process {os.getpid()} on')
  with files.locked(tmp_path), taken, files.locked(tmp_path):
    pass
  with files.locked(tmp_path):  # the first has ended
    pass


def test_what_each_process_gives_comes_to_all():
  code = (
    'import sys; from senet_jax import runtime\n'
    'runtime.connect(sys.argv[1], 3, int(sys.argv[2]))\n'
    'for i in range(2): print(runtime.gather(f"{i}", {"of": int(sys.argv[2]) + 10 * i}))\n'
    'runtime.barrier("end")\n'
  )
  command = [sys.executable, '-c', code, f'127.0.0.1:{free_port()}']
  processes = [
    subprocess.Popen([*command, str(number)], stdout=subprocess.PIPE, text=True)
    for number in range(3)
  ]
  expected = "[{'of': 0}, {'of': 1}, {'of': 2}]\n[{'of': 10}, {'of': 11}, {'of': 12}]\n"
  assert [process.communicate(timeout=120)[0] for process in processes] == 3 * [expected]
  assert runtime.gather('alone', 'x') == ['x']


def test_relative_workdir_of_several_processes(monkeypatch):
  monkeypatch.setattr('jax.process_count', lambda: 2)
  with pytest.raises(UserError, match='--workdir=runs/x is relative'):
    loop.shared_workdir('runs/x')


@pytest.mark.parametrize('platform', ['cuda', 'nonsense'])
def test_platform_that_is_not_here(platform, tmp_path):
  environment = {**os.environ, 'JAX_PLATFORMS': platform}
  done = subprocess.run(
    [*COMMAND, f'--workdir={tmp_path}/run'], env=environment, capture_output=True, text=True
  )
  assert done.returncode == 2
  assert f'JAX_PLATFORMS={platform} cannot be used: ' in done.stderr
  assert 'Traceback' not in done.stderr and not (tmp_path / 'run').exists()
