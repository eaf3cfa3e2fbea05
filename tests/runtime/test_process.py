"""The compilation cache where it can be kept, and a line where it cannot."""

import pathlib

import jax
import pytest

from senet_jax import runtime


@pytest.fixture(autouse=True)
def no_cache():
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', None)
  yield
  jax.config.update('jax_compilation_cache_dir', before)


def test_the_cache_of_the_user(monkeypatch, tmp_path):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  runtime.use_compilation_cache()
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / 'senet_jax' / 'xla')


def _no_home():
  raise RuntimeError('Could not determine home directory.')


@pytest.mark.parametrize('why', ['home', 'file', 'given'])
def test_without_a_place_a_line_says_so(why, monkeypatch, tmp_path, caplog):
  (tmp_path / 'file').touch()
  monkeypatch.setenv('XDG_CACHE_HOME', '' if why == 'home' else str(tmp_path / 'file'))
  monkeypatch.setattr(pathlib.Path, 'home', _no_home)
  if why == 'given':
    jax.config.update('jax_compilation_cache_dir', str(tmp_path / 'file' / 'x'))
  runtime.use_compilation_cache()
  assert jax.config.jax_compilation_cache_dir is None
  said = {r.getMessage() for r in caplog.records if r.name.startswith('senet_jax')}
  assert ['JAX_COMPILATION_CACHE_DIR' in line for line in said] == [True]
