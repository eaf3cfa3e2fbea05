"""The server: its socket, and its life."""

import errno
import ipaddress
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from senet_jax.errors import UserError
from senet_jax.serving.limits import Limits

_IN_USE = 'is in use; choose another --port, or --port=0 for any that is free.'
_WAITING = 128  # connections that the system keeps until they are accepted
# Connections for each request at once: browsers keep several open.
_CONNECTIONS = 8


def bind(host: str, port: int) -> socket.socket:
  """Takes an address, so that nobody else does; nobody can connect yet.

  Raises:
    UserError: it is in use, of another machine or of no one, or may not be taken.
  """
  if not 0 <= port < 2**16:
    raise UserError(f'--port={port} must be 0 to 65535.')
  try:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
  except (OSError, UnicodeError) as error:
    raise UserError(f'--host={host} is no address of this machine: {error}.') from error
  taken = socket.socket(family, socket.SOCK_STREAM)
  taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    taken.bind(address)
  except OSError as error:
    taken.close()
    if error.errno == errno.EADDRINUSE:
      raise UserError(f'port {port} of {host} {_IN_USE}') from error
    raise UserError(f'--host={host} --port={port} cannot be taken: {error.strerror}.') from error
  return taken


def is_local(taken: socket.socket) -> bool:
  """Returns whether only this machine reaches an address that was taken."""
  return ipaddress.ip_address(taken.getsockname()[0]).is_loopback


def url(taken: socket.socket) -> str:
  """Returns what to open in a browser on this machine."""
  host, port, *_ = taken.getsockname()
  address = ipaddress.ip_address(host)
  if address.is_unspecified:
    host = 'localhost'
  return f'http://{f"[{host}]" if ":" in host else host}:{port}'


def serve(app: ASGIApp, taken: socket.socket, limits: Limits, ready: Callable[[], None]) -> None:
  """Answers requests until SIGTERM or Ctrl-C, and then those that have come.

  The signal is then given to this process again, which thus ends as one that serves nothing does.

  Args:
    app: what answers.
    taken: from `bind`.
    limits: of requests.
    ready: is called when requests can come.
  """
  taken.listen(_WAITING)
  ready()
  make_server(app, limits).run(sockets=[taken])


def make_server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
  """Returns what answers requests at a socket that listens, quietly."""
  config = uvicorn.Config(
    app,
    access_log=False,
    log_level='warning',
    server_header=False,
    ws='none',
    lifespan='off',
    proxy_headers=False,
    limit_concurrency=_CONNECTIONS * limits.requests,
    timeout_graceful_shutdown=max(1, round(limits.seconds)),
  )
  return uvicorn.Server(config)
