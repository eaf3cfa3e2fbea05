"""SIGTERM and Ctrl-C: noticed at once, also by a process that is busy outside Python."""

import os
import signal
import subprocess
import sys
import types

import pytest

from senet_jax import runtime
from senet_jax.runtime.children import Children
from senet_jax.runtime.signals import StopSignals


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noticed_and_handlers_come_back(number):
  before = signal.getsignal(number), signal.set_wakeup_fd(-1)
  called = []
  with StopSignals(then=lambda: called.append(1)) as stop:
    assert not stop.noticed
    os.kill(os.getpid(), number)
    assert stop.noticed and called
  assert (signal.getsignal(number), signal.set_wakeup_fd(-1)) == before


def test_a_run_is_told():
  with runtime.Preemption() as stop:
    assert not stop.asked()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked() and stop.noticed


def test_a_second_interrupt_ends_what_is_busy_at_once():
  code = (
    'import hashlib\n'
    'from senet_jax.runtime.signals import StopSignals\n'
    'with StopSignals():\n'
    '  print("ready", flush=True)\n'
    '  hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)\n'  # which nothing interrupts
  )
  command = [sys.executable, '-c', code]
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout.readline() == 'ready\n'
    process.send_signal(signal.SIGINT)
    assert 'saves and stops; Ctrl-C once more ends at once' in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == 'senet_jax: interrupted.\n'
    assert process.wait(60) == 130


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_commands_that_were_started_are_told(number):
  terminated = []
  with Children() as children:
    child = types.SimpleNamespace(
      terminate=lambda: terminated.append(1), poll=lambda: 75, returncode=75
    )
    children._running.append(child)
    assert not children.stopping
    os.kill(os.getpid(), number)
    assert children.stopping and terminated
