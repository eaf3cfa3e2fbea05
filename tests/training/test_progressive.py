"""Runs whose images grow: compiled before the first step, stopped and resumed, bit for bit."""

import jax
import pytest

from senet_jax import config as config_lib
from senet_jax.data import device_feed, feeds
from senet_jax.training import optimizer, plan, sanity, tasks
from senet_jax.training.loop import train
from senet_jax.training.task import Feeds
from tests.helpers.small_run import kill_at, programs_by_step, small, summary

GROWING = {'data.image_size': 16, 'data.train_size': (8, 12, 16)}


def growing(**fields):
  config = small()
  config.update_from_flattened_dict({**GROWING, 'schedule.name': 'linear'})
  config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in fields.items()})
  return config


@pytest.mark.thorough
def test_all_sizes_are_compiled_before_the_first_step(tmp_path, monkeypatch):
  at_step = programs_by_step(monkeypatch)
  asked = []
  inputs = device_feed.DeviceFeed.inputs

  def noting(self, step, limit):
    found = inputs(self, step, limit)
    asked.append(len(found[0]['side']))
    return found

  monkeypatch.setattr(device_feed.DeviceFeed, 'inputs', noting)
  assert train(growing(steps=3), tmp_path)
  assert asked[-3:] == [8, 12, 16] and at_step[-1][0] == 3
  assert {count for _, count in at_step} == {4}  # three sizes, and the evaluation


@pytest.mark.thorough
@pytest.mark.parametrize('at_once', [1, 5])
def test_two_halves_are_the_whole(tmp_path, monkeypatch, at_once):
  config = growing(steps_per_dispatch=at_once)
  assert train(config, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    kill_at(patch, 13)  # the second size ends there
    assert train(config, tmp_path / 'parts') is False
  assert train(config, tmp_path / 'parts')
  whole, parts = summary(tmp_path / 'whole'), summary(tmp_path / 'parts')
  assert whole['params_sha256'] == parts['params_sha256'] and whole['final'] == parts['final']


def test_the_length_counts_where_the_sizes_depend_on_it():
  def fields(**more):
    return config_lib.differences(
      growing(schedule__name='constant').to_dict(),
      growing(schedule__name='constant', steps=40, **more).to_dict(),
    )

  assert fields().keys() == {'steps'}
  config = growing(schedule__name='constant', data__train_size_boundaries=(1.0, 2.0))
  longer = growing(schedule__name='constant', data__train_size_boundaries=(1.0, 2.0), steps=40)
  assert not config_lib.differences(config.to_dict(), longer.to_dict())


def test_a_size_of_earlier_versions_is_read():
  saved = growing().to_dict()
  saved['data']['train_size'] = 12
  assert config_lib.from_dict(saved).data.train_size == (12,)
  assert not config_lib.differences(saved, growing(data__train_size=(12,)).to_dict())


def test_a_size_that_is_never_reached_is_said():
  config = growing(data__train_size_boundaries=(1.0, 9.0))
  mesh = jax.make_mesh((1,), ('data',))
  train_feed = feeds.training_feed(config, mesh)
  given = Feeds(mesh, train_feed, train_feed)
  planned = plan.Plan.create(config, train_feed.split.num_examples)
  (line,) = [x for x in sanity.warnings(tasks.task_of(config), planned, given) if 'train_size' in x]
  assert 'train_size_boundaries=(1.0, 9.0) epochs are not all within the run of 20 steps' in line


@pytest.mark.parametrize(('name', 'after_a_quarter'), [('linear', 0.75), ('cosine', 0.8535534)])
def test_a_rate_that_falls_until_the_end(name, after_a_quarter):
  """Up from a ten-thousandth of the peak in four steps, and down to a tenth of it."""
  config = growing(schedule__name=name, schedule__unit='steps', schedule__warmup=4.0)
  config.schedule.update({'warmup_start': 1e-4, 'final': 0.1})
  rate = optimizer.make_schedule(config, 20, 8.0)
  peak = config.optimizer.learning_rate
  expected = [1e-4, 0.25, 1, 0.1 + 0.9 * after_a_quarter, 0.1 + 0.9 / 2, 0.1]
  assert [float(rate(s)) / peak for s in (0, 1, 4, 8, 12, 20)] == pytest.approx(expected, rel=1e-3)
