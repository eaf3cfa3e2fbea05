"""What is known of the runs of a study."""

import json

import pytest

from senet_jax.config.study import Row
from senet_jax.training import studies


@pytest.fixture
def run(tmp_path):
  """A run that is on record, not in its workdir: 2,000 images, 50 a second on the average."""
  row = Row('r20', 'configs/cifar10_r20.py')
  run = studies.StudyRun(row, 0, tmp_path / 'runs', tmp_path / 'records')
  known = {
    'final': {'step': 20, 'epoch': 1.0, 'top1_error': 9.0}, 'wall_time_s': 60.0,
    'params_sha256': 'x', 'examples_seen': 2000, 'images_per_second': 50.0,
  }  # fmt: skip
  (tmp_path / 'records').mkdir()
  (tmp_path / 'records' / 'summary.json').write_text(json.dumps(known))
  return run


def log(run, *rates):
  lines = [{'kind': 'train', 'step': 1, 'epoch': 1.0, 'images_per_second': x} for x in rates]
  lines.append({'kind': 'eval', 'step': 1, 'epoch': 1.0})
  (run.record / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)))


def test_seconds_are_those_without_what_ran_beside_it(run):
  log(run, 10.0, 100.0, 100.0, 99.0, 101.0)
  assert run.train_time() == 20.0


def test_seconds_of_the_average_where_there_is_no_log(run):
  assert run.train_time() == 40.0
  log(run)
  assert run.train_time() == 40.0


def test_no_seconds_before_the_end(run):
  log(run, 100.0)
  (run.record / 'summary.json').unlink()
  assert run.train_time() is None
