"""Libraries say nothing of what is as it should be, and a mistake is one message."""

import logging

import pytest

import senet_jax
from senet_jax.errors import UserError
from tests.helpers import paths


def test_a_missing_run_is_one_error(tmp_path):
  with pytest.raises(UserError, match='holds no run') as caught:
    senet_jax.load(tmp_path / 'nothing')
  assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_reading_a_run_warns_of_nothing(caplog):
  logging.getLogger('absl').setLevel(logging.WARNING)
  senet_jax.load(paths.TESTS / 'fixtures' / 'old_workdir')
  assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
  assert logging.getLogger('absl').level == logging.WARNING
