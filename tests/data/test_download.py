"""CIFAR by download, and what happens without a network."""

import tarfile

import pytest

from senet_jax.data import arrays, download
from senet_jax.data.builders import cifar
from senet_jax.errors import UserError
from tests.helpers import fake_cifar


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
  monkeypatch.setattr(download, 'SITE', f'file://{tmp_path}/nowhere/')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'data'))


def test_without_a_network_it_is_digits_and_one_line(nowhere, capsys):
  assert download.cifar10_or_digits() == 'digits'
  *_, said = capsys.readouterr().out.splitlines()
  assert 'cifar10 cannot be downloaded from file:' in said and 'digits' in said
  assert download.cifar10_or_digits(try_it=False) == 'digits' and not capsys.readouterr().out


def test_what_is_downloaded_is_checked_and_becomes_arrays(monkeypatch, tmp_path, capsys):
  fake = fake_cifar.FakeCifar('cifar10')
  fake.write(tmp_path / 'cifar-10-batches-py', 'python')
  archive = tmp_path / 'cifar-10-python.tar.gz'
  with tarfile.open(archive, 'w:gz') as tar:
    tar.add(tmp_path / 'cifar-10-batches-py', 'cifar-10-batches-py')
  monkeypatch.setattr(download, 'SITE', f'file://{tmp_path}/')
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'data'))
  with pytest.raises(UserError, match='MD5'):
    download.cifar('cifar10')
  fake.patch(monkeypatch, archives={archive.name: fake_cifar.md5(archive.read_bytes())})
  assert download.cifar10_or_digits() == 'cifar10'
  found = arrays.find_arrays('cifar10', tmp_path / 'data')
  assert found == tmp_path / 'data/cifar10' / cifar.VERSION
  capsys.readouterr()
  assert download.cifar('cifar10') == found and not capsys.readouterr().out
