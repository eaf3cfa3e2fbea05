"""A server of this process, in a thread."""

import contextlib
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
