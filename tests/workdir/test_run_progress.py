"""What a checkpoint keeps besides arrays: as JSON and back, and counted on."""

import json

import pytest

from senet_jax.workdir.run_progress import Patience, RunProgress

FULL = RunProgress(
  identity={'seed': 0, 'dataset': {'train': {'examples': 3}}},
  looped=True,
  git_commit='abc',
  examples_seen=64,
  wall_time_s=2.5,
  train_time_s=1.5,
  devices=8,
  device_hours=0.25,
  evaluated_step=1,
  final={'step': 1, 'epoch': 0.5, 'loss': 1.0},
  best={'step': 1, 'epoch': 0.5, 'loss': 1.0},
  early_stopping=Patience(1.0, 2),
  unreadable={'train': {'7': 'a.jpg'}},
)


def test_json_and_back():
  kept = json.loads(json.dumps(FULL.to_json()))
  assert RunProgress.from_json(kept) == FULL
  assert RunProgress.from_json({**kept, 'checksum': 1}) == FULL  # the checkpoint's own
  assert kept['early_stopping'] == {'best_metric': 1.0, 'patience_count': 2}


def test_what_an_older_version_did_not_keep():
  assert RunProgress.from_json({'identity': {}}) == RunProgress({})


@pytest.mark.parametrize(
  ('found', 'message'),
  [
    ([], 'of which run'),
    ({'looped': True}, 'of which run'),
    ({'identity': 'x'}, "identity is 'x'"),
    ({'identity': {}, 'examples_seen': '5'}, "examples_seen is '5'"),
    ({'identity': {}, 'best': 3}, 'best is 3'),
    ({'identity': {}, 'early_stopping': []}, r'early_stopping is \[\]'),
  ],
)
def test_contents_that_are_damaged(found, message):
  with pytest.raises(ValueError, match=message):
    RunProgress.from_json(found)


def test_counting_on():
  progress = RunProgress({}).after_training(64, 0.5).after_training(32, 0.25)
  assert (progress.examples_seen, progress.train_time_s) == (96, 0.75)
  progress = progress.at_time(3600.0, devices=2).at_time(5400.0, devices=8)
  assert progress.wall_time_s == 5400.0 and progress.device_hours == 2 + 4


def test_only_the_best_evaluation_is_the_best():
  first, second = ({'step': step, 'loss': 1.0} for step in (1, 2))
  progress = RunProgress({}).after_evaluation(first, Patience(), is_best=True)
  progress = progress.after_evaluation(second, Patience(1.0, 1), is_best=False)
  assert (progress.best, progress.final, progress.evaluated_step) == (first, second, 2)
  assert progress.early_stopping == Patience(1.0, 1)
