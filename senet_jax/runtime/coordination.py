"""Lets the processes of a run talk to each other: a key-value store, and barriers.

Both belong to JAX's distributed runtime, which gives them no public name. This is the only module
that reaches into `jax._src`, and only once processes are connected: one that is alone works with
any version of JAX.
"""

from typing import Any

import jax

from senet_jax.errors import UserError

# Versions of JAX that have what is used here.
SEEN_WITH = ('0.10.2', '0.11.2', '0.12.0.1')

_FIELDS = ('process_id', 'num_processes', 'client')
_METHODS = (
  'key_value_set',
  'key_value_try_get',
  'key_value_dir_get',
  'blocking_key_value_get',
  'wait_at_barrier',
)


def connected() -> bool:
  """Returns whether this process is connected with others."""
  return jax.distributed.is_initialized()


def check() -> None:
  """Checks that JAX still has what is used here, if this process is connected.

  Raises:
    UserError: the installed version has it elsewhere or no more.
  """
  if not connected():
    return
  try:
    values = [getattr(_state(), name) for name in _FIELDS]
    for name in _METHODS:
      getattr(values[-1], name)
  except (ImportError, AttributeError) as error:
    raise UserError(
      f'jax {jax.__version__} does not have what several processes need to work together '
      f'({error}); install one that does, such as jax=={SEEN_WITH[-1]}.'
    ) from error


def process_id() -> int:
  """Returns the number of this process among those that are connected; 0 if it is alone."""
  return _state().process_id if connected() else 0


def process_count() -> int:
  """Returns how many processes are connected; 1 if this one is alone."""
  return _state().num_processes if connected() else 1


def set_value(key: str, value: str) -> None:
  """Stores the value of a key.

  Raises:
    RuntimeError: the key has one, or the coordinator does not answer.
  """
  _state().client.key_value_set(key, value)


def wait_for_value(key: str, timeout: int) -> str:
  """Returns the value of a key as soon as it has one.

  Args:
    key: what another process sets.
    timeout: seconds to wait.

  Raises:
    RuntimeError: it has none after that time, or the coordinator does not answer.
  """
  return _state().client.blocking_key_value_get(key, timeout * 1000)


def try_value(key: str) -> str | None:
  """Returns the value of a key, None if it has none or no coordinator answers."""
  client = _state().client  # None once the runtime is shut down
  try:
    return client.key_value_try_get(key) if client else None
  except RuntimeError:
    return None


def values_under(directory: str) -> list[str]:
  """Returns the values of all keys that begin with `directory` and a slash, sorted by key."""
  return [value for _, value in sorted(_state().client.key_value_dir_get(f'{directory}/'))]


def wait_at_barrier(name: str, timeout: int) -> None:
  """Waits until all processes are here.

  Args:
    name: of the barrier, which serves once.
    timeout: seconds to wait.

  Raises:
    RuntimeError: some are missing after that time, or the coordinator does not answer.
  """
  _state().client.wait_at_barrier(name, timeout * 1000)


def _state() -> Any:
  from jax._src import distributed

  return distributed.global_state
