"""The command that predicts: what it takes for photos, and for a workdir."""

import os
import pathlib

import pytest
from PIL import Image

from senet_jax.data import image_folder
from senet_jax.errors import UserError
from senet_jax.tools import predict


def test_pipes_and_devices_are_not_waited_for(tmp_path, capsys):
  os.mkfifo(tmp_path / 'a.jpg')
  Image.new('RGB', (2, 2)).save(tmp_path / 'b.jpg')
  assert image_folder.find_images([str(tmp_path)]) == [str(tmp_path / 'b.jpg')]
  assert 'left out: 1 pipe or device' in capsys.readouterr().err
  for path in (str(tmp_path / 'a.jpg'), '/dev/zero'):
    with pytest.raises(UserError, match='is a pipe or a device'):
      image_folder.find_images([path])


def test_the_workdir_may_come_first(monkeypatch, tmp_path):
  photo = tmp_path / 'b.jpg'
  Image.new('RGB', (2, 2)).save(photo)
  asked = []

  def load(workdir, *_, **__):
    asked.append(workdir)
    raise UserError('as expected')

  monkeypatch.setattr('senet_jax.prediction.load', load)
  for argv in (['runs/x', str(photo)], [str(photo), '--workdir=runs/x']):
    with pytest.raises(UserError, match='as expected'):
      predict.main(argv)
  assert asked == [pathlib.Path('runs/x')] * 2
  with pytest.raises(UserError, match=r'give a network .*, and then photos'):
    predict.main([str(photo)])
