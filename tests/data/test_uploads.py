"""Photos of a reader: uploads that are none, names, zips; and the samples that stand in."""

import io
import pathlib
import zipfile

import numpy as np
import pytest

from senet_jax.data import image_folder, samples, uploads
from tests.helpers import fake_colab
from tests.helpers.encoded import encoded


def photo(kind='JPEG') -> bytes:
  return encoded(np.full((8, 8, 3), 90, np.uint8), kind)


def zipped(compression=zipfile.ZIP_STORED, **files) -> bytes:
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, 'w', compression) as archive:
    for name, data in files.items():
      archive.writestr(name, data)
  return buffer.getvalue()


def damaged(compression: int) -> bytes:
  """A zip of one photo whose compressed bytes are not what the compressor wrote."""
  whole = zipped(compression, **{'cat/1.jpg': photo()})
  start = 30 + len('cat/1.jpg')
  return whole[:start] + b'\xff' * 40 + whole[start + 40 :]


def stored(folder: pathlib.Path) -> list[str]:
  return sorted(str(p.relative_to(folder)) for p in folder.rglob('*') if p.is_file())


def test_classes_come_from_names(tmp_path):
  names = ['cat 1.jpg', 'cat (2).jpg', 'cat3.JPG', 'black cat_4.jpg', 'dog-5.jpg', 'dog.jpg']
  assert uploads.store(dict.fromkeys(names, photo()), tmp_path) == 6
  assert stored(tmp_path) == sorted([
    'cat/cat 1.jpg', 'cat/cat (2).jpg', 'cat/cat3.JPG', 'black cat/black cat_4.jpg',
    'dog/dog-5.jpg', 'dog/dog.jpg',
  ])  # fmt: skip


def test_classes_come_from_folders_of_a_zip_which_cannot_leave_the_directory(tmp_path):
  whole = zipped(**{
    'pets/cat/1.jpg': photo(), 'pets/dog/2.png': photo('PNG'), '../../evil/3.jpg': photo(),
    '/etc/4.jpg': photo(), 'a\\b\\5.jpg': photo(), '__MACOSX/cat/._1.jpg': b'x',
  })  # fmt: skip
  folder = tmp_path / 'in' / 'photos'
  uploads.store({'pets.zip': whole, '../6.jpg': photo()}, folder)
  assert {'cat/1.jpg', 'dog/2.png'} <= set(stored(folder))
  assert stored(tmp_path) == [f'in/photos/{name}' for name in stored(folder)]


@pytest.mark.parametrize(
  ('name', 'data', 'reason'),
  [
    ('notes.txt', b'hello', 'notes.txt is left out: '),
    ('cat 1.jpg', photo()[:200], 'cat 1.jpg is left out: '),
    ('cat 1.jpg', b'', 'cat 1.jpg is left out: '),
    ('cat 1', photo(), 'call it CLASS NUMBER.jpg'),
    ('1.jpg', photo(), 'call it CLASS NUMBER.jpg'),
    ('..', photo(), 'call it CLASS NUMBER.jpg'),
    ('cut.zip', zipped(**{'cat/1.jpg': photo()})[:-40] + b'PK\5\6' + bytes(18), ''),
    ('bad.zip', damaged(zipfile.ZIP_DEFLATED), 'bad.zip, or the rest of it, is left out: '),
    ('bad.zip', damaged(zipfile.ZIP_BZIP2), 'bad.zip, or the rest of it, is left out: '),
    ('bad.zip', damaged(zipfile.ZIP_LZMA), 'bad.zip, or the rest of it, is left out: '),
  ],
)
def test_what_is_no_photo_is_one_line(tmp_path, capsys, name, data, reason):
  assert uploads.store({name: data}, tmp_path / 'photos') == 0
  said = capsys.readouterr().out
  assert reason in said and said.count('\n') == bool(reason)
  assert not (tmp_path / 'photos').exists()


def test_photos_are_uploaded_on_colab(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  fake_colab.install(monkeypatch, uploaded={'cat 1.jpg': photo(), 'dog 1.jpg': photo()})
  assert uploads.own_photos() == pathlib.Path('photos')
  assert stored(tmp_path / 'photos') == ['cat/cat 1.jpg', 'dog/dog 1.jpg']
  assert not capsys.readouterr().out


def test_samples_stand_in_and_share_no_pixel(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  folder = uploads.own_photos()
  assert 'no photos of yours in photos/' in capsys.readouterr().out
  found = image_folder.scan(folder)
  assert found.classes == ('flower', 'leaves', 'sky', 'temple', 'trees')
  assert {k: len(v.paths) for k, v in found.splits.items()} == {'train': 200, 'val': 100}
  for part in samples.photos().values():
    a, b = samples.halves(part)
    assert a.width + b.width <= part.width or a.height + b.height <= part.height
