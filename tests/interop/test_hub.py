"""Networks of the Hugging Face hub by name, from a small server in its place."""

import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import senet_jax
from senet_jax.errors import UserError
from senet_jax.interop import mapping, shipped, storage
from tests.helpers.paths import ROOT

pytest.importorskip('huggingface_hub')

COMMIT = '0123456789abcdef0123456789abcdef01234567'
REPOSITORY = 'somebody/seresnet18.a1_in1k'

# What a user does, in a process of its own: the library reads its settings once.
SCRIPT = """
import json, sys
import huggingface_hub
import senet_jax
from senet_jax.errors import UserError
from senet_jax.tools import convert
results = {}
for name in sys.argv[2:]:
  if name == 'offline':
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    continue
  try:
    network = senet_jax.load(name, batch_size=1)
    results[name] = [network.config.model.name, network.preprocessing.resize,
                     network.preprocessing.interpolation, list(network.class_names)]
  except UserError as error:
    results[name] = str(error)
convert.main([f'--from={sys.argv[2]}', f'--to={sys.argv[1]}/run'])
print(json.dumps(results))
"""


class Hub(http.server.BaseHTTPRequestHandler):
  """Answers as the hub does for one repository of timm, with one revision beside `main`."""

  files: dict[str, bytes]

  def do_HEAD(self):
    self.answer(body=False)

  def do_GET(self):
    self.answer(body=True)

  def answer(self, body):
    owner, name, _, revision, file = self.path.strip('/').split('/')
    repository = f'{owner}/{name}'
    found = {
      'somebody/private': (401, 'RepoNotFound'), 'somebody/gated': (403, 'GatedRepo'),
    }.get(repository)  # fmt: skip
    if found is None and repository != REPOSITORY:
      found = 404, 'RepoNotFound'
    if found is None and revision not in ('main', 'v2', COMMIT):
      found = 404, 'RevisionNotFound'
    if found is None and file not in self.files:
      found = 404, 'EntryNotFound'
    status, error = found or (200, None)
    self.send_response(status)
    content = self.files.get(file, b'') if status == 200 else b''
    if error:
      self.send_header('X-Error-Code', error)
    self.send_header('X-Repo-Commit', COMMIT)
    self.send_header('ETag', f'"{abs(hash(content)):x}"')
    self.send_header('Content-Length', str(len(content)))
    self.end_headers()
    if body:
      self.wfile.write(content)

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serving(files):
  handler = type('Handler', (Hub,), {'files': files})
  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield f'http://127.0.0.1:{server.server_port}'
  finally:
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
  folder = tmp_path_factory.mktemp('hub')
  rng = np.random.default_rng(0)
  arrays = {
    e.name: rng.uniform(0.1, 0.2, e.shape).astype(np.float32)
    for e in mapping.entries('timm:seresnet18', 3)
  }
  storage.write_safetensors(folder / 'model.safetensors', arrays, {'format': 'pt'})
  config = {
    'architecture': 'seresnet18', 'num_classes': 3, 'label_names': ['ant', 'bee', 'cow'],
    'pretrained_cfg': {'input_size': [3, 64, 64], 'crop_pct': 0.8, 'interpolation': 'bicubic'},
  }  # fmt: skip
  files = {
    'model.safetensors': (folder / 'model.safetensors').read_bytes(),
    'config.json': json.dumps(config).encode(),
  }
  names = [f'hf:{REPOSITORY}', f'hf:{REPOSITORY}@v2', f'hf:{REPOSITORY}@v3', 'hf:somebody/none',
           'hf:somebody/private', 'hf:somebody/gated', 'hf:no/name/at/all', 'offline',
           f'hf:{REPOSITORY}@{COMMIT}', 'hf:somebody/uncached']  # fmt: skip
  with serving(files) as address:
    done = subprocess.run(
      [sys.executable, '-c', SCRIPT, str(folder), *names], capture_output=True, text=True,
      cwd=ROOT, check=False, timeout=500,
      env={**os.environ, 'HF_ENDPOINT': address, 'HF_HOME': str(folder / 'home'),
           'HF_HUB_DISABLE_PROGRESS_BARS': '1', 'JAX_PLATFORMS': 'cpu', 'NO_PROXY': '127.0.0.1'},
    )  # fmt: skip
  assert done.returncode == 0, done.stderr[-2000:]
  return json.loads(done.stdout.splitlines()[-1]), done.stdout


def test_configuration_and_weights(results):
  found, out = results
  expected = ['se_resnet18', 80, 'bicubic', ['ant', 'bee', 'cow']]
  for name in (f'hf:{REPOSITORY}', f'hf:{REPOSITORY}@v2', f'hf:{REPOSITORY}@{COMMIT}'):
    assert found[name] == expected
  assert f'from hf:{REPOSITORY} (timm:seresnet18): written to' in out
  assert 'the file says that it is seresnet18' in out


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    (f'hf:{REPOSITORY}@v3', 'no such revision; check what follows @'),
    ('hf:somebody/none', 'there is no such repository on the hub, or it is private'),
    ('hf:somebody/private', 'there is no such repository on the hub, or it is private'),
    ('hf:somebody/gated', 'not open to all; accept its terms'),
    ('hf:no/name/at/all', 'no name of a repository; give hf:OWNER/REPO'),
    ('hf:somebody/uncached', 'not in the cache, and the hub cannot be reached'),
  ],
)
def test_what_goes_wrong_is_one_line(results, name, message):
  assert message in results[0][name] and '\n' not in results[0][name]


# --- in the package -------------------------------------------------------------------------------


def test_networks_in_the_package(tmp_path, monkeypatch):
  assert senet_jax.list_pretrained() == sorted(json.loads(
    (ROOT / 'senet_jax' / 'pretrained' / 'index.json').read_text()
  ))  # fmt: skip
  arrays = {
    e.name: np.full(e.shape, 0.1, np.float32) for e in mapping.entries('akamaster:resnet20', 10)
  }
  monkeypatch.setattr(shipped, 'folder', lambda: tmp_path)
  path = tmp_path / 'small.safetensors'
  storage.write_safetensors(path, arrays, {})
  import hashlib

  checksum = hashlib.sha256(path.read_bytes()).hexdigest()
  (tmp_path / 'index.json').write_text(json.dumps({'small': {'sha256': checksum}}))
  assert senet_jax.list_pretrained() == ['small']
  assert senet_jax.load('small').class_names[0] == 'airplane'
  path.write_bytes(path.read_bytes() + b' ')
  with pytest.raises(UserError, match=r'small\.safetensors is damaged: its checksum'):
    senet_jax.load('small')
