"""The whole detector against torchvision's Faster R-CNN, whose numbers `make_golden.py` wrote.

Its weights are made anew from a seed, the photos are read where they lie.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from senet_jax.detection import rpn as rpn_lib
from senet_jax.detection.rpn import Proposals
from senet_jax.detection.settings import TORCHVISION
from senet_jax.interop import from_torch, mapping, model_overrides
from senet_jax.models import create_model
from tests.helpers import detection_case as case, paths

GOLDEN = paths.TESTS / 'golden' / 'numbers' / 'torchvision_detection.npz'
NAME, VARIANT = 'faster_rcnn_r50_fpn', 'torchvision:fasterrcnn_resnet50_fpn'
# Of the spread of an array.
TOLERANCE = 1e-4
# Pixels; boxes reach over 256.
NEAR = TOLERANCE * 256
SETTINGS = dataclasses.replace(TORCHVISION, post_nms=case.PROPOSALS)


def forward(detector, images, sizes):
  """All that an inference computes on the way."""
  maps = detector.backbone(images, False, maps=True)
  levels = detector.fpn(list(maps.values()))
  logits, deltas = detector.rpn(levels)
  anchors = rpn_lib.anchors(images.shape[1:3], levels, 4, detector.options)
  proposals = rpn_lib.propose(logits, deltas, anchors, sizes, detector.options, False)
  pooled = detector.pool(levels, proposals.boxes)
  class_logits, box_deltas = detector.roi_head(pooled)
  return {
    **{f'c{stage}': x for stage, x in maps.items()},
    **{f'p{i}': x for i, x in enumerate(levels, start=2)},
    'rpn_logits': jnp.concatenate(logits, 1),
    'rpn_deltas': jnp.concatenate(deltas, 1),
    'anchors': jnp.concatenate(anchors),
    'proposals': proposals,
    'regions': {'pooled': pooled, 'class_logits': class_logits, 'box_deltas': box_deltas},
    'detections': detector(images, False, sizes),
  }


def losses(detector, images, sizes, targets, priorities, proposals):
  """The losses, and those of the second stage from torchvision's proposals."""
  levels = detector.pyramid(images, True)
  return (
    detector(images, True, sizes, targets, priorities),
    detector.region_losses(levels, proposals, targets, priorities[1]),
  )


@pytest.fixture(scope='module')
def recorded():
  with np.load(GOLDEN) as file:
    return dict(file)


@pytest.fixture(scope='module')
def network():
  options = {**model_overrides(NAME, VARIANT), 'settings': SETTINGS}
  model = create_model(NAME, case.CLASSES, **options)
  shapes = [(entry.name, entry.shape) for entry in mapping.entries(VARIANT, case.CLASSES)]
  return model, from_torch(NAME, case.weights(shapes), VARIANT)


@pytest.fixture(scope='module')
def photos(shared_data):
  return case.photos(shared_data)


@pytest.fixture(scope='module')
def ours(network, photos):
  model, variables = network
  run = jax.jit(nn.apply(forward, model))
  return jax.tree.map(np.asarray, run(variables, photos[0], jnp.array(case.SIZES)))


def check(name, actual, expected):
  error = np.abs(case.kept(actual) - expected).max() / expected[-1]
  assert error < TOLERANCE, f'{name}: {error:.1e} of the spread'


def nearest(boxes, of):
  """The index of the nearest of `boxes` to each of `of`; all of both have a near one."""
  distances = np.abs(boxes[None] - of[:, None]).max(-1)
  for axis in (0, 1):
    assert distances.min(axis).max() < NEAR, distances.min(axis).max()
  return distances.argmin(1)


def test_inputs(photos, recorded):
  check('images', photos[0], recorded['images'])


@pytest.mark.parametrize(
  'name',
  ['c2', 'c3', 'c4', 'c5', 'p2', 'p3', 'p4', 'p5', 'p6', 'rpn_logits', 'rpn_deltas', 'anchors'],
)
def test_maps_and_scores(name, ours, recorded):
  check(name, ours[name], recorded[name])


@pytest.fixture(scope='module')
def order(ours, recorded):
  """Our index of each of torchvision's proposals, by image: all are there and no others."""
  proposals = ours['proposals']
  found = []
  for i in range(2):
    expected = recorded[f'proposals{i}']
    assert proposals.valid[i].sum() == len(expected)
    found.append(nearest(proposals.boxes[i][proposals.valid[i]], expected))
  return found


@pytest.mark.parametrize('name', ['pooled', 'class_logits', 'box_deltas'])
def test_regions(name, ours, order, recorded):
  rows = np.concatenate([ours['regions'][name][i][index] for i, index in enumerate(order)])
  check(name, rows, recorded[name])


@pytest.mark.parametrize('image', [0, 1])
def test_detections(image, ours, recorded):
  found = {name: value[image] for name, value in ours['detections'].items()}
  assert found['valid'].sum() == len(recorded[f'boxes{image}'])
  index = nearest(found['boxes'][found['valid']], recorded[f'boxes{image}'])
  np.testing.assert_array_equal(found['classes'][index] + 1, recorded[f'labels{image}'])
  np.testing.assert_allclose(found['scores'][index], recorded[f'scores{image}'], atol=TOLERANCE)
  assert (np.diff(found['scores']) <= 0).all()


def test_losses(network, photos, recorded):
  model, variables = network
  images, boxes, classes = photos
  most = max(map(len, boxes))
  pad = lambda arrays, shape: np.stack(  # noqa: E731
    [np.pad(a, [(0, shape - len(a))] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
  )
  targets = {
    'boxes': pad(boxes, most),
    'classes': pad(classes, most),
    'valid': pad([np.ones(len(b), bool) for b in boxes], most),
    'crowd': np.zeros((2, most), bool),
  }
  theirs = [recorded[f'train_proposals{i}'] for i in range(2)]
  count = case.PROPOSALS[0]
  valid = pad([np.ones(len(p), bool) for p in theirs], count)
  proposals = Proposals(pad(theirs, count), np.zeros(valid.shape, np.float32), valid)
  run = jax.jit(nn.apply(losses, model))
  priorities = case.priorities(case.ANCHORS, most)
  args = (images, jnp.array(case.SIZES), targets, priorities, proposals)
  whole, second_stage = run(variables, *args)
  assert whole['rpn_objectness'] == pytest.approx(recorded['loss_objectness'], rel=TOLERANCE)
  assert whole['rpn_boxes'] == pytest.approx(recorded['loss_rpn_box_reg'], rel=TOLERANCE)
  assert second_stage['roi_classes'] == pytest.approx(recorded['loss_classifier'], rel=TOLERANCE)
  assert second_stage['roi_boxes'] == pytest.approx(recorded['loss_box_reg'], rel=TOLERANCE)
  # Two proposals whose scores differ in the last digit have each other's random numbers.
  for name, theirs in (('roi_classes', 'loss_classifier'), ('roi_boxes', 'loss_box_reg')):
    assert whole[name] == pytest.approx(recorded[theirs], rel=0.02)
