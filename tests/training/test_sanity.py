"""What is said at the start of a run whose result would be worthless."""

import types

import numpy as np
import pytest

from senet_jax import config as config_lib
from senet_jax.data.class_order import ClassOrder
from senet_jax.training import sanity, tasks
from senet_jax.training.plan import Plan
from senet_jax.training.task import Feeds


def said(fields: dict, examples: int = 50_000, devices: int = 1, labels=None) -> list[str]:
  config = config_lib.default()
  config.update_from_flattened_dict(fields)
  config_lib.check(config)
  by_class = None if labels is None else ClassOrder(np.array(labels), 0)
  split = types.SimpleNamespace(num_examples=examples)
  train = types.SimpleNamespace(by_class=by_class, split=split)
  feeds = Feeds(types.SimpleNamespace(size=devices), train, None)
  return sanity.warnings(tasks.task_of(config), Plan.create(config, examples), feeds)


def test_nothing_is_said_of_a_usual_run():
  assert said({}) == []
  assert said({'schedule.name': 'plateau', 'schedule.patience': 98}) == []
  assert said({'optimizer.name': 'adam', 'optimizer.learning_rate': 0.001}) == []
  assert said({'data.mean': (125.0, 123.0, 114.0), 'data.std': (1.0, 1.0, 1.0)}) == []
  assert said({'data.train_split': 'train[4%:]', 'data.eval_split': 'train[:4%]'}) == []
  assert said({'data.sampling': 'class_aware'}, labels=[0, 0, 1, 1, 1]) == []


@pytest.mark.parametrize(
  ('fields', 'words'),
  [
    ({'optimizer.name': 'adam'}, 'learning_rate=0.1 makes a peak of 0.1, as for sgd; adam'),
    ({'optimizer.name': 'lamb', 'optimizer.base_batch': 32}, 'a peak of 0.4'),
    ({'schedule.warmup': 101.0}, 'warmup=101 epochs is not shorter than the run of 39063 steps'),
    ({'epochs': 30.0}, 'schedule.name=step lowers the learning rate nowhere'),
    ({'epochs': 20.0, 'schedule.name': 'multistep'}, 'schedule.name=multistep lowers the'),
    ({'schedule.name': 'plateau', 'schedule.patience': 99}, 'run of 100 evaluations; it takes 101'),
    ({'bn.freeze_last_epochs': 200.0}, 'freeze_last_epochs=200 is the whole run'),
    ({'bn.momentum': 0.99999}, 'momentum=0.99999 leaves'),
    ({'batch_size': 1}, 'batch normalisation is over 1 image'),
    ({'data.mean': (0.485, 0.456, 0.406)}, '(123.67, 116.28, 103.53)'),
    ({'data.std': (0.5, 0.5, 0.5)}, 'data.std=(0.5, 0.5, 0.5) is on the 0-1 scale'),
    ({'data.eval_split': 'train[:10%]'}, 'have 5000 examples in common'),
    ({'model.name': 'faster_rcnn_r50_fpn'}, 'init_from is not set: the trunk has random weights'),
  ],
)
def test_one_line_on_each(fields, words):
  [line] = said(fields)
  assert words in line and '\n' not in line


def test_a_plateau_that_the_warning_allows_can_lower_the_rate():
  """With `patience + 2` evaluations the last steps have a lower rate, with one less they do not."""
  from senet_jax.training.optimizer import make_plateau

  config = config_lib.default()
  config.schedule.name, config.schedule.patience = 'plateau', 3
  plateau = make_plateau(config)
  for evaluations, scale in ((5, 0.1), (4, 1.0)):
    state = plateau.init({'w': np.zeros(1, np.float32)})
    for _ in range(evaluations - 1):  # after the last one nothing is trained
      _, state = plateau.update({}, state, value=1.0)
    assert float(state.scale) == pytest.approx(scale)


def test_class_with_one_image():
  [line] = said({'data.sampling': 'class_aware'}, labels=[0, 0, 0, 1])
  assert 'only example of a class as often as all 3 of the largest one' in line


def test_batch_of_more_images_than_there_are():
  few = {'batch_size': 64, 'schedule.name': 'constant'}
  assert not said(few, examples=64)
  [line] = said(few, examples=20)
  assert 'batch_size=64 is more than the 20 training images' in line
  assert not said({**few, 'data.repeats': 4}, examples=20)


def test_a_trial_of_three_steps_has_warnings_and_goes_on():
  lines = said({'steps': 3, 'schedule.warmup': 5.0, 'bn.freeze_last_epochs': 5.0})
  assert len(lines) == 3
