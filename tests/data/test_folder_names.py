"""Folders of photos: names that look alike, names that are no text, and what is no file."""

import os

import pytest
from PIL import Image

from senet_jax import config as config_lib
from senet_jax.data import image_folder, sources
from senet_jax.errors import UserError

COMPOSED, DECOMPOSED = 'pur\xe9e', 'pure\u0301e'


@pytest.mark.parametrize(
  'folders',
  [(f'train/{COMPOSED}', f'train/{DECOMPOSED}'), (f'train/{COMPOSED}', f'val/{DECOMPOSED}')],
)
def test_two_normal_forms_of_unicode_are_told(folders, tmp_path):
  for folder in folders:
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / 'a.jpg').touch()
  with pytest.raises(UserError, match='whose names look alike') as caught:
    image_folder.scan(tmp_path)
  assert ascii(COMPOSED) in str(caught.value) and ascii(DECOMPOSED) in str(caught.value)


def _config(root):
  config = config_lib.default()
  config.data.name, config.data.feed, config.data.dir = 'image_folder', 'stream', str(root)
  return config


def test_names_that_are_no_text(tmp_path):
  folder = tmp_path / 'train' / os.fsdecode(b'caf\xe9')
  folder.mkdir(parents=True)
  Image.new('RGB', (4, 4)).save(folder / os.fsdecode(b'\xff.jpg'))
  source = sources.open_source(_config(tmp_path), 'train')
  assert source.class_names == ('caf\udce9',) and source.name(0).endswith('/\udcff.jpg')
  assert len(source.read([0])[0][0]) > 100


def test_a_pipe_is_not_waited_for(tmp_path):
  (tmp_path / 'train' / 'a').mkdir(parents=True)
  os.mkfifo(tmp_path / 'train' / 'a' / 'b.jpg')
  with pytest.raises(UserError, match='has no images'):
    sources.open_source(_config(tmp_path), 'train')
