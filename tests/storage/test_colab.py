"""Where files outlive a session: Drive on Colab, a directory elsewhere."""

import pathlib

from senet_jax.storage import colab
from tests.helpers import fake_colab


def test_elsewhere_it_is_a_directory(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  assert colab.lasting('mine') == pathlib.Path('runs/mine')
  assert (tmp_path / 'runs/mine').is_dir() and not capsys.readouterr().out


def test_on_colab_it_is_in_drive(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(colab, 'DRIVE', tmp_path / 'drive')
  fake_colab.install(
    monkeypatch, mount=lambda place: (pathlib.Path(place) / 'MyDrive').mkdir(parents=True)
  )
  assert colab.is_here()
  assert colab.lasting('mine') == tmp_path / 'drive/MyDrive/mine'
  assert not capsys.readouterr().out


def test_a_drive_that_is_not_mounted_is_one_line(tmp_path, monkeypatch, capsys):
  def refused(place):
    raise ValueError('mount failed\nTraceback')

  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(colab, 'DRIVE', tmp_path / 'drive')
  for mount, reason in ((refused, 'mount failed'), (lambda place: None, 'there is no MyDrive')):
    fake_colab.install(monkeypatch, mount=mount)
    assert colab.lasting('mine') == pathlib.Path('runs/mine')
    said = capsys.readouterr().out
    assert said.count('\n') == 1 and f'Drive is not mounted ({reason}' in said
