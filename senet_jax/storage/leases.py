"""Keeps a directory of a bucket for one process: object storage has no locks.

An object says who has the directory, and is written anew all the time. It is made, written and
removed on condition of its generation, which the storage counts up with each write, so that of two
processes that do so at once only one succeeds, and none touches what another has made.
"""

import contextlib
import json
import os
import platform
import sys
import threading
import time
import urllib.parse
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from senet_jax.errors import USER_ERROR, UserError
from senet_jax.storage import buckets, processes

if TYPE_CHECKING:
  from etils import epath

# A holder says so often that it is alive; after so long without, it is taken for dead.
_ALIVE_S, _DEAD_S = 20, 90
_NEW = 0  # the generation of what is not there


@contextlib.contextmanager
def leased(directory: 'epath.Path') -> Iterator[None]:
  """Keeps other processes out of a directory of a bucket.

  After a kill the directory is free again after `_DEAD_S` seconds, for the same host at once. A
  process whose lease is gone all the same, as after a long time without network, ends at once: it
  must not write where another one does.

  Raises:
    UserError: another process has it.
  """
  lease = Lease(directory)
  with buckets.access(directory):
    lease.take()
  ended = threading.Event()
  thread = threading.Thread(target=lease.keep, args=[ended], name='lease', daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    lease.give_back()


class Lease:
  """The object that says who has a directory."""

  def __init__(self, directory: 'epath.Path'):
    self._directory = directory
    self.store = buckets.file_system(directory)
    path = self.store.split_path(os.fspath(directory / '.lock'))
    self._bucket, self._key = path[:2]
    self._mine = {'pid': os.getpid(), 'host': platform.node(), 'id': uuid.uuid4().hex}
    self._generation = _NEW

  def take(self) -> None:
    """Becomes the holder.

    Raises:
      UserError: there is one.
    """
    holder, generation = self._read()
    if generation != _NEW and _may_be_alive(holder):
      raise self._taken(holder)
    if generation != _NEW and not _is_dead_here(holder):
      # Its clock may be another: it must keep silent before our eyes, too.
      time.sleep(2 * _ALIVE_S)
    try:
      self.write(generation)
    except FileExistsError as error:  # it was written since
      raise self._taken(self._read()[0]) from error

  def keep(self, ended: threading.Event) -> None:
    """Says again and again that the holder is alive, until `ended`."""
    while not ended.wait(_ALIVE_S):
      try:
        self.write(self._generation)
      except (FileExistsError, FileNotFoundError):
        _end(f'{self._directory} was taken by another run; this one ends, to leave it alone.')
      except Exception:  # the network may be away for a moment
        continue

  def give_back(self) -> None:
    """Removes the object, if it is still our own."""
    with contextlib.suppress(FileExistsError, FileNotFoundError):
      self.store.call(
        'DELETE', 'b/{}/o/{}', self._bucket, self._key, ifGenerationMatch=str(self._generation)
      )

  def _read(self) -> tuple[Any, int]:
    """Returns what the object says and its generation."""
    where = 'GET', 'b/{}/o/{}', self._bucket, self._key
    try:
      generation = int(self.store.call(*where, json_out=True)['generation'])
      _, content = self.store.call(*where, alt='media', generation=str(generation))
    except FileNotFoundError:
      return None, _NEW
    try:
      return json.loads(content), generation
    except ValueError:
      return None, generation

  def write(self, generation: int) -> None:
    """Writes the object, if it has this generation, and keeps its new one.

    Raises:
      FileExistsError: it has another.
    """
    url = self.store.base.replace('/storage/', '/upload/storage/')
    url += f'b/{urllib.parse.quote(self._bucket, safe="")}/o'
    content = json.dumps({**self._mine, 'time': time.time()}).encode()
    try:
      written = self.store.call(
        'POST', url, data=content, json_out=True,
        uploadType='media', name=self._key, ifGenerationMatch=str(generation),
      )  # fmt: skip
      self._generation = int(written['generation'])
    except FileExistsError:
      # The answer to a first try may have been lost, and this be the second.
      holder, self._generation = self._read()
      if not isinstance(holder, dict) or holder.get('id') != self._mine['id']:
        raise

  def _taken(self, holder: Any) -> UserError:
    who = holder if isinstance(holder, dict) else {}
    return UserError(
      f'{self._directory} is in use by process {who.get("pid")} on {who.get("host")}; wait for '
      f'its end, stop it, or give another --workdir. {_DEAD_S} s after it was killed the '
      'directory is free again.'
    )


def _may_be_alive(holder: Any) -> bool:
  """Returns whether a holder has said something lately."""
  try:
    return time.time() - holder['time'] <= _DEAD_S and not _is_dead_here(holder)
  except (KeyError, TypeError):
    return False


def _is_dead_here(holder: Any) -> bool:
  """Returns whether a holder was a process of this machine and is no more."""
  return (
    isinstance(holder, dict)
    and holder.get('host') == platform.node()
    and not processes.is_running(holder.get('pid'))
  )


def _end(message: str) -> None:
  print('senet_jax:', message, file=sys.stderr, flush=True)
  os._exit(USER_ERROR)
