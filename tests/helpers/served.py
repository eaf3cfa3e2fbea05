"""A server of this process, in a thread, and the command in a process of its own."""

import contextlib
import os
import subprocess
import sys
import threading

from senet_jax.serving import server


@contextlib.contextmanager
def served(app, limits):
  """Runs a server of `app`; the value is its address, `http://127.0.0.1:PORT`."""
  with server.bind('127.0.0.1', 0) as taken:
    taken.listen()
    running = server.make_server(app, limits)
    thread = threading.Thread(target=running.run, kwargs={'sockets': [taken]})
    thread.start()
    try:
      yield server.url(taken)
    finally:
      running.should_exit = True
      thread.join(60)
      assert not thread.is_alive()


@contextlib.contextmanager
def senet_serve(*arguments):
  """Runs `senet serve` with `arguments` and any port; the value is its address."""
  command = [sys.executable, '-m', 'senet_jax.tools.serve', *arguments, '--port=0']
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '1'}
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as running:
    try:
      lines = [running.stdout.readline() for _ in range(2)]
      assert lines[1].startswith('http'), lines
      yield lines[1].split()[0]
      assert running.poll() is None, 'it has ended'
    finally:
      running.terminate()
