"""One process at a time has a directory of a bucket, against a stand-in for its storage."""

import json
import os
import subprocess
import sys
import threading
import time
import types

import fsspec
import pytest

from senet_jax.errors import UserError
from senet_jax.storage import buckets, files, leases
from tests.helpers import fake_gcs
from tests.helpers.until import until

pytest.importorskip('gcsfs')
KEY = 'bucket', 'run/.lock'
DIRECTORY = 'gs://bucket/run'


@pytest.fixture
def store(monkeypatch):
  with fake_gcs.FakeGcs() as store:
    for name, value in store.environment().items():
      monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class('gcs').clear_instance_cache()
    monkeypatch.setattr(leases, '_ALIVE_S', 0.2)
    yield store


def lock():
  return files.locked(buckets.to_path(DIRECTORY))


def said(store) -> dict:
  return json.loads(store.objects[KEY][0])


def test_one_run_at_a_time(store):
  with lock():
    held = said(store)
    with pytest.raises(UserError, match=f'in use by process {os.getpid()}'), lock():
      pass
  assert KEY not in store.objects
  for change, free in (
    ({}, False),
    ({'host': 'elsewhere'}, False),
    ({'host': 'elsewhere', 'time': time.time() - 91}, True),  # not a word from it since
    ({'pid': 2**22 + 1}, True),  # it was here, and is no more
  ):
    store.put(KEY, json.dumps({**held, **change}).encode())
    if free:
      with lock():
        pass
    else:
      with pytest.raises(UserError, match='in use'), lock():
        pass


def test_of_many_at_once_one_gets_it(store):
  """Each has seen that nobody has it before any of them writes."""
  count, taken = 6, []
  seen = threading.Barrier(count)

  def take(lease):
    write = lease.write

    def write_together(generation):
      seen.wait(20)
      write(generation)

    lease.write = write_together
    try:
      lease.take()
    except UserError:
      return
    taken.append(lease)

  claims = [leases.Lease(buckets.to_path(DIRECTORY)) for _ in range(count)]
  threads = [threading.Thread(target=take, args=[lease]) for lease in claims]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(taken) == 1 and KEY in store.objects
  taken[0].give_back()  # which leaves alone what is another's
  assert KEY not in store.objects


def test_holder_with_a_slow_clock_keeps_it(store, monkeypatch):
  """It seems to have been silent for long, but speaks."""
  old = {'host': 'elsewhere', 'pid': 1, 'id': 'x', 'time': time.time() - 1000}
  store.put(KEY, json.dumps(old).encode())
  speaks = types.SimpleNamespace(
    time=time.time, sleep=lambda seconds: store.put(KEY, json.dumps(old).encode())
  )
  monkeypatch.setattr(leases, 'time', speaks)
  with pytest.raises(UserError, match='in use by process 1 on elsewhere'), lock():
    pass
  assert said(store)['id'] == 'x'


def test_holder_says_that_it_is_alive(store):
  with lock():
    first = said(store)['time']
    until(lambda: said(store)['time'] > first)
  assert not any(t.name == 'lease' for t in threading.enumerate())


def test_an_answer_that_is_lost_is_no_other_holder(store):
  """The library sends again what it got no answer to, and finds its own writing."""
  lease = leases.Lease(buckets.to_path(DIRECTORY))
  call, answers = lease.store.call, []

  def twice(method, *args, **kwargs):
    if method == 'POST' and not answers:
      answers.append(call(method, *args, **kwargs))
    return call(method, *args, **kwargs)

  lease.store.call = twice
  try:
    lease.take()
  finally:
    del lease.store.call
  assert answers and KEY in store.objects
  lease.give_back()
  assert KEY not in store.objects


def test_what_another_has_is_left_alone(store):
  lease = leases.Lease(buckets.to_path(DIRECTORY))
  lease.take()
  store.put(KEY, b'{"id": "another"}')
  lease.give_back()
  assert said(store) == {'id': 'another'}


@pytest.mark.parametrize('deleted', [False, True])
def test_a_run_that_has_lost_it_ends(store, deleted):
  code = (
    'import time\n'
    'from senet_jax.storage import buckets, leases\n'
    'leases._ALIVE_S = 0.2\n'
    f'with leases.leased(buckets.to_path({DIRECTORY!r})):\n'
    '  print("has it", flush=True)\n'
    '  time.sleep(60)\n'
  )
  process = subprocess.Popen(
    [sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'has it\n'
  if deleted:
    del store.objects[KEY]
  else:
    store.put(KEY, b'{"id": "another"}')
  _, error = process.communicate(timeout=60)
  assert process.returncode == 2 and 'was taken by another run' in error
  assert KEY not in store.objects if deleted else said(store) == {'id': 'another'}
