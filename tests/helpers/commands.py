"""Commands with mistakes in them."""

import sys

import pytest

from senet_jax import cli


def complaint(command, arguments, monkeypatch, capsys):
  """What a command prints to stderr before it ends as after a user's error."""
  monkeypatch.setattr(sys, 'argv', ['command', *arguments])
  with pytest.raises(SystemExit) as exit_info:
    cli.run(command)
  assert exit_info.value.code == cli.USER_ERROR
  return capsys.readouterr().err
