"""COCO's archives: downloaded, compared, unpacked."""

import dataclasses
import hashlib
import http.server
import io
import re
import threading
import zipfile

import pytest

from senet_jax.data import coco_files, prepare
from senet_jax.errors import UserError
from senet_jax.tools import prepare_data

FILES = {
  'annotations': {
    'annotations/instances_train2017.json': b'{}', 'annotations/instances_val2017.json': b'[]',
    'annotations/captions_val2017.json': b'not wanted',
  },
  'val2017': {'val2017/000000000139.jpg': b'v1'},
  'train2017': {
    'train2017/': b'', 'train2017/000000000009.jpg': b't1',
    'train2017/000000000025.jpg': b't2' * 5000,
  },
}  # fmt: skip
COUNTS = {'annotations': 2, 'val2017': 1, 'train2017': 2}
UNPACKED = {name for files in FILES.values() for name in files if 'capt' not in name} - {
  'train2017/'
}


def zipped(files) -> bytes:
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w') as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  return content.getvalue()


@pytest.fixture
def contents(monkeypatch):
  """Small archives in the place of the official ones, by their paths on the site."""
  found, archives = {}, []
  for archive in coco_files.ARCHIVES:
    content = found[archive.path] = zipped(FILES[archive.folder])
    archives.append(
      dataclasses.replace(
        archive,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        count=COUNTS[archive.folder],
      )
    )
  monkeypatch.setattr(coco_files, 'ARCHIVES', tuple(archives))
  return found


@pytest.fixture
def source(contents, tmp_path):
  folder = tmp_path / 'source'
  folder.mkdir()
  for path, content in contents.items():
    (folder / path.rpartition('/')[2]).write_bytes(content)
  return folder


@pytest.fixture
def site(contents, monkeypatch):
  """A server of the archives, with a list of the ranges that were asked for.

  `cut`: bytes after which a reply ends; `parts`: whether it knows ranges.
  """

  class Handler(http.server.BaseHTTPRequestHandler):
    asked, cut, parts = [], None, True

    def do_GET(self):
      content = contents[self.path[1:]]
      first = re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range', ''))
      self.asked.append((self.path.rpartition('/')[2], int(first[1]) if first else 0))
      partial = first and self.parts
      content = content[int(first[1]) :] if partial else content
      self.send_response(206 if partial else 200)
      self.send_header('Content-Length', str(len(content)))
      self.end_headers()
      self.wfile.write(content[: self.cut])

    def log_message(self, *_):
      pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  monkeypatch.setattr(coco_files, 'SITE', f'http://127.0.0.1:{server.server_port}/')
  yield Handler
  server.shutdown()
  server.server_close()


def files_in(folder):
  return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_archives_become_folders(source, tmp_path, capsys):
  data = tmp_path / 'data'
  prepare_data.main([f'--source={source}', f'--data_dir={data}', '--dataset=coco'])
  assert files_in(data / 'coco') == UNPACKED
  assert (data / 'coco/train2017/000000000025.jpg').read_bytes() == b't2' * 5000
  out = capsys.readouterr().out
  assert f'{data}/coco\ntrain: 2 examples\nvalidation: 1 examples\n80 classes, jpg files' in out
  # What is there stays, and needs no archive.
  prepare.prepare('coco', data, tmp_path / 'nowhere')


def test_a_download_goes_on_where_it_ended(site, tmp_path):
  site.cut = 1000  # which is less than the last one has
  with pytest.raises(UserError, match=r'train2017\.zip ended after 1,000 of .* goes on there'):
    prepare.prepare('coco', tmp_path, 'download')
  site.cut = None
  prepare.prepare('coco', tmp_path, 'download')
  assert files_in(tmp_path / 'coco') == UNPACKED
  names = [archive.file for archive in coco_files.ARCHIVES]
  assert site.asked == [*((name, 0) for name in names), (names[-1], 1000)]
  assert not (tmp_path / 'coco/.downloads').exists()


def test_a_server_without_ranges_sends_all_again(site, tmp_path):
  downloads = tmp_path / 'coco/.downloads'
  downloads.mkdir(parents=True)
  (downloads / 'val2017.zip').write_bytes(b'begun')
  site.parts = False
  prepare.prepare('coco', tmp_path, 'download')
  assert files_in(tmp_path / 'coco') == UNPACKED


def test_what_is_downloaded_is_compared(site, contents, tmp_path):
  path = next(path for path in contents if 'val2017.zip' in path and 'annot' not in path)
  right = contents[path]
  contents[path] = right[:-1] + b'?'
  with pytest.raises(UserError, match=r'val2017\.zip is not the official file of .* SHA-256'):
    prepare.prepare('coco', tmp_path, 'download')
  contents[path] = right
  prepare.prepare('coco', tmp_path, 'download')  # the wrong one is gone
  assert files_in(tmp_path / 'coco') == UNPACKED


def test_without_a_network(contents, monkeypatch, tmp_path):
  monkeypatch.setattr(coco_files, 'SITE', 'http://127.0.0.1:9/')
  with pytest.raises(UserError, match=r'cannot be downloaded: .*refused.*--source=DIR'):
    prepare.prepare('coco', tmp_path, 'download')


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({}, 'coco needs annotations_trainval2017.zip, val2017.zip, train2017.zip'),
    ({'source': 'nowhere'}, r'nowhere/annotations_trainval2017\.zip is missing: coco needs'),
    ({'source': 'download', 'overwrite': True}, 'overwrite, arrays_only and file_format are not'),
    ({'source': 'download', 'arrays_only': True}, 'overwrite, arrays_only and file_format are not'),
    ({'source': 'download', 'val_fraction': 0.5}, r'val_fraction=0\.5 is not for coco'),
  ],
)
def test_options_that_are_not_for_it(contents, tmp_path, options, message):
  with pytest.raises(UserError, match=message):
    prepare.prepare('coco', tmp_path, **options)


def test_a_part_of_the_archives(source, tmp_path):
  (source / 'train2017.zip').unlink()
  with pytest.raises(UserError, match=r'train2017\.zip is missing'):
    prepare.prepare('coco', tmp_path / 'data', source)
  prepare.prepare('coco', tmp_path / 'data', source, partial=True)
  assert {p.name for p in (tmp_path / 'data/coco').iterdir()} == {'annotations', 'val2017'}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'truncated or damaged'),
    (zipped(FILES['val2017'])[:-30], 'truncated or damaged'),
    (zipped({'val2017/1.jpg': b'abc' * 99}).replace(b'abcabc', b'abcabd', 1), 'damaged.*CRC'),
    (zipped({'val2017/../../1.jpg': b'', '/val2017/1.jpg': b'', 'val2017/a/1.jpg': b''}),
     'has 0 files of val2017/'),
  ],
)  # fmt: skip
def test_a_damaged_or_hostile_archive_leaves_nothing(source, tmp_path, content, message):
  (source / 'val2017.zip').write_bytes(content)
  data = tmp_path / 'data'
  with pytest.raises(UserError, match=message) as refusal:
    prepare.prepare('coco', data, source, partial=True)
  assert '\n' not in str(refusal.value)
  assert {p.name for p in (data / 'coco').iterdir()} == {'annotations'}
  assert not list(tmp_path.rglob('1.jpg'))


def test_a_name_twice(source, tmp_path):
  with zipfile.ZipFile(source / 'val2017.zip', 'w') as archive:
    archive.writestr('val2017/1.jpg', b'a')
    with pytest.warns(UserWarning, match='Duplicate name'):
      archive.writestr('val2017/1.jpg', b'b')
  with pytest.raises(UserError, match=r'damaged.*exists'):
    prepare.prepare('coco', tmp_path / 'data', source, partial=True)


def test_a_full_disk(source, tmp_path, monkeypatch):
  usage = type('Usage', (), {'free': 10})
  monkeypatch.setattr(coco_files.official.shutil, 'disk_usage', lambda place: usage)
  with pytest.raises(UserError, match=r'has 0\.0 GB free, coco needs'):
    prepare.prepare('coco', tmp_path / 'data', source)
