"""Signals: a run saves and stops, before its first evaluation too, and says where."""

import signal

import pytest

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.training.loop import train
from senet_jax.workdir import saved
from tests.helpers.small_run import kill_at, small


@pytest.mark.parametrize(
  ('number', 'why'), [(signal.SIGINT, 'interrupted'), (signal.SIGTERM, 'preempted')]
)
def test_before_the_first_evaluation(number, why, monkeypatch, tmp_path, capsys):
  config = small(steps=6, checkpoint__every_steps=0)
  with monkeypatch.context() as patch:
    kill_at(patch, 2, number)
    assert not train(config, tmp_path)
  said = capsys.readouterr()
  assert f'{why}: saved step 3 in {tmp_path}; the same command resumes from there.' in said.out
  assert ('Ctrl-C once more ends at once' in said.err) == (number == signal.SIGINT)
  assert train(config, tmp_path)
  assert 'resumed from step 3 of 6' in capsys.readouterr().out


def test_signals_may_belong_to_a_command(monkeypatch, tmp_path):
  """One that comes at the end of a run is there when the run is over."""
  with runtime.Preemption() as stop:
    kill_at(monkeypatch, 1)
    assert not train(small(steps=2), tmp_path, stop=stop)
    assert stop.noticed
  with runtime.Preemption() as stop, pytest.MonkeyPatch.context() as patch:
    finish = 'senet_jax.training.finish.finish'
    patch.setattr(finish, lambda *_: signal.raise_signal(signal.SIGTERM))
    monkeypatch.undo()
    assert train(small(steps=2), tmp_path, stop=stop) and stop.noticed


def test_a_workdir_that_is_not_utf_8(tmp_path):
  with pytest.raises(UserError, match='is not UTF-8'):
    train(small(steps=2), tmp_path / '\udcff')
  with pytest.raises(UserError, match='holds no run'):
    saved.read_config(tmp_path / '\udcff')
