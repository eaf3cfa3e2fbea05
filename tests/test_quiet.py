"""Libraries say nothing of what is as it should be, and a mistake is one message."""

import logging

import pytest

import senet_jax
from senet_jax import cli
from senet_jax.errors import UserError
from tests.helpers import paths


def test_a_missing_run_is_one_error(tmp_path):
  with pytest.raises(UserError, match='holds no run') as caught:
    senet_jax.load(tmp_path / 'nothing')
  assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_warning_is_printed_once_of_a_command_within_another(capsys):
  for _ in range(2):
    with pytest.raises(SystemExit):
      cli.run(lambda argv: 0)
  logging.getLogger('senet_jax').warning('so it is')
  assert capsys.readouterr().err == 'senet_jax: so it is\n'


def test_reading_a_run_warns_of_nothing(caplog):
  logging.getLogger('absl').setLevel(logging.WARNING)
  senet_jax.load(paths.TESTS / 'fixtures' / 'old_workdir')
  assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
  assert logging.getLogger('absl').level == logging.WARNING
