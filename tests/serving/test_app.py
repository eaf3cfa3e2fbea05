"""The page and its API: answers, refusals, limits, and that nothing comes from elsewhere."""

import asyncio
import dataclasses
import functools
import json
import re
import struct
import tempfile
import threading
import time
import zlib

import httpx2
import jax
import numpy as np
import pytest

import senet_jax
from senet_jax.errors import UserError
from senet_jax.layers import excitations
from senet_jax.serving import app as app_lib, mean_gates
from senet_jax.serving.classifier import Classifier
from senet_jax.serving.guard import Guard
from senet_jax.serving.limits import Limits
from tests.helpers.encoded import encoded
from tests.helpers.paths import ROOT

NAME = 'se_resnet20_cifar10'
LIMITS = Limits(bytes=2**20)
PAGE = ROOT / 'senet_jax' / 'serving' / 'page'


@pytest.fixture(scope='module')
def classifier():
  with Classifier(senet_jax.load(NAME, batch_size=8), largest=16) as found:
    yield found


@pytest.fixture(scope='module')
def unguarded(classifier):
  return app_lib.create_app(classifier, NAME, LIMITS)


@pytest.fixture(scope='module')
def app(unguarded):
  return Guard(unguarded, LIMITS)


@pytest.fixture(scope='module')
def photos():
  """Twenty of different sizes, as PNG."""
  rng = np.random.default_rng(0)
  return [
    encoded(rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(8 + i, 0).repeat(12, 1))
    for i in range(20)
  ]


def together(app, *requests, host='127.0.0.1:8000'):
  """The responses to requests that come at once: `(method, path, options)`."""

  async def run():
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=f'http://{host}') as client:
      return await asyncio.gather(*(client.request(m, p, **o) for m, p, o in requests))

  return asyncio.run(run())


def get(app, path, **options):
  return together(app, ('GET', path, options))[0]


def predict(app, photo, query='', **options):
  return together(app, ('POST', f'/api/predict{query}', {'content': photo, **options}))[0]


def refused(response, status: int) -> str:
  assert response.status_code == status, response.text
  assert response.headers['content-type'] == 'application/json'
  (error,) = response.json().values()
  assert response.json() == {'error': error} and error and '\n' not in error
  return error


# --- answers --------------------------------------------------------------------------------------


def test_predictions_are_those_of_the_predictor(app, classifier, photos):
  found = predict(app, photos[0], '?top_k=99').json()
  [expected] = classifier.predictor.top_k(photos[0], 10)
  assert [p['label'] for p in found['predictions']] == [p.label for p in expected]
  for p, q in zip(found['predictions'], expected, strict=True):
    assert p['name'] == q.name and p['probability'] == pytest.approx(q.probability, rel=1e-4)
  assert found['gates'] is None
  assert len(predict(app, photos[0]).json()['predictions']) == 5


def test_gates_are_those_of_the_network(app, classifier, photos):
  found = predict(app, photos[1], '?gates=true').json()['gates']
  predictor = classifier.predictor
  inputs = predictor.preprocessing.to_input(predictor.read(photos[1])[None])
  apply = functools.partial(predictor.model.apply, train=False, mutable=['intermediates'])
  _, state = jax.jit(apply)(predictor.variables, inputs)
  expected = excitations(state['intermediates'])
  assert [row['block'] for row in found] == list(expected)
  for row in found:
    np.testing.assert_allclose(row['values'], expected[row['block']][0], atol=2e-4)


def test_a_form_is_as_good_as_a_body(app, photos):
  for files in ({'photo': photos[2]}, {'anything': ('a.png', photos[2], 'text/html')}):
    form = predict(app, None, files=files)
    assert form.json() == predict(app, photos[2]).json()


def test_a_hundred_at_once(app, classifier, photos, monkeypatch):
  sizes, run = [], classifier._run
  monkeypatch.setattr(classifier, '_run', lambda batch: sizes.append(len(batch)) or run(batch))
  alone = classifier.predictor.probabilities(photos)
  requests = [('POST', '/api/predict?top_k=10', {'content': photos[i % 20]}) for i in range(100)]
  for i, response in enumerate(together(app, *requests)):
    assert response.status_code == 200
    row = {p['label']: p['probability'] for p in response.json()['predictions']}
    np.testing.assert_allclose([row[k] for k in range(10)], alone[i % 20], rtol=1e-3, atol=1e-5)
  assert sum(sizes) == 100 and max(sizes) <= 16 and len(sizes) < 100


def test_one_who_leaves_is_left_out_and_disturbs_nobody(classifier, photos, monkeypatch):
  sizes, run = [], classifier._run
  monkeypatch.setattr(classifier, '_run', lambda batch: sizes.append(len(batch)) or run(batch))
  free = threading.Event()
  classifier._device.submit(free.wait)  # it is busy

  async def leave(count):
    asked = [asyncio.ensure_future(classifier.answer(photos[i])) for i in range(3)]
    while classifier._open is None or len(classifier._open.images) < 3:
      await asyncio.sleep(0.01)
    for one in asked[:count]:
      one.cancel()
    await asyncio.sleep(0)
    free.set()
    return await asyncio.gather(*asked, return_exceptions=True)

  found = asyncio.run(leave(2))
  assert sizes == [1] and all(isinstance(x, asyncio.CancelledError) for x in found[:2])
  expected = classifier.predictor.probabilities(photos[2])[0]
  np.testing.assert_allclose(found[2].probabilities, expected, rtol=1e-3, atol=1e-5)
  free.clear()
  classifier._device.submit(free.wait)
  asyncio.run(leave(3))
  classifier._device.submit(lambda: None).result(20)
  assert sizes == [1]  # for nobody, nothing


def test_what_the_network_is(app, classifier):
  found = get(app, '/api/model').json()
  count = sum(x.size for x in jax.tree.leaves(classifier.predictor.variables['params']))
  assert found['parameters'] == count == 272_095
  assert found['classes'] == list(classifier.predictor.class_names)
  assert found['preprocessing']['image_size'] == 32 and found['mean_gates'] is None
  assert found['max_bytes'] == LIMITS.bytes and found['max_seconds'] == LIMITS.seconds


def test_a_network_without_se(photos):
  predictor = senet_jax.load(NAME, batch_size=8)
  model = predictor.model.clone(depths=(1, 1, 1), se=None)
  image = np.zeros((1, 32, 32, 3), np.float32)
  variables = jax.jit(lambda: model.init(jax.random.key(0), image, train=False))()
  plain = dataclasses.replace(predictor, model=model, variables=variables)
  with Classifier(plain, 8) as classifier:
    assert classifier.blocks == {} and classifier.batch_sizes == (8,)
    app = app_lib.create_app(classifier, 'plain', LIMITS)
    found = predict(app, photos[0], '?gates=true').json()
  assert found['gates'] == [] and len(found['predictions']) == 5


# --- refusals -------------------------------------------------------------------------------------


def bomb() -> bytes:
  """A PNG of 3.6 gigapixels in a few bytes."""

  def chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))

  header = struct.pack('>IIBBBBB', 60_000, 60_000, 8, 0, 0, 0, 0)
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'\0' * 999))


@pytest.mark.parametrize(
  ('photo', 'message'),
  [
    (b'', 'the file is empty'),
    (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', 'no JPEG, PNG'),
    (b'<!doctype html><script>alert(1)</script>', 'no JPEG, PNG'),
    (b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'no JPEG, PNG'),
    (bomb(), 'pixels'),
    (b'\xff\xd8\xff', 'the photo is unreadable'),
  ],
  ids=['empty', 'svg', 'html', 'eps', 'bomb', 'three_bytes'],
)
def test_what_is_no_photo(app, photo, message):
  error = refused(predict(app, photo), 400)
  assert message in error and '<' not in error


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP'])
def test_a_truncated_photo(app, kind):
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  whole = encoded(noise, kind)
  assert predict(app, whole).status_code == 200
  assert 'unreadable' in refused(predict(app, whole[: len(whole) // 2]), 400)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'content': b'x', 'headers': {'content-type': 'multipart/form-data'}}, 'Missing boundary'),
    ({'content': b'x', 'headers': {'content-type': 'multipart/form-data; boundary=y'}}, 'damaged'),
    ({'files': {'a': b'1', 'b': b'2'}}, 'Too many files'),
    ({'files': {'photo': (None, 'text')}}, 'the form has no file'),
  ],
)
def test_what_is_no_form(app, options, message):
  assert message in refused(predict(app, **{'photo': None, **options}), 400)


def test_what_is_not_there(app, photos):
  assert 'top_k' in refused(predict(app, photos[0], '?top_k=0'), 422)
  assert 'gates' in refused(predict(app, photos[0], '?gates=perhaps'), 422)
  refused(get(app, '/api/nothing'), 404)
  refused(get(app, '/api/predict'), 405)
  refused(get(app, '/static/..%2fapp.py'), 404)


def test_fifty_megabytes(app):
  assert '1 MB' in refused(predict(app, bytes(50 * 2**20)), 413)
  sent = 0

  async def unannounced():
    nonlocal sent
    for _ in range(800):
      sent += 2**16
      yield bytes(2**16)

  for headers in ({}, {'content-type': 'multipart/form-data; boundary=x'}):
    sent = 0
    response = predict(app, unannounced(), headers=headers)
    assert response.status_code in (400, 413) and list(response.json()) == ['error']
    assert sent < 2 * LIMITS.bytes


def test_nothing_goes_to_the_disk(app, monkeypatch):
  def rollover(self):
    raise AssertionError('a photo was written to the disk')

  monkeypatch.setattr(tempfile.SpooledTemporaryFile, 'rollover', rollover)
  noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), np.uint8)
  photo = encoded(noise)
  assert predict(app, None, files={'photo': photo + bytes(LIMITS.bytes - len(photo))}).is_success


@pytest.mark.parametrize(
  ('host', 'local', 'status'),
  [
    ('localhost:8000', True, 200),
    ('LOCALHOST', True, 200),
    ('127.0.0.1', True, 200),
    ('[::1]:8000', True, 200),
    ('demo.example.org', True, 200),  # allowed
    ('evil.example', True, 400),
    ('localhost.evil.example', True, 400),
    ('127.0.0.1.evil.example', False, 400),
    ('192.168.1.9', True, 400),
    ('192.168.1.9:8000', False, 200),
    ('[::1', True, 400),
    ('', True, 400),
  ],
)
def test_hosts(unguarded, host, local, status):
  guarded = Guard(unguarded, LIMITS, ['demo.example.org'], local)
  response = get(guarded, '/api/model', headers={'host': host})
  assert response.status_code == status
  if status != 200:
    refused(response, 400)


def test_pages_of_other_sites_may_not_ask(app, photos):
  for origin, status in (
    ('http://127.0.0.1:8000', 200),
    ('https://evil.example', 403),
    ('null', 403),
  ):
    response = predict(app, photos[0], headers={'origin': origin})
    assert response.status_code == status
    assert not any(name.startswith('access-control') for name in response.headers)
  # What browsers ask before they send what is not plain.
  refused(together(app, ('OPTIONS', '/api/predict', {'headers': {'origin': 'null'}}))[0], 403)


class Slow:
  """A classifier that takes its time, and then fails."""

  def __init__(self, predictor):
    self.predictor, self.blocks = predictor, {}

  async def answer(self, photo):
    await asyncio.sleep(float(photo))
    raise RuntimeError('of the device, with a secret')


def test_limits_of_number_and_time(classifier):
  limits = Limits(requests=2, seconds=0.3)
  app = Guard(app_lib.create_app(Slow(classifier.predictor), NAME, limits), limits)
  start = time.monotonic()
  ask = lambda photo: ('POST', '/api/predict', {'content': photo})  # noqa: E731
  first, second, third = together(app, ask(b'20'), ask(b'20'), ask(b'20'))
  assert time.monotonic() - start < 10
  assert 'no answer within 0.3 s' in refused(first, 503) == refused(second, 503)
  assert 'too many requests' in refused(third, 503) and third.headers['retry-after'] == '1'
  assert get(app, '/api/model').status_code == 200  # there is room again

  async def slowly():
    yield b'0'
    await asyncio.sleep(20)

  assert 'no answer within' in refused(predict(app, slowly()), 503)


def test_a_fault_tells_nothing(classifier):
  app = Guard(app_lib.create_app(Slow(classifier.predictor), NAME, LIMITS), LIMITS)
  error = refused(predict(app, b'0'), 500)
  assert 'secret' not in error and 'RuntimeError' not in error


def test_a_network_that_gives_no_numbers(classifier, monkeypatch):
  predictor = classifier.predictor
  variables = jax.tree.map(lambda x: x * np.nan, predictor.variables)
  monkeypatch.setattr(classifier, 'predictor', dataclasses.replace(predictor, variables=variables))
  with pytest.raises(UserError, match='the network outputs NaN or infinity'):  # as at the start
    classifier._run([np.zeros((32, 32, 3), np.uint8)])


# --- the page -------------------------------------------------------------------------------------


def test_every_response_has_strict_headers(app, photos):
  responses = [get(app, path) for path in ('/', '/docs', '/static/main.js', '/api/model', '/no')]
  responses += [predict(app, photos[0]), get(app, '/', headers={'host': 'evil.example'})]
  for response in responses:
    policy = response.headers['content-security-policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy and 'http' not in policy
    assert response.headers['x-content-type-options'] == 'nosniff'
    assert response.headers['cache-control'] == 'no-store'


@pytest.mark.parametrize('page', ['/', '/docs'])
def test_all_of_a_page_is_here(app, page):
  response = get(app, page)
  assert response.headers['content-type'].startswith('text/html')
  for link in re.findall(r'(?:src|href)="([^"]+)"', response.text):
    assert link.startswith('/') and not link.startswith('//')
    assert get(app, link).status_code == 200, link
  assert not re.search(r'<script(?![^>]*src=)|<style|\sstyle=|\son\w+=', response.text)


def test_assets_load_nothing_from_elsewhere():
  for path in PAGE.iterdir():
    text = path.read_text().replace('http://www.w3.org/2000/svg', '')
    assert not re.search(r'https?://|@import|url\(|//\w+\.', text), path.name


def test_the_description_of_the_api(app):
  found = get(app, '/openapi.json').json()
  assert found['openapi'].startswith('3.') and set(found['paths']) == {'/api/model', '/api/predict'}
  body = found['paths']['/api/predict']['post']['requestBody']['content']
  assert set(body) == {'application/octet-stream', 'multipart/form-data'}
  schemas = found['components']['schemas']
  for name in re.findall(r'#/components/schemas/(\w+)', get(app, '/openapi.json').text):
    assert name in schemas
  assert 'HTTPValidationError' not in schemas


# --- mean gates -----------------------------------------------------------------------------------


def test_mean_gates(classifier, tmp_path):
  blocks = classifier.blocks
  means = {f'{name}/all_mean': np.full(n, 0.5) for name, n in blocks.items()}
  path = tmp_path / 'activations.npz'
  np.savez(path, **means, labels=np.arange(3))
  found = mean_gates.read(path, blocks)
  assert list(found) == list(blocks)
  app = app_lib.create_app(classifier, NAME, LIMITS, found)
  shown = get(app, '/api/model').json()['mean_gates']
  assert [(row['block'], len(row['values'])) for row in shown] == list(blocks.items())
  first = next(iter(means))
  for value in (np.full(3, 0.5), np.full(blocks['SE_2_1'], np.nan), np.array(['x'])):
    np.savez(path, **{**means, first: value})
    with pytest.raises(UserError, match=r'--mean_gates=.* has'):
      mean_gates.read(path, blocks)
  with pytest.raises(UserError, match='no SE blocks'):
    mean_gates.read(path, {})
  path.write_bytes(b'no archive')
  with pytest.raises(UserError, match='damaged'):
    mean_gates.read(path, blocks)
  with pytest.raises(UserError, match=r'must end in \.npz'):
    mean_gates.read(tmp_path / 'a.pth', blocks)


def test_mean_gates_of_the_network_in_the_package(classifier, photos):
  found = mean_gates.read(mean_gates.of_shipped(NAME), classifier.blocks)
  record = json.loads((ROOT / f'results/activations/{NAME}/separation.json').read_text())
  for block, values in found.items():  # 10,000 images here, 500 there
    assert values.mean() == pytest.approx(record['blocks'][block]['mean'], abs=0.01)
  assert mean_gates.of_shipped('runs/x') is None
