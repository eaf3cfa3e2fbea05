"""A stand-in for Google Cloud Storage: its JSON API as far as gcsfs and TensorStore use it.

https://cloud.google.com/storage/docs/json_api; objects live in memory.
"""

import contextlib
import http.server
import json
import re
import threading
import urllib.parse

# The only one there is.
BUCKET = 'bucket'


class FakeGcs:
  """A server on this machine; a context manager.

  Attributes:
    objects: content and generation by (bucket, name).
    url: of the server.
  """

  def __init__(self):
    self.objects: dict[tuple[str, str], tuple[bytes, int]] = {}
    self.lock = threading.Lock()
    self._generation = 0
    self._uploads: dict[str, tuple[tuple[str, str], bytearray]] = {}
    handler = type('Handler', (_Handler,), {'store': self})
    self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    self.url = f'http://127.0.0.1:{self._server.server_port}'

  def __enter__(self) -> 'FakeGcs':
    threading.Thread(target=self._server.serve_forever, daemon=True).start()
    return self

  def __exit__(self, *_) -> None:
    self._server.shutdown()
    self._server.server_close()

  def environment(self) -> dict[str, str]:
    """What makes gcsfs and TensorStore ask this server, and look for credentials nowhere."""
    return {
      'STORAGE_EMULATOR_HOST': self.url,
      'TENSORSTORE_GCS_HTTP_URL': self.url,
      'NO_GCE_CHECK': 'true',
      'GCE_METADATA_ROOT': '127.0.0.1:9',
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
    }

  def put(self, key: tuple[str, str], content: bytes, query: dict[str, str] | None = None):
    """Writes an object and returns its description, or the status if a condition is not met."""
    with self.lock:
      if status := self.fails(key, query or {}):
        return status
      self._generation += 1
      self.objects[key] = content, self._generation
    return self.describe(key)

  def fails(self, key: tuple[str, str], query: dict[str, str]) -> int | None:
    """The status if a condition on the generation is not met."""
    generation = self.objects.get(key, (b'', 0))[1]
    if 'ifGenerationMatch' in query and int(query['ifGenerationMatch']) != generation:
      return 412
    if 'ifGenerationNotMatch' in query and int(query['ifGenerationNotMatch']) == generation:
      return 304
    return None

  def describe(self, key: tuple[str, str]) -> dict:
    content, generation = self.objects[key]
    bucket, name = key
    return {
      'kind': 'storage#object',
      'bucket': bucket,
      'name': name,
      'size': str(len(content)),
      'generation': str(generation),
      'metageneration': '1',
      'updated': '2026-01-01T00:00:00.000Z',
      'timeCreated': '2026-01-01T00:00:00.000Z',
    }

  def list(self, bucket: str, query: dict[str, str]) -> dict:
    prefix, delimiter = query.get('prefix', ''), query.get('delimiter')
    items, prefixes = [], set()
    with self.lock:
      keys = sorted(self.objects)
    for key in keys:
      if key[0] != bucket or not key[1].startswith(prefix):
        continue
      if not query.get('startOffset', '') <= key[1]:
        continue
      if query.get('endOffset') and key[1] >= query['endOffset']:
        continue
      head, found, _ = key[1][len(prefix) :].partition(delimiter) if delimiter else ('', '', '')
      if found:
        prefixes.add(prefix + head + delimiter)
      else:
        items.append(self.describe(key))
    return {'kind': 'storage#objects', 'items': items, 'prefixes': sorted(prefixes)}

  def begin_upload(self, key: tuple[str, str]) -> str:
    number = str(len(self._uploads))
    self._uploads[number] = key, bytearray()
    return f'{self.url}/upload/resumable?upload_id={number}'

  def go_on(self, number: str, content: bytes, last: bool) -> tuple[int, dict | None]:
    """Adds to an upload; returns the bytes that there are, and the object if that was the end."""
    key, kept = self._uploads[number]
    kept += content
    return len(kept), self.put(key, bytes(kept)) if last else None


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  # Without them each answer takes 40 ms, waiting for the acknowledgement of its first half.
  wbufsize = -1
  disable_nagle_algorithm = True
  store: FakeGcs

  def handle(self) -> None:
    with contextlib.suppress(ConnectionError):  # a client that has heard enough
      super().handle()

  def log_message(self, *_) -> None:
    pass

  def _answer(self, status: int, body: bytes | dict = b'', **headers: str) -> None:
    if isinstance(body, dict):
      body = json.dumps(body).encode()
      headers.setdefault('Content-Type', 'application/json')
    self.send_response(status)
    for name, value in headers.items():
      self.send_header(name.replace('_', '-'), value)
    self.send_header('Content-Length', str(0 if status == 304 else len(body)))
    self.end_headers()
    if self.command != 'HEAD' and status != 304:
      self.wfile.write(body)

  def _error(self, status: int, message: str) -> None:
    self._answer(status, {'error': {'code': status, 'message': message}})

  def _parse(self) -> tuple[str, dict[str, str]]:
    parsed = urllib.parse.urlsplit(self.path)
    return parsed.path, dict(urllib.parse.parse_qsl(parsed.query, keep_blank_values=True))

  def _body(self) -> bytes:
    return self.rfile.read(int(self.headers.get('Content-Length') or 0))

  def do_GET(self) -> None:
    path, query = self._parse()
    if match := re.fullmatch(r'(?:/download)?/storage/v1/b/([^/]+)/o/(.+)', path):
      self._get(tuple(map(urllib.parse.unquote, match.groups())), query)
    elif match := re.fullmatch(r'/storage/v1/b/([^/]+)/o/?', path):
      self._answer(200, self.store.list(match[1], query))
    elif match := re.fullmatch(r'/storage/v1/b/([^/]+)', path):
      there = match[1] == BUCKET
      self._answer(200, {'name': match[1]}) if there else self._error(404, 'no such bucket')
    else:
      self._error(404, path)

  def _get(self, key: tuple[str, str], query: dict[str, str]) -> None:
    if key not in self.store.objects:
      self._error(404, f'No such object: {key}')
      return
    if status := self.store.fails(key, query):
      self._answer(status)
      return
    content, generation = self.store.objects[key]
    if query.get('alt') != 'media':
      self._answer(200, self.store.describe(key))
      return
    headers = {'x_goog_generation': str(generation), 'Content-Type': 'application/octet-stream'}
    if match := re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', '')):
      first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
      if first >= len(content):
        self._answer(416, **headers)
        return
      headers['Content_Range'] = f'bytes {first}-{last}/{len(content)}'
      self._answer(206, content[first : last + 1], **headers)
    else:
      self._answer(200, content, **headers)

  def do_POST(self) -> None:
    path, query = self._parse()
    body = self._body()
    if match := re.fullmatch(r'/upload/storage/v1/b/([^/]+)/o', path):
      self._upload(urllib.parse.unquote(match[1]), query, body)
    elif path == '/upload/resumable':
      last = not self.headers['Content-Range'].endswith('*')
      length, done = self.store.go_on(query['upload_id'], body, last)
      self._answer(200, done) if done else self._answer(308, Range=f'bytes=0-{length - 1}')
    elif match := re.fullmatch(r'/storage/v1/b/([^/]+)/o/(.+)/rewriteTo/b/([^/]+)/o/(.+)', path):
      bucket, name, to_bucket, to_name = map(urllib.parse.unquote, match.groups())
      if (bucket, name) not in self.store.objects:
        self._error(404, name)
        return
      content, _ = self.store.objects[bucket, name]
      self._answer(200, {'done': True, 'resource': self.store.put((to_bucket, to_name), content)})
    elif match := re.fullmatch(r'/storage/v1/b/([^/]+)/o/(.+)/moveTo/o/(.+)', path):
      bucket, name, to_name = map(urllib.parse.unquote, match.groups())
      if (bucket, name) not in self.store.objects:
        self._error(404, name)
        return
      content, _ = self.store.objects.pop((bucket, name))
      self._answer(200, self.store.put((bucket, to_name), content))
    elif path.startswith('/batch/'):
      self._batch(body.decode())
    else:
      self._error(404, path)

  do_PUT = do_POST

  def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
    if bucket != BUCKET:
      self._error(404, 'no such bucket')
      return
    kind, name = query['uploadType'], query.get('name')
    if kind == 'multipart':  # the description of the object, and its content
      boundary = b'--' + re.search('boundary="?([^";]+)', self.headers['Content-Type'])[1].encode()
      _, head, rest = body.split(boundary, 2)
      name = json.loads(re.split(b'\r?\n\r?\n', head, maxsplit=1)[1])['name']
      content = re.split(b'\r?\n\r?\n', rest, maxsplit=1)[1]
      body = re.sub(b'\r?\n$', b'', content[: content.rindex(boundary)])
    elif kind == 'resumable':
      self._answer(200, Location=self.store.begin_upload((bucket, name)))
      return
    written = self.store.put((bucket, name), body, query)
    if isinstance(written, int):
      self._error(written, 'conditionNotMet')
      return
    self._answer(200, written)

  def _batch(self, body: str) -> None:
    answers = []
    for bucket, name in re.findall(r'DELETE /storage/v1/b/([^/]+)/o/(\S+?)(?:\?\S*)? HTTP', body):
      key = urllib.parse.unquote(bucket), urllib.parse.unquote(name)
      there = self.store.objects.pop(key, None)
      answers.append(f'HTTP/1.1 {204 if there else 404}\r\n\r\n')
    parts = ''.join(f'--batch\r\nContent-Type: application/http\r\n\r\n{a}' for a in answers)
    self._answer(200, f'{parts}--batch--'.encode(), Content_Type='multipart/mixed; boundary=batch')

  def do_DELETE(self) -> None:
    path, query = self._parse()
    match = re.fullmatch(r'/storage/v1/b/([^/]+)/o/(.+)', path)
    key = tuple(map(urllib.parse.unquote, match.groups()))
    if key not in self.store.objects:
      self._error(404, f'No such object: {key}')
    elif status := self.store.fails(key, query):
      self._error(status, 'conditionNotMet')
    else:
      self.store.objects.pop(key, None)
      self._answer(204)
