"""The launchers, run for real; where they call a cluster's commands, programs here play those.

What the programs that play `gcloud`, `srun` and `python` were called with is compared whole.
"""

import configparser
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from senet_jax import flags
from tests.helpers.paths import ROOT
from tests.helpers.until import until

pytestmark = pytest.mark.thorough

LAUNCH = ROOT / 'launch'
SCRIPTS = ['local.sh', 'slurm.sbatch', 'tpu_host.sh', 'tpu_vm.sh']
JOBSETS = ['gke_jobset.yaml', 'gke_jobset_gpu.yaml']

# Plays the interpreter: writes down what it got, then does what BODY says.
_PYTHON = """#!{python} -S
import json, os, pathlib, signal, subprocess, sys, time
out = pathlib.Path(os.environ['OUT'])
process = int(os.environ.get('JAX_PROCESS_ID', 0))
call = len(list(out.glob(f'{{process}}.*.json')))
got = dict(argv=sys.argv[1:], pid=os.getpid(), env=dict(os.environ))
name = f'{{process}}.{{time.time_ns()}}.{{os.getpid()}}'
(out / f'{{name}}.tmp').write_text(json.dumps(got))
(out / f'{{name}}.tmp').rename(out / f'{{name}}.json')
exec(os.environ.get('BODY', ''))
"""
_SAVES = """
def save(*_):
  print('saved', flush=True)
  sys.exit(75)
signal.signal(signal.SIGTERM, save)
(out / f'ready{process}.{call}').touch()
time.sleep(60)
"""


def _program(path: pathlib.Path, text: str) -> pathlib.Path:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text.format(python=sys.executable))
  path.chmod(0o755)
  return path


def _gone(pid: int) -> bool:
  if not shutil.which('ps'):
    pytest.skip('ps is not installed')
  state = subprocess.run(['ps', '-o', 'stat=', '-p', str(pid)], capture_output=True, text=True)
  return state.stdout.strip()[:1] in ('', 'Z')


@pytest.fixture
def base(tmp_path, monkeypatch) -> pathlib.Path:
  """A folder for what the programs write; nothing of this machine's GPUs or jobs is visible."""
  for name in list(os.environ):
    if name.startswith(('SLURM_', 'JAX_', 'CUDA_')):
      monkeypatch.delenv(name)
  (tmp_path / 'bin').mkdir()
  (tmp_path / 'out').mkdir()
  _program(tmp_path / 'bin' / 'nvidia-smi', '#!/bin/sh\necho "No devices were found"; exit 6\n')
  monkeypatch.setenv('PATH', f'{tmp_path / "bin"}:{os.environ["PATH"]}')
  monkeypatch.setenv('OUT', str(tmp_path / 'out'))
  monkeypatch.setenv('PYTHON', str(_program(tmp_path / 'python', _PYTHON)))
  return tmp_path


def _run(*command, **variables) -> subprocess.CompletedProcess:
  return subprocess.run(
    [str(part) for part in command],
    env={**os.environ, **variables},
    capture_output=True,
    text=True,
    timeout=60,
  )


@pytest.fixture
def background():
  """Starts a launcher in a session of its own; ends it if the test has not."""
  started = []

  def start(*command, **variables) -> subprocess.Popen:
    process = subprocess.Popen(
      [str(part) for part in command],
      env={**os.environ, **variables},
      stdout=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )
    started.append(process)
    return process

  yield start
  for process in started:
    with process:
      if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _calls(base: pathlib.Path, process: int = 0) -> list[dict]:
  """What the calls of a process got, the first one first."""
  return [json.loads(path.read_text()) for path in sorted((base / 'out').glob(f'{process}.*.json'))]


def _jax_env(call: dict) -> dict[str, str]:
  return {k: v for k, v in call['env'].items() if k.startswith(('JAX_', 'CUDA_'))}


# local.sh


def test_local_gives_each_process_its_arguments_and_number(base):
  arguments = ['--config=a.py', "--config.model.name=it's two words"]
  done = _run(LAUNCH / 'local.sh', '-n', '3', '-d', '2', '--', *arguments)
  assert done.returncode == 0, done.stderr
  calls = [_calls(base, process) for process in range(3)]
  addresses = {call['env']['JAX_COORDINATOR_ADDRESS'] for [call] in calls}
  assert len(addresses) == 1 and re.fullmatch(r'127\.0\.0\.1:2\d{4}', addresses.pop())
  for process, [call] in enumerate(calls):
    assert call['argv'] == ['-m', 'senet_jax.main', *arguments]
    environment = _jax_env(call)
    del environment['JAX_COORDINATOR_ADDRESS']
    assert environment == {
      'JAX_NUM_PROCESSES': '3',
      'JAX_PROCESS_ID': str(process),
      'JAX_PLATFORMS': 'cpu',
      'JAX_NUM_CPU_DEVICES': '2',
    }


@pytest.mark.parametrize('visible', ['', 'GPU-a,GPU-b,GPU-c,GPU-d'])
def test_local_gives_each_process_gpus_of_its_own(base, visible):
  _program(base / 'bin' / 'nvidia-smi', '#!/bin/sh\nprintf "0\\n1\\n2\\n3\\n"\n')
  done = _run(LAUNCH / 'local.sh', '-d', '2', '--', 'x', CUDA_VISIBLE_DEVICES=visible)
  assert done.returncode == 0, done.stderr
  gpus = visible.split(',') if visible else ['0', '1', '2', '3']
  for process in range(2):
    [call] = _calls(base, process)
    environment = _jax_env(call)
    del environment['JAX_COORDINATOR_ADDRESS']
    assert environment == {
      'JAX_NUM_PROCESSES': '2',
      'JAX_PROCESS_ID': str(process),
      'JAX_PLATFORMS': 'cuda',
      'CUDA_VISIBLE_DEVICES': ','.join(gpus[2 * process : 2 * process + 2]),
    }


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['-n', 'two', '--', 'x'], "-n takes a whole number, not 'two'"),
    (['-n', '0', '--', 'x'], '-n must be at least 1'),
    (['-d', '0', '--', 'x'], '-d must be at least 1'),
    (['-p', 'tpu', '--', 'x'], "-p takes cpu or gpu, not 'tpu'"),
    (['-p', 'gpu', '-n', '2', '--', 'x'], '-n 2 -d 1 takes 2 GPUs, 0 are here'),
    (['-q'], 'local.sh -h'),
    ([], 'launch/local.sh -n 2 --'),
  ],
)
def test_local_explains_wrong_options(base, options, message):
  done = _run(LAUNCH / 'local.sh', *options)
  assert done.returncode == 2 and message in done.stderr
  assert not _calls(base)


@pytest.mark.parametrize(
  ('statuses', 'expected'),
  [
    ([0, 0, 0], 0),
    ([75, 2, 1], 2),
    ([1, 75, 0], 75),
    ([0, -signal.SIGSEGV, 0], 128 + signal.SIGSEGV),
  ],
)
def test_local_returns_the_most_telling_status(base, statuses, expected):
  body = f"""
status = {[int(status) for status in statuses]}[process]
os.kill(os.getpid(), -status) if status < 0 else sys.exit(status)
"""
  assert _run(LAUNCH / 'local.sh', '-n', '3', '--', 'x', BODY=body).returncode == expected


def test_local_ends_what_a_dead_process_leaves(base):
  body = """
if process == 1:
  while not (out / 'ready').exists(): time.sleep(0.01)
  sys.exit(3)
if process == 0:
  signal.signal(signal.SIGTERM, signal.SIG_IGN)
  child = subprocess.Popen(['sleep', '60'])
  (out / 'child').write_text(str(child.pid))
  (out / 'ready').touch()
  time.sleep(60)
"""
  done = _run(LAUNCH / 'local.sh', '-n', '3', '-g', '1', '--', 'x', BODY=body)
  assert done.returncode == 3
  assert 'process 1 ended with status 3' in done.stderr
  assert 'process 0 ended with status 137' in done.stderr
  assert _gone(int((base / 'out' / 'child').read_text())) and _gone(_calls(base, 0)[0]['pid'])


def test_local_says_which_process_lost_another(base):
  body = """
def is_there():
  try:
    first = next(out.glob('0.*.json'))
    return os.kill(int(first.suffixes[-2][1:]), 0) is None
  except ProcessLookupError:
    return False
  except StopIteration:  # not yet
    return True
if process == 0:
  os.kill(os.getpid(), signal.SIGKILL)
while is_there(): time.sleep(0.02)
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGABRT)
"""
  done = _run(LAUNCH / 'local.sh', '-n', '2', '--', 'x', BODY=body)
  assert done.returncode == 137
  assert done.stderr.splitlines() == [
    'local.sh: process 0 ended with status 137',
    'local.sh: process 1 ended as it lost another one',
  ]


def test_local_does_not_wait_for_what_a_process_leaves_behind(base):
  body = "(out / 'child').write_text(str(subprocess.Popen(['sleep', '60']).pid))"
  assert _run(LAUNCH / 'local.sh', '-n', '1', '--', 'x', BODY=body).returncode == 0
  assert _gone(int((base / 'out' / 'child').read_text()))


@pytest.mark.parametrize(
  ('sent', 'status', 'lines'),
  [
    (signal.SIGTERM, 75, ['[0] saved', '[1] saved']),
    (signal.SIGHUP, 75, ['[0] saved', '[1] saved']),
    (signal.SIGINT, 130, ['[0] interrupted', '[1] interrupted']),
  ],
)
def test_local_forwards_signals_and_starts_nothing_again(base, background, sent, status, lines):
  interrupts = "signal.signal(2, lambda *_: (print('interrupted', flush=True), sys.exit(130)))\n"
  command = [LAUNCH / 'local.sh', '-n', '2', '-r', '3', '--', 'x']
  launcher = background(*command, BODY=interrupts + _SAVES)
  until(lambda: len(list((base / 'out').glob('ready*'))) == 2)
  os.killpg(launcher.pid, sent)  # as a terminal does, or a supervisor
  out, _ = launcher.communicate(timeout=60)
  assert launcher.returncode == status
  assert sorted(out.splitlines()) == lines
  for process in range(2):
    [call] = _calls(base, process)
    assert _gone(call['pid'])


@pytest.mark.parametrize(
  ('statuses', 'restarts', 'starts', 'expected'),
  [
    ([75, 1, 0], 3, 3, 0),
    ([1, 1, 1, 1], 2, 3, 1),
    ([2], 3, 1, 2),
  ],
)
def test_local_restarts(base, statuses, restarts, starts, expected):
  body = f'sys.exit({statuses}[call])'
  done = _run(LAUNCH / 'local.sh', '-n', '2', '-r', str(restarts), '--', 'x', BODY=body)
  assert done.returncode == expected
  assert [len(_calls(base, process)) for process in range(2)] == [starts, starts]


def test_local_puts_the_number_before_each_line(base):
  body = "print('out'); print('err', file=sys.stderr); print('no newline', end='')"
  done = _run(LAUNCH / 'local.sh', '-n', '1', '--', 'x', BODY=body)
  assert done.stdout.splitlines() == ['[0] out', '[0] err', '[0] no newline'], done.stderr


# slurm.sbatch

_LOGS_CALL = """#!{python} -S
import json, os, pathlib, sys
log = pathlib.Path(os.environ['OUT'], pathlib.Path(sys.argv[0]).name)
with log.open('a') as file:
  print(json.dumps(sys.argv[1:]), file=file)
log.with_suffix('.env').write_text(json.dumps(dict(os.environ)))
statuses = json.loads(os.environ.get('STATUSES', '[0]'))
calls = len(log.read_text().splitlines())
sys.exit(statuses[calls - 1] if log.name == 'srun' else 0)
"""


def _logged(base: pathlib.Path, name: str) -> list[list[str]]:
  log = base / 'out' / name
  return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@pytest.mark.parametrize(
  ('statuses', 'requeued', 'expected'),
  [
    ([0], False, 0),
    ([2], False, 2),
    ([75], True, 75),
    ([1, 137, 75], True, 75),
    ([1, 137, 134], False, 134),
  ],
)
def test_slurm_tries_crashes_again_and_requeues_what_was_saved(base, statuses, requeued, expected):
  for name in ('srun', 'scontrol'):
    _program(base / 'bin' / name, _LOGS_CALL)
  arguments = ['--config=a.py', '--workdir=two words']
  variables = {'SLURM_JOB_ID': '42', 'SLURM_CPUS_PER_TASK': '8', 'STATUSES': json.dumps(statuses)}
  done = _run('bash', LAUNCH / 'slurm.sbatch', *arguments, **variables)
  assert done.returncode == expected, done.stderr
  program = [os.environ['PYTHON'], '-m', 'senet_jax.main', *arguments]
  step = ['--kill-on-bad-exit=0', '--wait=300', '--label', *program]
  assert _logged(base, 'srun') == [step] * len(statuses)
  environment = json.loads((base / 'out' / 'srun.env').read_text())
  assert _jax_env({'env': environment}) == {'JAX_PLATFORMS': 'cuda'}  # Slurm tells JAX the rest
  assert environment['SRUN_CPUS_PER_TASK'] == '8'  # srun does not take it from sbatch
  assert _logged(base, 'scontrol') == ([['requeue', '42']] if requeued else [])


def test_slurm_asks_for_a_task_per_gpu_and_warns_the_tasks():
  lines = re.findall(r'^#SBATCH --(.+)$', (LAUNCH / 'slurm.sbatch').read_text(), re.MULTILINE)
  options = dict((line + '=').split('=')[:2] for line in lines)
  assert options['ntasks-per-node'] == options['gpus-per-node']
  # `B:` would signal the shell alone, and srun kills its tasks when it is told to end.
  assert options['signal'] == 'TERM@120'
  assert 'requeue' in options and options['open-mode'] == 'append'
  assert not {'gpus-per-task', 'gpu-bind'} & set(options)


def test_slurm_needs_arguments(base):
  done = _run('bash', LAUNCH / 'slurm.sbatch')
  assert done.returncode == 2 and 'arguments of senet_jax.main' in done.stderr


# tpu_vm.sh

# Plays gcloud and a slice of two hosts, which are folders: `ssh` runs the command in each.
_GCLOUD = """#!{python} -S
import json, os, pathlib, shutil, subprocess, sys

out = pathlib.Path(os.environ['OUT'])
with (out / 'gcloud').open('a') as file:
  print(json.dumps(sys.argv[1:]), file=file)
what, verb, name = sys.argv[3:6]
hosts = [out / 'host0', out / 'host1']
states = out / 'states'
if verb == 'describe':
  known = json.loads(states.read_text())
  state = known.pop(0) if len(known) > 1 else known[0]
  states.write_text(json.dumps(known))
  if state is None:
    sys.exit('ERROR: (gcloud.compute.tpus.describe) NOT_FOUND: Resource was not found')
  if state.startswith('ERROR'):
    sys.exit(state)
  print(state)
elif verb == 'scp':
  for host in hosts:
    host.mkdir(exist_ok=True)
    shutil.copy(name, host)
elif verb == 'ssh':
  [command] = [a.removeprefix('--command=') for a in sys.argv if a.startswith('--command=')]
  run = [
    subprocess.Popen(['bash', '-c', command], cwd=host, env=dict(os.environ, HOME=str(host)))
    for host in hosts
  ]
  statuses = [process.wait() for process in run]
  sys.exit(next((status for status in statuses if status), 0))
"""
# Plays uv: its virtual environment has the program that plays Python.
_UV = """#!/bin/bash
echo "$PWD $*" >> "$OUT/uv"
while [ -n "$UV_WAITS" ] && [ ! -e "$OUT/go" ]; do sleep 0.02; done
[ "$1" != venv ] || {{ mkdir -p .venv/bin && cp "$PYTHON" .venv/bin/python; }}
"""
_COMMON = ['--zone=z1', '--quiet']
_SSH = [
  *('compute', 'tpus', 'tpu-vm', 'ssh', 'se50', '--worker=all'),
  *('--ssh-flag=-oServerAliveInterval=30', '--ssh-flag=-oConnectTimeout=30'),
]
_DESCRIBE = ['compute', 'tpus', 'tpu-vm', 'describe', 'se50', '--format=value(state)', *_COMMON]
_CREATE = [
  *('compute', 'tpus', 'tpu-vm', 'create', 'se50', '--accelerator-type=v5litepod-16'),
  *('--version=v2-alpha-tpuv5-lite', '--spot', *_COMMON),
]
_DELETE = ['compute', 'tpus', 'tpu-vm', 'delete', 'se50', *_COMMON]
_COPY = ['compute', 'tpus', 'tpu-vm', 'scp', 'CODE', 'se50:', '--worker=all', *_COMMON]
_INSTALL = [
  *_SSH,
  '--command=mkdir -p senet_jax && cd senet_jax && '
  '{ [ ! -e launch ] || bash launch/tpu_host.sh stop; } && '
  'rm -rf senet_jax && tar -xzf ../senet_jax.tgz && bash launch/tpu_host.sh install',
  *_COMMON,
]
_MAIN = [
  *_SSH,
  '--command=bash senet_jax/launch/tpu_host.sh run ID --config=a.py --workdir=two\\ words',
  *_COMMON,
]
_ONCE = [_COPY, _INSTALL, _MAIN]
_TPU_OPTIONS = ['--name=se50', '--zone=z1', '--type=v5litepod-16', '--spot', '--poll=0']
_TPU_ARGUMENTS = ['--', '--config=a.py', '--workdir=two words']


def _normal(call: list[str]) -> list[str]:
  """Without what differs from run to run: the temporary folder and the time."""
  call = [re.sub(r'^.*/senet_jax\.tgz$', 'CODE', part) for part in call]
  return [re.sub(r'(tpu_host\.sh run) \d+-\d+ ', r'\1 ID ', part) for part in call]


def _gcloud_calls(base: pathlib.Path) -> list[list[str]]:
  return [_normal(call) for call in _logged(base, 'gcloud')]


@pytest.fixture
def cloud(base):
  """`base` with a cloud; call it with the states that the slice will be in, None for no slice."""
  _program(base / 'bin' / 'gcloud', _GCLOUD.replace('{', '{{').replace('}', '}}').replace(
    '{{python}}', '{python}'
  ))  # fmt: skip
  _program(base / 'bin' / 'uv', _UV)

  def play(*states):
    (base / 'out' / 'states').write_text(json.dumps(states))
    return base

  return play


def _tpu_vm(*arguments, body='', options=_TPU_OPTIONS) -> subprocess.CompletedProcess:
  return _run(LAUNCH / 'tpu_vm.sh', *options, *arguments, BODY=body)


def test_tpu_makes_the_slice_installs_and_runs(cloud):
  base = cloud(None, 'CREATING', 'READY')
  done = _tpu_vm(*_TPU_ARGUMENTS, body="print('a line of the log')")
  assert done.returncode == 0, done.stderr
  assert _gcloud_calls(base) == [_DESCRIBE, _CREATE, _DESCRIBE, _DESCRIBE, *_ONCE]
  # Both hosts have the code, installed it, ran it, and their logs came back.
  assert done.stdout.splitlines() == ['a line of the log'] * 2
  assert 'slice se50 is still there; --delete' in done.stderr
  home = base / 'out' / 'host1' / 'senet_jax'
  assert (home / 'senet_jax' / 'main.py').read_bytes() == (ROOT / 'senet_jax/main.py').read_bytes()
  for call in _calls(base):
    assert call['argv'] == ['-m', 'senet_jax.main', '--config=a.py', '--workdir=two words']
    assert _jax_env(call) == {'JAX_PLATFORMS': 'tpu,cpu'}  # the slice tells JAX the rest
  assert sorted((base / 'out' / 'uv').read_text().splitlines()) == sorted(
    f'{base}/out/{host}/senet_jax {command}'
    for host in ('host0', 'host1')
    for command in (
      'venv --quiet --python 3.12 .venv',
      'pip install --quiet -c constraints.txt -e .[tensorflow,tpu]',
    )
  )


@pytest.mark.parametrize('queued', [[], ['--queued', '--delete', '--project=p']])
def test_tpu_dry_run_prints_what_a_run_does(cloud, queued):
  base = cloud(None, None, 'READY') if queued else cloud(None, 'READY')
  dry = _tpu_vm(*queued, '--dry_run', *_TPU_ARGUMENTS)
  assert dry.returncode == 0 and not _gcloud_calls(base), dry.stderr
  assert _tpu_vm(*queued, *_TPU_ARGUMENTS).returncode == 0
  printed = [shlex.split(line) for line in dry.stdout.splitlines()]
  assert {program for program, *_ in printed} == {'gcloud'}
  # A real run looks once more, whether the slice that it made is ready.
  ran = _gcloud_calls(base)
  looks = [call for call in ran if 'describe' in call]
  ran.remove(looks[0])
  assert [_normal(call) for _, *call in printed if 'describe' not in call] == [
    call for call in ran if 'describe' not in call
  ]
  assert [call for _, *call in printed if 'describe' in call] == looks[: 2 if queued else 1]


def test_tpu_mounts_a_bucket_before_it_runs(cloud):
  base = cloud('READY')
  for name in ('fusermount', 'gcsfuse', 'sudo'):
    _program(base / 'bin' / name, f'#!/bin/bash\necho "{name} $*" >> commands\n')
  assert _tpu_vm("--bucket=it's mine", *_TPU_ARGUMENTS).returncode == 0
  install = next(call for call in _gcloud_calls(base) if 'tpu_host.sh install' in call[-3])[-3]
  assert install == _INSTALL[-3] + " && bash launch/tpu_host.sh mount it\\'s\\ mine"
  user = subprocess.run(['id', '-un'], capture_output=True, text=True).stdout.strip()
  for host in ('host0', 'host1'):
    home = base / 'out' / host / 'senet_jax'
    assert (home / 'commands').read_text().splitlines() == [
      'fusermount -uz /bucket',
      f'sudo install -d -o {user} /bucket',
      "gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 it's mine /bucket",
    ]


def test_tpu_installs_what_mounts_a_bucket(base):
  _program(base / 'bin' / 'curl', '#!/bin/sh\necho key\n')
  _program(base / 'bin' / 'lsb_release', '#!/bin/sh\necho jammy\n')
  gcsfuse = base / 'bin' / 'gcsfuse'
  sudo = f"""#!/bin/bash
echo "$*" >> "$OUT/sudo"
[ "$1" != tee ] || cat >> "$OUT/tee"
[ "$2" != install ] || {{ printf '#!/bin/sh\\necho mounted' > {gcsfuse}; chmod +x {gcsfuse}; }}
"""
  (base / 'bin' / 'sudo').write_text(sudo)
  (base / 'bin' / 'sudo').chmod(0o755)
  done = _run('bash', LAUNCH / 'tpu_host.sh', 'mount', 'b')
  assert (done.returncode, done.stdout) == (0, 'mounted\n'), done.stderr
  key, source = (base / 'out' / 'tee').read_text().splitlines()
  path = '/usr/share/keyrings/cloud.google.asc'
  assert key == 'key'
  assert (
    source == f'deb [signed-by={path}] https://packages.cloud.google.com/apt gcsfuse-jammy main'
  )
  commands = (base / 'out' / 'sudo').read_text().splitlines()
  assert [command.split()[:2] for command in commands] == [
    *(['tee', path], ['tee', '/etc/apt/sources.list.d/gcsfuse.list']),
    *(['apt-get', 'update'], ['apt-get', 'install'], ['install', '-d']),
  ]


def test_tpu_runs_nothing_without_its_bucket(cloud):
  base = cloud('READY')
  for name in ('fusermount', 'sudo'):
    _program(base / 'bin' / name, '#!/bin/sh\n')
  _program(base / 'bin' / 'gcsfuse', '#!/bin/sh\nexit 1\n')
  assert _tpu_vm('--retries=0', '--bucket=b', *_TPU_ARGUMENTS).returncode == 1
  assert not _calls(base)


def test_tpu_queued_resources(cloud):
  base = cloud(None, None, None, 'WAITING_FOR_RESOURCES', None, 'SUSPENDED', None, None, 'READY')
  done = _tpu_vm('--queued', '--project=p', '--delete', *_TPU_ARGUMENTS)
  assert done.returncode == 0, done.stderr
  common = [*_COMMON, '--project=p']
  queue = ['compute', 'tpus', 'queued-resources']
  looks = [
    [*_DESCRIBE[:-2], *common],
    [*queue, 'describe', 'se50', '--format=value(state.state)', *common],
  ]
  create = [
    *(*queue, 'create', 'se50', '--node-id=se50', '--accelerator-type=v5litepod-16'),
    *('--runtime-version=v2-alpha-tpuv5-lite', '--spot', *common),
  ]
  delete = [*queue, 'delete', 'se50', '--force', *common]
  once = [[*call[:-2], *common] for call in _ONCE]
  assert _gcloud_calls(base) == [
    *(*looks, create, *looks, *looks, delete, *looks, create),
    *(looks[0], *once, delete),
  ]


def test_tpu_resumes_after_preemption(cloud):
  base = cloud('READY', 'PREEMPTED', 'PREEMPTED', None, 'READY')
  # Crashes as a run does whose slice goes away; --retries=0, since that does not count.
  body = 'sys.exit(0 if "second" in os.listdir() else (open("second", "w").close(), 134)[1])'
  done = _tpu_vm('--retries=0', *_TPU_ARGUMENTS, body=body)
  assert done.returncode == 0, done.stderr
  assert _gcloud_calls(base) == [
    *(_DESCRIBE, *_ONCE),
    *(_DESCRIBE, _DESCRIBE, _DELETE, _DESCRIBE, _CREATE, _DESCRIBE, *_ONCE),
  ]


@pytest.mark.parametrize(
  ('statuses', 'retries', 'expected'),
  [([75, 75, 0], 0, 0), ([1, 1], 1, 1), ([2], 3, 2)],
)
def test_tpu_runs_again_what_may_succeed(cloud, statuses, retries, expected):
  base = cloud('READY')
  body = f"""
count = pathlib.Path('count')
calls = int(count.read_text()) if count.exists() else 0
count.write_text(str(calls + 1))
sys.exit({statuses}[calls])
"""
  done = _tpu_vm(f'--retries={retries}', *_TPU_ARGUMENTS, body=body)
  assert done.returncode == expected, done.stderr
  runs = [call for call in _gcloud_calls(base) if call == _MAIN]
  assert len(runs) == len(statuses)


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_tpu_stops_once_it_has_saved(cloud, background, sent):
  base = cloud('READY')
  body = _SAVES.replace('out /', "pathlib.Path('run') /")
  launcher = background(LAUNCH / 'tpu_vm.sh', *_TPU_OPTIONS, *_TPU_ARGUMENTS, BODY=body)
  until(lambda: len(list((base / 'out').glob('host*/senet_jax/run/ready*'))) == 2)
  os.killpg(launcher.pid, sent)
  out, _ = launcher.communicate(timeout=60)
  assert launcher.returncode == 75
  assert out.splitlines() == ['saved'] * 2
  stop = [*_SSH, '--command=bash senet_jax/launch/tpu_host.sh stop', *_COMMON]
  assert _gcloud_calls(base) == [_DESCRIBE, *_ONCE, stop]


def test_tpu_stopped_while_it_installs_runs_nothing(cloud, background):
  base = cloud('READY')
  launcher = background(LAUNCH / 'tpu_vm.sh', *_TPU_OPTIONS, *_TPU_ARGUMENTS, UV_WAITS='1')
  until((base / 'out' / 'uv').exists)
  launcher.send_signal(signal.SIGINT)
  (base / 'out' / 'go').touch()
  assert launcher.wait(60) == 1
  assert _gcloud_calls(base) == [_DESCRIBE, _COPY, _INSTALL]


def test_tpu_delete_alone(cloud):
  base = cloud('READY')
  assert _tpu_vm('--delete').returncode == 0
  assert _gcloud_calls(base) == [_DELETE]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (['--name=a', '--', 'x'], '--name and --zone'),
    (['--name=a', '--zone=z'], 'after --, or --delete'),
    (['--name=a', '--zone=z', '--nmae=b', '--', 'x'], 'no option --nmae=b'),
    (['--name=a', '--zone=z', '--retries=x', '--', 'x'], 'take whole numbers'),
    (['--name=a', '--zone=z', '--', 'x'], 'there is no slice a in z; give --type'),
  ],
)
def test_tpu_explains_wrong_options(cloud, options, message):
  base = cloud(None)
  done = _tpu_vm(options=options)
  assert done.returncode == 2 and message in done.stderr
  assert not [call for call in _gcloud_calls(base) if 'create' in call]


def test_tpu_does_not_take_an_error_for_a_missing_slice(cloud):
  base = cloud('ERROR: PERMISSION_DENIED: no')
  done = _tpu_vm('--retries=1', *_TPU_ARGUMENTS)
  assert done.returncode == 1 and 'PERMISSION_DENIED' in done.stderr
  assert _gcloud_calls(base) == [_DESCRIBE, _DESCRIBE]


def test_tpu_run_outlives_its_connection(base, background):
  home = base / 'senet_jax'
  (home / 'launch').mkdir(parents=True)
  shutil.copy(LAUNCH / 'tpu_host.sh', home / 'launch')
  _program(home / '.venv' / 'bin' / 'python', _PYTHON)
  body = """
print('begins', flush=True)
while not (out / 'go').exists(): time.sleep(0.01)
print('ends', flush=True)
sys.exit(7)
"""
  command = ['bash', home / 'launch' / 'tpu_host.sh', 'run', '1-1', 'x']
  first = background(*command, BODY=body)
  assert first.stdout.readline() == 'begins\n'
  first.kill()
  (base / 'out' / 'go').touch()
  again = _run(*command)
  assert (again.returncode, again.stdout) == (7, 'begins\nends\n')
  assert len(_calls(base)) == 1


# Kubernetes


def _jobset(name: str) -> tuple[dict, dict, dict]:
  """The JobSet of a file, the Job in it, and the pod's container."""
  spec = yaml.safe_load((LAUNCH / name).read_text())
  [hosts] = spec['spec']['replicatedJobs']
  job = hosts['template']['spec']
  [container] = job['template']['spec']['containers']
  return spec, job, container


@pytest.mark.parametrize(
  ('name', 'platforms'), [('gke_jobset.yaml', 'tpu,cpu'), ('gke_jobset_gpu.yaml', 'cuda')]
)
def test_jobset_pods_know_their_place(name, platforms):
  jobset, job, container = _jobset(name)
  hosts = job['completions']
  assert job['parallelism'] == hosts and job['completionMode'] == 'Indexed'
  assert jobset['spec']['coordinator'] == {'replicatedJob': 'hosts', 'jobIndex': 0, 'podIndex': 0}
  # What the controllers write into the pod with index 1.
  metadata = {
    "metadata.annotations['jobset.sigs.k8s.io/coordinator']": 'se50-hosts-0-0.se50',
    "metadata.annotations['batch.kubernetes.io/job-completion-index']": '1',
  }
  environment = {}
  for variable in container['env']:
    if 'valueFrom' in variable:
      value = metadata[variable['valueFrom']['fieldRef']['fieldPath']]
    else:  # Kubernetes puts in what stands above
      value = re.sub(r'\$\((\w+)\)', lambda match: environment[match[1]], variable['value'])
    environment[variable['name']] = value
  del environment['COORDINATOR']
  assert environment == {
    'JAX_COORDINATOR_ADDRESS': 'se50-hosts-0-0.se50:8476',
    'JAX_NUM_PROCESSES': str(hosts),
    'JAX_PROCESS_ID': '1',
    'JAX_PLATFORMS': platforms,
  }
  assert {'containerPort': 8476} in container['ports']


@pytest.mark.parametrize('name', JOBSETS)
def test_jobset_reads_and_writes_in_the_bucket(name):
  _, job, container = _jobset(name)
  pod = job['template']
  assert pod['metadata']['annotations'] == {'gke-gcsfuse/volumes': 'true'}
  [volume] = [volume for volume in pod['spec']['volumes'] if volume['name'] == 'bucket']
  assert volume['csi']['driver'] == 'gcsfuse.csi.storage.gke.io'
  places = {mount['name']: mount['mountPath'] for mount in container['volumeMounts']}
  assert set(places) == {volume['name'] for volume in pod['spec']['volumes']}
  for flag in ('--workdir=', '--config.data.dir='):
    [path] = [a.removeprefix(flag) for a in container['args'] if a.startswith(flag)]
    assert path.startswith(places['bucket'] + '/')
  # Files in the bucket belong to the user that the container runs as: without more, to root.
  [user] = re.findall(r'--uid (\d+)', (LAUNCH / 'Dockerfile').read_text())
  if container.get('securityContext') != {'runAsUser': 0}:
    options = volume['csi']['volumeAttributes']['mountOptions'].split(',')
    assert {f'uid={user}', f'gid={user}'} <= set(options)


def test_jobset_takes_the_whole_slice():
  _, job, container = _jobset('gke_jobset.yaml')
  x, y = job['template']['spec']['nodeSelector']['cloud.google.com/gke-tpu-topology'].split('x')
  assert job['completions'] * container['resources']['limits']['google.com/tpu'] == int(x) * int(y)


def _outcome(jobset: dict, job: dict, container: str, status: int, disrupted: bool) -> str:
  """What JobSet does when a pod ends so: the rules of Job and JobSet, as their documents say."""
  if status == 0:
    return 'done'
  assert job['backoffLimit'] == 0 and job['template']['spec']['restartPolicy'] == 'Never'
  reason, message = 'BackoffLimitExceeded', 'Job has reached the specified backoff limit'
  for index, rule in enumerate(job['podFailurePolicy']['rules']):
    if 'onExitCodes' in rule:
      codes = rule['onExitCodes']
      assert codes['operator'] == 'In' and codes['containerName'] == container
      matches = status in codes['values']
      what = f'Container {container} for pod default/p failed with exit code {status}'
    else:
      matches = disrupted and rule['onPodConditions'] == [
        {'type': 'DisruptionTarget', 'status': 'True'}
      ]
      what = 'Pod default/p has condition DisruptionTarget'
    if matches:
      assert rule['action'] == 'FailJob'
      reason, message = 'PodFailurePolicy', f'{what} matching FailJob rule at index {index}'
      break
  for rule in jobset['spec']['failurePolicy']['rules']:
    patterns = rule.get('onJobFailureMessagePatterns', [''])
    if reason in rule['onJobFailureReasons'] and any(re.search(p, message) for p in patterns):
      return rule['action']
  return 'RestartJobSet'


@pytest.mark.parametrize('name', JOBSETS)
@pytest.mark.parametrize(
  ('status', 'disrupted', 'expected'),
  [
    (0, False, 'done'),
    (2, False, 'FailJobSet'),
    (75, False, 'RestartJobSetAndIgnoreMaxRestarts'),
    (75, True, 'RestartJobSetAndIgnoreMaxRestarts'),
    (137, True, 'RestartJobSetAndIgnoreMaxRestarts'),
    (137, False, 'RestartJobSet'),
    (1, False, 'RestartJobSet'),
  ],
)
def test_jobset_acts_on_the_exit_status(name, status, disrupted, expected):
  jobset, job, container = _jobset(name)
  assert _outcome(jobset, job, container['name'], status, disrupted) == expected
  policy = jobset['spec']['failurePolicy']
  assert policy['maxRestarts'] > 0 and policy['restartStrategy'] == 'BlockingRecreate'


@pytest.mark.parametrize('name', JOBSETS)
def test_jobset_arguments_are_those_of_main(name, monkeypatch):
  monkeypatch.chdir(ROOT)
  _, _, container = _jobset(name)
  assert flags.parse(container['args']).hosts_timeout == 3600


# SkyPilot


@pytest.mark.parametrize(
  ('statuses', 'expected'), [([0], 0), ([1, 75], 75), ([2], 2), ([1] * 3, 1)]
)
def test_skypilot_runs_a_process_a_node(base, statuses, expected):
  task = yaml.safe_load((LAUNCH / 'skypilot.yaml').read_text())
  _program(base / '.venv' / 'bin' / 'python', _PYTHON)
  variables = {
    **{k: v or '' for k, v in task['envs'].items()},
    'WORKDIR': '/bucket/two words',
    'ARGS': '--config.seed=1 --config.steps=2',
    'SKYPILOT_NODE_IPS': '10.0.0.7\n10.0.0.8\n10.0.0.9',
    'SKYPILOT_NODE_RANK': '1',
    'BODY': f'sys.exit({statuses}[call])',
  }
  done = _run('bash', '-c', f'cd {shlex.quote(str(base))}\n{task["run"]}', **variables)
  assert done.returncode == expected, done.stderr
  calls = _calls(base, process=1)
  assert len(calls) == len(statuses)
  for call in calls:
    assert call['argv'] == [
      *('-m', 'senet_jax.main', f'--config={task["envs"]["CONFIG"]}'),
      *('--workdir=/bucket/two words', '--config.seed=1', '--config.steps=2'),
    ]
    assert _jax_env(call) == {
      'JAX_COORDINATOR_ADDRESS': '10.0.0.7:8476',
      'JAX_NUM_PROCESSES': '3',
      'JAX_PROCESS_ID': '1',
      'JAX_PLATFORMS': 'cuda',
    }


# All of them


def test_no_launcher_names_a_path_that_main_refuses():
  for path in LAUNCH.iterdir():
    assert not re.search(r'(dir|WORKDIR)=\w+://', path.read_text()), path.name


def test_dockerfile_takes_what_is_there():
  lines = (LAUNCH / 'Dockerfile').read_text().replace('\\\n', ' ').splitlines()
  instructions = [line.split(maxsplit=1) for line in lines if line and line[0] not in '# ']
  copied = [source for verb, rest in instructions if verb == 'COPY' for source in rest.split()[:-1]]
  ignore = (LAUNCH / 'Dockerfile.dockerignore').read_text().splitlines()
  assert ignore[0] == '*'
  assert sorted(f'!{source}' for source in copied) == sorted(
    line for line in ignore if line[0] == '!'
  )
  assert all((ROOT / source).exists() for source in copied)
  assert ['ENTRYPOINT', '["python", "-m", "senet_jax.main"]'] in instructions
  assert ['USER', 'senet'] in instructions
  setup = configparser.ConfigParser()
  setup.read(ROOT / 'setup.cfg')
  assert {'cuda', 'tpu'} <= set(setup['options.extras_require'])


@pytest.mark.parametrize('script', [*SCRIPTS, 'setup', 'run'])
def test_scripts_are_clean(script, tmp_path):
  path = LAUNCH / script
  if script not in SCRIPTS:
    path = tmp_path / script
    path.write_text(yaml.safe_load((LAUNCH / 'skypilot.yaml').read_text())[script])
  done = _run('bash', '-n', path)
  assert done.returncode == 0, done.stderr
  if not shutil.which('shellcheck'):
    pytest.skip('shellcheck is not installed')
  # SC2086: $ARGS is split on purpose. SC2155: the status of `head` does not matter.
  done = _run('shellcheck', '--shell=bash', '--exclude=SC2086,SC2155', path)
  assert done.returncode == 0, done.stdout


def test_each_launcher_says_what_it_does_and_what_may_fail():
  readme = (LAUNCH / 'README.md').read_text()
  helpers = {'README.md', 'tpu_host.sh', 'Dockerfile.dockerignore'}
  for path in LAUNCH.iterdir():
    if path.name not in helpers:
      assert f'({path.name})' in readme
      assert 'ommon failures:\n' in path.read_text(), path.name
