"""The processes of a run: how many there are, whether they agree, and that they end together.

JAX's distributed runtime does the work: it connects them, finds out about Slurm, Open MPI and TPU
slices, brings word of a preemption from one to all, and ends those that are left when one is gone.
"""

import contextlib
import glob
import importlib.util
import json
import os
import platform
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils

from senet_jax.errors import USER_ERROR, UserError
from senet_jax.runtime import coordination, last_words
from senet_jax.runtime.devices import per_device
from senet_jax.runtime.signals import StopSignals

# Without a word for so long, a process is taken for dead, and the others are ended.
_HEARTBEAT_S = 30
# Between two looks for the failure of another process.
_LOOK_S = 1
_MOST_S = 3600
_FAILED = 'senet_jax/failed'
# What collectives say when the other end is gone.
_COLLECTIVE = re.compile('[Gg]loo|NCCL')
_LOST = re.compile('onnection (reset|closed|refused)|UNAVAILABLE|ABORTED')
_VARIABLES = {
  'coordinator': 'JAX_COORDINATOR_ADDRESS',
  'num_processes': 'JAX_NUM_PROCESSES',
  'process_id': 'JAX_PROCESS_ID',
}


def connect(
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  timeout: int = 300,
) -> None:
  """Connects this process with the others of its run; before JAX computes anything.

  What is None comes from the environment: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
  JAX_PROCESS_ID. With none of them, from `srun` of Slurm, `mpirun` of Open MPI, or the TPU slice
  that this host is a part of; without any, the process stays alone and opens no port.

  Args:
    coordinator: `host:port` of process 0, as the others reach it.
    num_processes: how many there are.
    process_id: the number of this one.
    timeout: seconds to wait for the others.

  Raises:
    UserError: what is given does not fit together, or the coordinator cannot be reached.
  """
  given: dict[str, Any] = {
    'coordinator': coordinator,
    'num_processes': num_processes,
    'process_id': process_id,
  }
  for name, variable in _VARIABLES.items():
    if given[name] is None:
      given[name] = os.environ.get(variable)
  if any(value is not None for value in given.values()):
    given = _checked(given)
    if given['num_processes'] == 1:
      return
    if given['process_id']:
      _wait_for(given['coordinator'], timeout)
    where = f'process {given["process_id"]} of {given["num_processes"]} at {given["coordinator"]}'
  elif _part_of_a_job():
    given, where = dict.fromkeys(given), 'the processes that the cluster tells of'
  else:
    return
  number = given['process_id']
  last_words.listen(f'a process on {platform.node()}' if number is None else _who(number))
  # The runtime would end the process with a stack trace.
  patience = threading.Timer(timeout, _give_up, [timeout, where])
  patience.daemon = True
  patience.start()
  try:
    jax.distributed.initialize(
      given['coordinator'],
      given['num_processes'],
      given['process_id'],
      initialization_timeout=timeout + 60,
      heartbeat_timeout_seconds=_HEARTBEAT_S,
      # What is given is not to be mixed with what a cluster around us says.
      cluster_detection_method='deactivate' if given['coordinator'] else None,
    )
  except (RuntimeError, ValueError) as error:
    raise UserError(f'cannot connect {where}: {str(error).splitlines()[0]}') from error
  finally:
    patience.cancel()
  coordination.check()


def _checked(given: dict[str, Any]) -> dict[str, Any]:
  missing = [name for name, value in given.items() if value is None]
  if missing:
    ways = ', '.join(f'--{name} (or {_VARIABLES[name]})' for name in missing)
    raise UserError(f'several processes need --coordinator, --num_processes and --process_id; '
                    f'not given: {ways}.')  # fmt: skip
  try:
    count, number = int(given['num_processes']), int(given['process_id'])
  except ValueError as error:
    raise UserError(f'--num_processes and --process_id must be numbers: {error}.') from error
  if not 0 <= number < count:
    raise UserError(
      f'--process_id={number} must be from 0 to {count - 1}, as --num_processes={count}.'
    )
  host, _, port = given['coordinator'].rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise UserError(
      f'--coordinator={given["coordinator"]!r} must be HOST:PORT of process 0, such as '
      '10.0.0.1:1234.'
    )
  return {'coordinator': given['coordinator'], 'num_processes': count, 'process_id': number}


def _wait_for(coordinator: str, timeout: int) -> None:
  """Waits until the coordinator answers: JAX itself would end the process when it does not."""
  host, _, port = coordinator.rpartition(':')
  deadline = time.monotonic() + timeout
  while True:
    try:
      socket.create_connection((host.strip('[]'), int(port)), timeout=5).close()
      return
    except OSError as error:
      if time.monotonic() > deadline:
        raise UserError(
          f'the coordinator {coordinator} did not answer within {timeout} s ({error}); check that '
          'process 0 runs there and that the port is open, or raise --hosts_timeout.'
        ) from error
    time.sleep(min(1, timeout / 10))


def _give_up(timeout: int, where: str) -> None:
  _end(
    f'not all processes came together within {timeout} s ({where}); start each of them, with the '
    'same --coordinator and --num_processes, or raise --hosts_timeout.',
    USER_ERROR,
  )


def _part_of_a_job() -> bool:
  """Returns whether JAX can find out by itself who the other processes are."""
  env = os.environ
  if int(env.get('SLURM_STEP_NUM_TASKS', 1)) > 1 or int(env.get('OMPI_COMM_WORLD_SIZE', 1)) > 1:
    return True
  chips = glob.glob('/dev/accel*') or glob.glob('/dev/vfio/[0-9]*')
  return bool(chips) and importlib.util.find_spec('libtpu') is not None


def is_first() -> bool:
  """Returns whether this process is the one that writes what is written once."""
  return coordination.process_id() == 0


def describe_process(batch_size: int) -> str:
  """Returns the line that each process begins with."""
  hosts, here, count = jax.process_count(), jax.local_device_count(), jax.device_count()
  return (
    f'process {coordination.process_id()} of {hosts} on {platform.node()}: {here} of {count} '
    f'devices ({jax.devices()[0].device_kind}), batch {batch_size} = {hosts} x '
    f'{batch_size // hosts} a host = {count} x {per_device(batch_size, count)} a device; '
    f'jax {jax.__version__}'
  )


def barrier(name: str) -> None:
  """Waits until all processes are here; each `name` serves once."""
  if coordination.connected():
    coordination.wait_at_barrier(f'senet_jax/{name}', _MOST_S)


def agree(name: str, facts: dict[str, Any]) -> None:
  """Checks that all processes know the same as process 0, and waits until all have.

  Args:
    name: of this check; each serves once.
    facts: what must be equal, by what it is called; as JSON has it.

  Raises:
    UserError: something differs here from process 0; the message names it.
  """
  if not coordination.connected():
    return
  key, mine = f'senet_jax/agree/{name}', json.loads(json.dumps(facts))
  if is_first():
    coordination.set_value(key, json.dumps(mine))
  theirs = json.loads(coordination.wait_for_value(key, _MOST_S))
  differing = [
    f'{fact} is {mine.get(fact)!r} here and {theirs.get(fact)!r} there'
    for fact in {**theirs, **mine}
    if mine.get(fact) != theirs.get(fact)
  ]
  if differing:
    raise UserError(
      f'not started like process 0: {"; ".join(differing)}. Give all processes the same code, '
      'data and flags.'
    )
  barrier(f'agreed/{name}')


def gather(name: str, value: Any) -> list[Any]:
  """Returns what each process gives, in the order of their numbers; waits until all have given it.

  Args:
    name: of this exchange; each serves once.
    value: of this process, as JSON has it.
  """
  if not coordination.connected():
    return [value]
  directory = f'senet_jax/gather/{name}'
  coordination.set_value(f'{directory}/{coordination.process_id():06}', json.dumps(value))
  barrier(f'gathered/{name}')
  return [json.loads(text) for text in coordination.values_under(directory)]


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Lets an error of one process within the block end the others, too, with its message.

  They are not in a state to end by themselves: they wait for the one that is gone, in a collective
  that nothing interrupts.
  """
  if not coordination.connected():
    yield
    return
  who = _who()
  threading.Thread(target=_watch, daemon=True).start()
  try:
    agree('start', {'--num_processes': coordination.process_count()})
    yield
  except BaseException as error:
    what, status = str(error) or type(error).__name__, 1
    if isinstance(error, UserError):
      status = USER_ERROR
    elif lost_another(error):
      what = f'lost another process ({what}); start all again, and the run goes on where it saved.'
    else:
      traceback.print_exc()
    failure = {'who': who, 'what': what, 'status': status}
    with contextlib.suppress(RuntimeError):  # it is not the first
      coordination.set_value(_FAILED, json.dumps(failure))
      time.sleep(3 * _LOOK_S)  # so that the others see it
    # A clean exit would wait for the others.
    _end(f'{who}: {what}', status)
  barrier('end')


def lost_another(error: BaseException) -> bool:
  """Returns whether an error says that another process is gone."""
  what = str(error)
  return bool(
    _COLLECTIVE.search(what)  # of an error of any kind, by where it came up
    or (isinstance(error, jax.errors.JaxRuntimeError) and _LOST.search(what))
  )


def _who(number: int | None = None) -> str:
  number = coordination.process_id() if number is None else number
  return f'process {number} on {platform.node()}'


def _watch() -> None:
  """Ends this process when another one has failed."""
  while True:
    time.sleep(_LOOK_S)
    found = coordination.try_value(_FAILED)
    if found is None:
      continue
    failure = json.loads(found)
    if failure['who'] != _who():
      if is_first():  # whose end would end the others before they know why
        time.sleep(5 * _LOOK_S)
      _end(f'{failure["who"]} failed: {failure["what"]}', failure['status'])


def _end(message: str, status: int) -> None:
  print('senet_jax:', ' '.join(message.split()), file=sys.stderr, flush=True)
  sys.stdout.flush()
  os._exit(status)


class Preemption(StopSignals):
  """A context manager that knows whether SIGTERM or Ctrl-C has asked the run to save and stop.

  With several processes the signal may come to any of them; all stop at the same question.
  """

  def __init__(self):
    """Takes no signal yet."""
    self._connected = coordination.connected()
    self._questions, self._agreed = 0, False
    if self._connected:  # JAX's runtime takes SIGTERM, and brings word of it to all
      super().__init__((signal.SIGINT,), lambda: os.kill(os.getpid(), signal.SIGTERM))
    else:
      super().__init__()

  def asked(self) -> bool:
    """Returns whether to stop now; all processes of a run ask at the same points of it."""
    if self._connected and not self._agreed:
      self._questions += 1
      self._agreed = multihost_utils.reached_preemption_sync_point(self._questions)
    return self.noticed

  @property
  def noticed(self) -> bool:
    """Returns whether to save and stop; of several processes, whether `asked` has said yes."""
    return self._agreed if self._connected else super().noticed
