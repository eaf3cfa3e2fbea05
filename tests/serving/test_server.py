"""The command that serves: its socket, real connections, and its end."""

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import sys

import httpx2
import numpy as np
import pytest
from PIL import Image

from senet_jax.errors import UserError
from senet_jax.serving import server
from senet_jax.serving.guard import Guard
from senet_jax.serving.limits import Limits
from senet_jax.tools import serve
from tests.helpers.commands import complaint
from tests.helpers.encoded import encoded
from tests.helpers.ports import free_port
from tests.helpers.served import senet_serve, served


async def _length(scope, receive, send):
  """Answers with the number of bytes that have come."""
  count, more = 0, True
  while more:
    message = await receive()
    count, more = count + len(message.get('body', b'')), message.get('more_body', False)
  await send({'type': 'http.response.start', 'status': 200, 'headers': []})
  await send({'type': 'http.response.body', 'body': str(count).encode()})


@pytest.fixture
def port():
  """A port of a server in a thread, which answers with `_length`."""
  limits = Limits(bytes=2**20)
  with served(Guard(_length, limits), limits) as url:
    yield int(url.rpartition(':')[2])


def test_a_real_upload_of_fifty_megabytes_is_refused(port):
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=20)
  connection.request('POST', '/api/predict', b'x' * 1000)
  assert connection.getresponse().read() == b'1000'
  connection.request('POST', '/api/predict', bytes(50 * 2**20))
  response = connection.getresponse()
  assert response.status == 413 and b'larger than 1 MB' in response.read()


def test_addresses():
  taken = server.bind('127.0.0.1', 0)
  port = taken.getsockname()[1]
  assert server.is_local(taken) and server.url(taken) == f'http://127.0.0.1:{port}'
  with pytest.raises(UserError, match=rf'port {port} of 127\.0\.0\.1 is in use; choose another'):
    taken.listen()
    server.bind('127.0.0.1', port)
  taken.close()
  everywhere = server.bind('0.0.0.0', 0)
  assert not server.is_local(everywhere) and server.url(everywhere).startswith('http://localhost:')
  everywhere.close()
  for host in ('no.such.host.invalid', '203.0.113.7', 'x' * 300, ''):
    with pytest.raises(UserError, match='--host='):
      server.bind(host, 0)
  with pytest.raises(UserError, match='--port=70000 must be 0 to 65535'):
    server.bind('127.0.0.1', 70000)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], '--workdir is missing'),
    (['se_resnet20_cifar10', '--port=70000'], '--port=70000 must be'),
    (['se_resnet20_cifar10', '--port=x'], 'invalid int value'),
    (['se_resnet20_cifar10', '--max_megabytes=0'], 'must be greater than 0'),
    (['se_resnet20_cifar10', '--timeout=nan'], 'must be greater than 0'),
    (['se_resnet20_cifar10', '--max_requests=0'], 'must be an integer of at least 1'),
    (['nothing', '--port=0'], 'nothing is neither a directory nor a trained network'),
  ],
)
def test_mistakes_are_one_line(arguments, message, monkeypatch, capsys, tmp_path):
  monkeypatch.chdir(tmp_path)
  error = complaint(serve.main, arguments, monkeypatch, capsys)
  assert message in error and error.count('\n') == 1


def test_what_is_missing_is_named(monkeypatch, capsys):
  monkeypatch.setattr(serve, '_NEEDED', ('uvicorn', 'no_such_package'))
  error = complaint(serve.main, ['se_resnet20_cifar10'], monkeypatch, capsys)
  assert "serving needs no_such_package: pip install 'senet_jax[demo]'" in error


@pytest.mark.thorough
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_the_command_from_its_first_line_to_its_end(number):
  port = free_port()
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '1'}
  command = [sys.executable, '-m', 'senet_jax.tools.serve', 'se_resnet20_cifar10', f'--port={port}']
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
  ) as running:
    try:
      assert 'se_resnet20_cifar10: se_resnet20_cifar, 10 classes' in running.stdout.readline()
      assert running.stdout.readline().startswith(f'http://127.0.0.1:{port} ')
      connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
      connection.request('GET', '/')
      response = connection.getresponse()
      assert response.status == 200 and b'<!doctype html>' in response.read()
      # Another one is told so, before it compiles anything.
      other = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
      assert other.returncode == 2 and f'port {port} of 127.0.0.1 is in use' in other.stderr
      # A request that has come is answered before the end.
      half = socket.create_connection(('127.0.0.1', port))
      half.sendall(b'POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n<s')
      connection.request('GET', '/api/model')
      connection.getresponse().read()
      running.send_signal(number)
      half.sendall(b'v')
      assert half.recv(4096).startswith(b'HTTP/1.1 400 Bad Request')
      half.close()
      _, error = running.communicate(timeout=60)
    finally:
      running.kill()
  if number == signal.SIGINT:
    assert running.returncode == 130 and error == 'senet_jax: interrupted.\n'
  else:
    assert running.returncode == -signal.SIGTERM and error == ''


@pytest.mark.thorough
def test_the_command_under_a_hundred_requests_and_what_is_no_photo():
  rng = np.random.default_rng(0)
  photos = [encoded(rng.integers(0, 256, (60, 90, 3), np.uint8)) for _ in range(20)]
  refused = [
    (encoded(Image.new('1', (10_000, 10_000))), 400, '10000 x 10000 pixels are more than'),
    (b'<svg><script>alert(1)</script></svg>', 400, 'the photo is unreadable: no JPEG'),
    (bytes(50 * 2**20), 413, 'the photo is larger than 16 MB; send a smaller one.'),
  ]

  async def ask(url):
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
      post = lambda photo: client.post('/api/predict', content=photo)  # noqa: E731
      alone = [(await post(photo)).json() for photo in photos]
      given = [*photos * 5, *(photo for photo, _, _ in refused)]
      return alone, await asyncio.gather(*map(post, given)), await post(photos[0])

  with senet_serve('se_resnet20_cifar10') as url:
    alone, responses, last = asyncio.run(ask(url))
  assert [r.status_code for r in responses[:100]] == [200] * 100
  for i, response in enumerate([*responses[:100], last]):
    best, expected = response.json()['predictions'][0], alone[i % 20]['predictions'][0]
    assert best['name'] == expected['name']
    assert best['probability'] == pytest.approx(expected['probability'], rel=1e-3)
  for response, (_, status, message) in zip(responses[100:], refused, strict=True):
    assert response.status_code == status and message in response.json()['error']
