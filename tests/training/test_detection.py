"""Training of detectors: a run, its resumption, what is frozen, and settings that cannot be."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest
from flax import traverse_util

from senet_jax import runtime
from senet_jax.detection import sources
from senet_jax.detection.feeds import DetectionFeed
from senet_jax.errors import UserError
from senet_jax.models.common import named_by
from senet_jax.training import patience, tasks
from senet_jax.training.classification import Classification
from senet_jax.training.detection import LOSSES, Detection
from senet_jax.training.loop import train
from senet_jax.training.optimizer import make_plateau
from senet_jax.workdir import network, saved
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.objective import AP
from senet_jax.workdir.records import read_records
from senet_jax.workdir.state import TrainState
from tests.helpers.small_detection_run import small_detector
from tests.helpers.small_run import kill_at, small, summary


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """A run that was not interrupted."""
  workdir = tmp_path_factory.mktemp('detection') / 'whole'
  assert train(small_detector(), workdir)
  return workdir


def test_the_network_chooses_the_task():
  assert type(tasks.task_of(small())) is Classification
  assert type(tasks.task_of(small_detector())) is Detection


def test_what_was_left_out_lies_in_the_workdir(tmp_path):
  def split(**faults):
    known = types.SimpleNamespace(faults=faults)
    return types.SimpleNamespace(num_classes=2, class_names=('cat', 'dog'), annotations=known)

  task = Detection(small_detector())
  feeds = types.SimpleNamespace(
    train=types.SimpleNamespace(split=split(area=('box 7 has none',))),
    eval=types.SimpleNamespace(split=split()),
  )
  task.leave(tmp_path, feeds)
  assert json.loads((tmp_path / 'faults.json').read_text()) == {
    'train': {'area': ['box 7 has none']}
  }


def test_a_run_has_losses_and_average_precision(whole):
  records = read_records(whole / 'metrics.jsonl')
  training = [r for r in records if r['kind'] == 'train']
  assert [r['step'] for r in training] == [2, 4, 6]
  for record in training:
    assert record['loss'] == pytest.approx(sum(record[name] for name in LOSSES))
    assert all(record[name] >= 0 for name in LOSSES)
  found = summary(whole)
  assert [r['step'] for r in records if r['kind'] == 'eval'] == [4, 6]
  assert {'ap', 'ap50', 'ap75', 'ar_100'} <= found['final'].keys()
  assert found['best']['ap'] == max(r['ap'] for r in records if r['kind'] == 'eval')
  assert (whole / 'curves.png').stat().st_size > 10_000
  classes = json.loads((whole / 'classes.json').read_text())
  assert classes['num_classes'] == len(classes['names']) == 3


@pytest.mark.thorough
def test_a_run_that_is_killed_ends_as_one_that_is_not(whole, tmp_path, monkeypatch, capsys):
  with monkeypatch.context() as patch:
    kill_at(patch, 3, feed=DetectionFeed)
    assert train(small_detector(), tmp_path) is False
  assert train(small_detector(), tmp_path)
  assert 'resumed from step 4 of 6' in capsys.readouterr().out
  assert summary(tmp_path)['params_sha256'] == summary(whole)['params_sha256']
  assert summary(tmp_path)['best'] == summary(whole)['best']


def test_what_is_frozen_stays_under_weight_decay(whole):
  model = network.build_model(small_detector())
  with Checkpoints(whole, objective=AP, read_only=True) as checkpoints:
    begun, ended = (checkpoints.read(step).state for step in (2, 6))
  assert jax.tree.all(jax.tree.map(np.array_equal, begun.batch_stats, ended.batch_stats))
  before, after = (traverse_util.flatten_dict(state.params) for state in (begun, ended))
  frozen = {path for path in before if named_by(path, model.frozen)}
  assert len(frozen) > 20
  for path, value in before.items():
    assert np.array_equal(value, after[path]) == (path in frozen), path
  # The momentum of what is trained, and nothing else.
  momenta = sum(x.size for x in jax.tree.leaves(ended.opt_state) if x.ndim)
  assert momenta == sum(value.size for path, value in before.items() if path not in frozen)


@pytest.mark.parametrize('freeze_at', [0, 5])
def test_stages_that_are_frozen(freeze_at):
  config = small_detector(model__freeze_at=freeze_at)
  model = network.build_model(config)
  params = network.variable_shapes(config, model)['params']
  left = {path[1] for path in traverse_util.flatten_dict(network.trained(params, model.frozen))
          if path[0] == 'backbone'}  # fmt: skip
  expected = {'stem_conv', 'stage2_block1', 'stage3_block1', 'stage4_block1', 'stage5_block1'}
  assert {name for name in left if not name.endswith('block2')} == set(sorted(
    expected, key=['stem_conv', *sorted(expected)].index)[freeze_at:])  # fmt: skip


@pytest.mark.parametrize('split', ['train', 'validation'])
@pytest.mark.parametrize('crowds', [0, 2])
def test_a_split_without_objects_is_refused_when_it_is_opened(monkeypatch, split, crowds):
  def emptied(config, name):
    source = open_source(config, name)
    if not name.startswith(split):
      return source
    known = source.annotations
    few = {name: getattr(known, name)[:crowds] for name in ('boxes', 'classes', 'areas', 'ids')}
    first = np.minimum(known.first, crowds)
    known = dataclasses.replace(known, **few, first=first, crowd=np.ones(crowds, bool))
    return dataclasses.replace(source, annotations=known)

  open_source = sources.open_source
  monkeypatch.setattr(sources, 'open_source', emptied)
  with pytest.raises(UserError, match=rf'there is no object in coco \(fake\), split {split}'):
    Detection(small_detector()).open(runtime.data_mesh(1))


@pytest.mark.parametrize(
  ('make', 'fields', 'message'),
  [
    (small_detector, {'label_smoothing': 0.1}, 'label_smoothing is for classification.*detection'),
    (small_detector, {'data__mixup': 0.2}, 'config.data.mixup is for classification'),
    (small_detector, {'bn__scope': 'global'}, 'config.bn.scope is for classification'),
    (small_detector, {'steps_per_dispatch': 4}, 'steps_per_dispatch=4 needs all images'),
    (small_detector, {'model__depths': (1, 1, 1, 1)}, "'depths'"),
    (small_detector, {'model__trunk': 'vgg16_bn'}, "model.trunk='vgg16_bn'"),
    (small_detector, {'model__settings': 'caffe'}, "model.settings='caffe'"),
    (small_detector, {'early_stopping__metric': 'top1_error'}, 'ap, ap50, ap75'),
    (small_detector, {'optimizer__frozen': ('head',)}, "begins with 'head'.*backbone, fpn"),
    (small_detector, {'optimizer__frozen': ('backbone', 'fpn', 'rpn', 'roi_head')}, 'no module'),
    (small, {'model__trunk': 'resnet18'}, 'config.model.trunk is for detection.*se_resnet20_cifar'),
    (small, {'data__shorter_side': 600}, 'config.data.shorter_side is for detection'),
    (small, {'schedule__metric': 'ap'}, "schedule.metric='ap' is none of classification"),
  ],
)
def test_settings_of_another_task_are_one_line(make, fields, message, tmp_path):
  with pytest.raises(UserError, match=message):
    train(make(**fields), tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_network_of_another_task_is_one_line(whole):
  with pytest.raises(UserError, match='holds se_faster_rcnn_r50_fpn, a network for detection, and'):
    saved.load(whole, 'latest', runtime.data_mesh())


def test_the_plateau_sees_average_precision_stand_still():
  config = small_detector(schedule__name='plateau', schedule__patience=2, schedule__factor=0.5)
  plateau = make_plateau(config)
  state = TrainState(0, {}, {}, (), plateau=plateau.init({}))
  rates = []
  for ap in (10.0, 30.0, 30.0, 29.999, 30.002, 31.0):
    state = patience.lowered(Detection(config), plateau, state, {'ap': ap}, runtime.data_mesh(1))
    rates.append(float(state.scale))
  assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5]


def test_early_stopping_goes_by_average_precision():
  task = Detection(small_detector())
  assert task.cost('loss', {'ap': 20.0}) == task.cost('ap', {'ap': 20.0}) == 80.0
