"""What a process prints that loses another one: one line of ours for the dump of JAX's runtime."""

import os
import signal
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT

# As jaxlib prints it.
_DUMP = """\
E1127 11:40:34.2 11847 coordination_service.cc:1549] Use error polling to propagate it: UNAVAILABLE
1
The tasks have crashed. Check the task logs for an earlier error.
E1127 11:40:34.2 11847 coordination_service_agent.cc:289] Polled an error from coordination service.
F1127 11:40:34.2 11847 client.h:80] Ended because the JAX distributed service detected fatal errors.
Additional GRPC error information from remote target coordination_service while calling /xla:
:UNKNOWN:Error received from peer  {grpc_message:"Socket closed", grpc_status:14}
*** Check failure stack trace: ***
    @     0x7f7bdd040634  absl::lts_20260107::log_internal::LogMessage::SendToLog()
"""
_BEGIN = """
import os, sys
from senet_jax.runtime import last_words
last_words.listen('process 1 on here')
os.write(2, b'W1127 native warning\\n')
print('of Python', file=sys.stderr)
"""


def run(code, **options):
  command = [sys.executable, '-c', _BEGIN + code]
  return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, **options)


def test_the_dump_is_one_line():
  done = run(f'os.write(2, {_DUMP.encode()!r})\nos.abort()')
  assert done.returncode == -signal.SIGABRT
  lost = 'lost another process; start all again, and the run goes on where it saved.'
  assert sorted(done.stderr.splitlines()) == [
    'W1127 native warning', 'of Python', f'senet_jax: process 1 on here: {lost}',
  ]  # fmt: skip


@pytest.mark.parametrize('end', ['', 'sys.exit(3)', 'os._exit(3)', 'os.abort()'])
def test_all_else_is_passed_on(end):
  lines = [f'line {i}' for i in range(10_000)] + ['*** Check failure stack trace: ***', 'half']
  done = run(f'os.write(2, {chr(10).join(lines).encode()!r})\n{end}')
  assert done.returncode == {'': 0, 'os.abort()': -signal.SIGABRT}.get(end, 3)
  begin = {'W1127 native warning', 'of Python'}
  passed = done.stderr.splitlines()
  assert begin <= set(passed) and [line for line in passed if line not in begin] == lines


def test_signals_to_all_do_not_end_the_listener():
  code = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: None)
os.killpg(0, signal.SIGTERM)
os.write(2, b'after the signal\\n')
"""
  assert 'after the signal' in run(code, start_new_session=True).stderr


def test_without_a_reader_the_process_goes_on():
  read, write = os.pipe()
  code = _BEGIN + 'print("ready", flush=True); input(); os.write(2, b"x\\n" * 99_999); print("end")'
  with subprocess.Popen(
    [sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=write,
    cwd=ROOT, text=True,
  ) as process:  # fmt: skip
    os.close(write)
    assert process.stdout.readline() == 'ready\n'
    os.close(read)
    assert process.communicate('\n', timeout=60)[0] == 'end\n'
  assert process.returncode == 0
