"""Layouts and files of folders as people have them."""

import os

import numpy as np
import pytest
from PIL import Image

from senet_jax.data import image_folder, photos
from senet_jax.errors import UserError
from tests.helpers.encoded import encoded
from tests.helpers.photos import fill


@pytest.mark.parametrize(
  ('train', 'val'),
  [
    ('Train', 'Val'), ('TRAIN', 'VALIDATION'), ('training', 'valid'), ('train2017', 'val2017'),
    ('training_set', 'dev'), ('Train Images', 'eval'), ('trn', 'validation_split'),
  ],
)  # fmt: skip
def test_splits_by_other_names(train, val, tmp_path):
  fill(tmp_path, f'{train}/cat/1.jpg', f'{train}/dog/1.jpg', f'{val}/cat/2.jpg', f'{val}/dog/2.jpg')
  folder = image_folder.scan(tmp_path)
  assert folder.classes == ('cat', 'dog')
  assert folder.splits['val'].paths == [f'{val}/cat/2.jpg', f'{val}/dog/2.jpg']
  with pytest.raises(UserError, match=rf'val_fraction=0.1, but \S+ has {val}/'):
    image_folder.scan(tmp_path, 0.1)


@pytest.mark.parametrize(
  ('folders', 'message'),
  [
    (('Train', 'train', 'val'), 'has Train/ and train/; keep one'),
    (('train', 'val', 'Valid'), 'has Valid/ and val/; keep one'),
    (('Val', 'x'), 'has Val/ but no train/'),
    (('Testing', 'x'), 'has Testing/ but no train/'),
  ],
)
def test_splits_that_are_not_clear(folders, message, tmp_path):
  fill(tmp_path, *(f'{folder}/{c}/1.jpg' for folder in folders for c in 'ab'))
  with pytest.raises(UserError, match=message):
    image_folder.scan(tmp_path)


def test_what_is_left_out_is_said(tmp_path, capsys):
  kinds = ['jpg', 'JPEG', 'jpe', 'jfif', 'png', 'webp', 'gif', 'bmp', 'tif', 'TIFF', 'avif']
  fill(tmp_path, *(f'train/cat/{i}.{kind}' for i, kind in enumerate(kinds)), 'train/dog/x.jpg')
  fill(tmp_path, 'train/cat/a.heic', 'train/cat/b.HEIC', 'train/dog/notes.txt', 'train/dog/README')
  fill(tmp_path, 'train/cat/.hidden.jpg', 'train/cat/@eaDir/a.jpg', 'train/__MACOSX/cat/._a.jpg')
  fill(tmp_path, 'train/loose.jpg', 'test/cat/1.jpg', 'train/.git/x')
  os.mkfifo(tmp_path / 'train/cat/pipe.jpg')
  folder = image_folder.scan(tmp_path)
  assert len(folder.splits['train'].paths) == len(kinds) + 1
  assert folder.left_out == {
    '.heic': 2, '.txt': 1, 'without suffix': 1, 'hidden': 2, '@eaDir/': 1, '__MACOSX/': 1,
    'in no class folder': 1, 'test/': 1, 'pipe or device': 1,
  }  # fmt: skip
  assert folder.describe().startswith(f'{tmp_path}: 2 classes, train: cat 11, dog 1; left out: ')
  assert '2 .heic' in folder.describe()
  found = image_folder.find_images([str(tmp_path / 'train/cat')])
  assert len(found) == len(kinds)
  assert '11 images in' in (said := capsys.readouterr().err) and '2 .heic' in said


def test_counts_of_both_splits(tmp_path):
  fill(tmp_path, *(f'{c}/{i}.jpg' for c in 'ab' for i in range(10)))
  assert image_folder.scan(tmp_path, 0.2).describe().endswith('train+val: a 8+2, b 8+2')


def test_each_suffix_that_is_taken_can_be_read():
  image = Image.fromarray(np.full((8, 8, 3), 200, np.uint8))
  for suffix in photos.SUFFIXES:
    if suffix in ('.heic', '.heif'):
      continue
    data = encoded(image, Image.registered_extensions()[suffix])
    assert abs(np.asarray(photos.open_rgb(data)).astype(int) - 200).max() <= 2


def test_one_pass_looks_at_each_file_once(tmp_path, monkeypatch):
  fill(tmp_path, *(f'train/{c}/{i}.jpg' for c in 'ab' for i in range(50)))
  opened, scandir = [], os.scandir
  monkeypatch.setattr(os, 'scandir', lambda path: opened.append(os.fspath(path)) or scandir(path))
  folder = image_folder.scan(tmp_path)
  assert len(folder.splits['train'].sizes) == 100
  assert len([path for path in opened if path.endswith(('/a', '/b'))]) == 2
