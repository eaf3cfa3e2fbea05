"""The checks that every request has to pass, and the headers that every response carries."""

import asyncio
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from senet_jax.serving.limits import Limits

# Nothing from elsewhere, nothing written into the page itself, in nobody's frame.
_CONTENT_SECURITY_POLICY = '; '.join([
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
])  # fmt: skip
_HEADERS = {
  'Content-Security-Policy': _CONTENT_SECURITY_POLICY,
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Referrer-Policy': 'no-referrer',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Permissions-Policy': 'camera=(self), microphone=(), geolocation=()',
  'Cache-Control': 'no-store',
}
# Of a request around its photo: the names and boundaries of a form.
_AROUND = 64 * 1024


class Guard:
  """Holds requests to the limits; ASGI middleware.

  A page of another site may have its own name stand for this address (DNS rebinding), or send here
  what its visitors know nothing of. So a request must say a host that cannot be taken over (an
  address, localhost, or a name that was allowed), and come from a page of such a host.
  """

  def __init__(self, app: ASGIApp, limits: Limits, hosts: Collection[str] = (), local: bool = True):
    """Guards `app`.

    Args:
      app: what answers.
      limits: of requests.
      hosts: names that this server goes by, besides localhost.
      local: whether only this machine reaches it, so that no address but a loopback one is its.
    """
    self._app, self._limits, self._local = app, limits, local
    self._hosts = {'localhost', *(host.lower() for host in hosts)}
    self._requests = 0

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or refuses it."""
    if scope['type'] != 'http':
      await self._app(scope, receive, send)
      return
    started = False

    async def sending(message: Message) -> None:
      nonlocal started
      if message['type'] == 'http.response.start':
        started = True
        MutableHeaders(scope=message).update(_HEADERS)
      await send(message)

    answer = self._refusal(Headers(scope=scope)) or self._app
    self._requests += 1
    try:
      async with asyncio.timeout(self._limits.seconds) as timeout:
        await answer(scope, self._bounded(receive), sending)
    except TimeoutError:
      if started or not timeout.expired():
        raise
      refusal = _refused(503, f'no answer within {self._limits.seconds:g} s; try again.')
      await refusal(scope, receive, sending)
    finally:
      self._requests -= 1

  def _refusal(self, headers: Headers) -> JSONResponse | None:
    host, origin = headers.get('host', ''), headers.get('origin')
    length = headers.get('content-length', '0')
    if not self._is_ours(f'//{host}'):
      return _refused(
        400, f'this server is not {host[:100]!r}; senet serve --hosts=NAME allows it.'
      )
    if origin is not None and not self._is_ours(origin):
      return _refused(403, f'pages of {origin[:100]!r} may not ask this server.')
    if length.isdecimal() and int(length) > self._limits.bytes + _AROUND:
      return _refused(413, self._too_large)
    if self._requests >= self._limits.requests:
      return _refused(503, 'too many requests at once; try again.')
    return None

  def _is_ours(self, url: str) -> bool:
    try:
      name = (urlsplit(url).hostname or '').rstrip('.')
      address = ipaddress.ip_address(name) if name not in self._hosts else None
    except ValueError:
      return False
    return address is None or address.is_loopback or not self._local

  def _bounded(self, receive: Receive) -> Receive:
    """Returns `receive`, which ends where a body without a length is too long."""
    left = self._limits.bytes + _AROUND

    async def receiving() -> Message:
      nonlocal left
      message = await receive()
      left -= len(message.get('body', b''))
      if left < 0:
        raise HTTPException(413, self._too_large)
      return message

    return receiving

  @property
  def _too_large(self) -> str:
    return f'the photo is larger than {self._limits.bytes / 2**20:.3g} MB; send a smaller one.'


def _refused(status: int, why: str) -> JSONResponse:
  retry = {'Retry-After': '1'} if status == 503 else None
  return JSONResponse({'error': why}, status, retry)
