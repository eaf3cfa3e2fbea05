"""Evidence that a checkpoint is damaged; what else goes wrong while one is read is no damage."""

import errno
import itertools
import json
import math
import os
import re
import zlib
from typing import Any

import orbax.checkpoint as ocp

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.storage import buckets
from senet_jax.storage.buckets import Path
from senet_jax.workdir.objective import Objective
from senet_jax.workdir.run_progress import RunProgress

HOST_FILE = 'metadata'
_DIRECTORY = 'damaged'
# Numbers what the processes tell each other; each name serves once.
_EXCHANGES = itertools.count()
_SEAL, _ORBAX, _METRICS = 'host_checksum', 'orbax', 'metrics'
# What the system says where there is something else than a file.
_NO_FILE = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
# How TensorStore begins: with a status, which it leaves out for an invalid argument.
_STATUS = re.compile('([A-Z_]{5,}): |Error (?:open|read)ing ')
# Those that say that bytes are missing or wrong; with UNAVAILABLE, PERMISSION_DENIED and so on they
# may be whole.
_UNREADABLE = ('DATA_LOSS', 'OUT_OF_RANGE', 'NOT_FOUND', 'FAILED_PRECONDITION', None)
# What code raises on contents that it does not expect, or that lack a file.
_UNEXPECTED = (
  ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, FileNotFoundError,
)  # fmt: skip


class Damaged(UserError):
  """A checkpoint lacks something, or holds something else than was saved."""


def sealed(progress: RunProgress, state_checksum: int, metrics: dict | None) -> dict[str, Any]:
  """Returns the contents of a checkpoint's `host` item.

  Args:
    progress: of the run.
    state_checksum: of the arrays.
    metrics: that are saved with them.
  """
  host = {**progress.to_json(), 'checksum': state_checksum}
  host |= {_METRICS: metrics, _ORBAX: ocp.__version__}
  return {**host, _SEAL: _checksum(host)}


def read_host(path: Path) -> tuple[RunProgress, dict[str, Any]]:
  """Reads the `host` item of a checkpoint.

  Args:
    path: of the checkpoint.

  Returns:
    The progress of the run, and all that is in the item.

  Raises:
    Damaged: it is missing, or is not what was saved.
    UserError: it is what another version has saved.
  """
  host = _read_json(path / 'host' / HOST_FILE)
  if not isinstance(host, dict) or not isinstance(host.get('checksum'), int):
    raise Damaged('its host item has no checksum')
  seal = host.pop(_SEAL, None)
  if seal is None:  # an earlier version, which knew no others
    unknown = sorted(host.keys() - {*RunProgress.names(), 'checksum'})
    if unknown:
      raise Damaged(f'its host item has the unknown field {unknown[0]!r}')
  elif seal != _checksum(host):
    raise Damaged('the checksum of its host item differs')
  try:
    return RunProgress.from_json(host), host
  except ValueError as error:
    if seal is None:
      raise Damaged(f'its host item: {error}') from error
    raise UserError(
      f'{path} is of another version of senet_jax ({error}); use that one.'
    ) from error


def check(path: Path, step: ocp.path.step.Metadata, objective: Objective) -> None:
  """Looks at what is small in a checkpoint.

  Args:
    path: of the checkpoint.
    step: which Orbax has found there.
    objective: of the run, which the metrics must have.

  Raises:
    Damaged: an item is missing, or is not what was saved.
  """
  if not (path / 'state').is_dir():
    raise Damaged('its state is missing')
  _, host = read_host(path)
  metrics = path / 'metrics' / 'metrics'
  found = _read_json(metrics) if metrics.exists() else None
  if json.dumps(found) != json.dumps(host.get(_METRICS, found)):
    raise Damaged('its metrics are not those that were saved')
  try:
    if found is not None and not math.isfinite(objective.cost(found)):
      raise Damaged('its metrics are not finite')
  except _UNEXPECTED as error:
    raise Damaged('its metrics are not those of this kind of run') from error
  try:
    _ = step.commit_timestamp  # makes Orbax read what it keeps of a step
  except _UNEXPECTED as error:
    if host.get(_ORBAX) != ocp.__version__:  # another version might read it
      raise
    raise Damaged(f'what Orbax keeps of it is not readable: {error}') from error


def evidence(error: Exception, path: Path) -> Damaged | None:
  """Returns what makes a failure to read a checkpoint one of the checkpoint, None if nothing does.

  Args:
    error: that was raised.
    path: of the checkpoint.

  Raises:
    OSError: the checkpoint cannot be looked at.
  """
  if isinstance(error, Damaged):
    return error
  try:
    _read_json(path / 'state' / '_METADATA')
    _, host = read_host(path)
  except Damaged as damaged:
    return damaged
  chain: list[BaseException] = []
  cause: BaseException | None = error
  while cause is not None and cause not in chain:
    chain.append(cause)
    cause = cause.__cause__ or cause.__context__
  found = [match[1] for e in chain if (match := _STATUS.match(str(e)))]
  # Of which TensorStore says UNKNOWN; it does not pass, either.
  loops = any(os.strerror(errno.ELOOP) in str(e) for e in chain)
  if found and not set(found) <= set(_UNREADABLE) and not loops:
    return None
  # Another version might read what this one did not expect.
  if found or (host.get(_ORBAX) == ocp.__version__ and isinstance(error, _UNEXPECTED)):
    return Damaged(' '.join(f'{type(error).__name__}: {error}'.split())[:300])
  return None


def described(path: Path, error: Damaged) -> str:
  """Returns a sentence that says which checkpoint is damaged, and why."""
  return f'checkpoint {path.name} in {path.parent} is damaged ({error}).'


def agreed(mine: Any, what: str) -> Any:
  """Returns what all processes say of `what`, as JSON has it.

  Raises:
    UserError: they differ, as one has a disk or a network of its own.
  """
  theirs = runtime.gather(f'damaged/{next(_EXCHANGES)}', mine)
  differing = [str(i) for i, found in enumerate(theirs) if found != theirs[0]]
  if differing:
    raise UserError(
      f'{what} can be read by some processes only: {", ".join(differing)} differ from process 0. '
      'Nothing was moved; check the disk and the network of these hosts.'
    )
  return mine


def set_aside(directory: Path, names: list[str]) -> None:
  """Moves checkpoints that all processes have found damaged to `damaged` beside `directory`.

  Args:
    directory: of the checkpoints.
    names: of those that this process has found.

  Raises:
    UserError: other processes have found others.
  """
  names = agreed(sorted(names), f'a checkpoint in {directory}')
  if not names:
    return
  if runtime.is_first():
    target = directory.parent / _DIRECTORY
    target.mkdir(exist_ok=True)
    for name in names:
      place = f'{name}.{len(list(target.iterdir())) if target.exists() else 0}'
      buckets.move(directory / name, target / place)
  runtime.barrier(f'set_aside/{next(_EXCHANGES)}')


def _read_json(path: Path) -> Any:
  try:
    return json.loads(path.read_bytes())
  except OSError as error:
    if not isinstance(error, FileNotFoundError) and error.errno not in _NO_FILE:
      raise
    raise Damaged(f'{path.parent.name}/{path.name} is missing') from error
  except (ValueError, RecursionError) as error:
    raise Damaged(f'{path.parent.name}/{path.name} is not JSON: {error}') from error


def _checksum(host: dict[str, Any]) -> int:
  return zlib.crc32(json.dumps(host, sort_keys=True).encode())
