"""Weights of torchvision's and detectron2's detectors: names, layouts, classes, bad files."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import senet_jax
from senet_jax import errors
from senet_jax.detection import coco
from senet_jax.interop import from_torch, mapping, model_overrides, storage, to_torch
from senet_jax.interop.names import TORCH, VARIANTS
from senet_jax.models import create_model
from senet_jax.tools import convert
from senet_jax.workdir import exchange, network
from tests.helpers import detection_case as case, paths

NAME = 'faster_rcnn_r50_fpn'
TORCHVISION, DETECTRON2 = 'torchvision:fasterrcnn_resnet50_fpn', 'detectron2:faster_rcnn_R_50_FPN'
CLASSES = 5


def weights(variant, classes=CLASSES):
  """Zeros, but in the heads."""
  rng = np.random.default_rng(0)
  return {
    entry.name: rng.normal(size=entry.shape).astype(np.float32)
    if entry.path[1] in ('rpn', 'roi_head') and 'fc6' not in entry.path
    else np.zeros(entry.shape, np.float32)
    for entry in mapping.entries(variant, classes)
  }


@pytest.fixture(scope='module')
def torchvision():
  return weights(TORCHVISION)


@pytest.fixture(scope='module')
def detectron2():
  return weights(DETECTRON2)


@pytest.mark.parametrize('variant', [TORCHVISION, DETECTRON2])
def test_there_and_back(variant, request):
  arrays = request.getfixturevalue(variant.partition(':')[0])
  variables = from_torch(NAME, arrays, variant, CLASSES)
  back = to_torch(NAME, variables, variant)
  assert back.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(back[name], array, err_msg=name)


def test_the_background_is_our_first_class(torchvision, detectron2):
  rois = 'roi_heads.box_predictor'
  head = from_torch(NAME, torchvision, TORCHVISION, CLASSES)['params']['roi_head']
  np.testing.assert_array_equal(
    head['class_logits']['kernel'].T, torchvision[f'{rois}.cls_score.weight']
  )
  head = from_torch(NAME, detectron2, DETECTRON2, CLASSES)['params']['roi_head']
  # There it is the last one, and has no deltas.
  scores = detectron2[f'{rois}.cls_score.weight'], detectron2[f'{rois}.cls_score.bias']
  for ours, theirs in zip(('kernel', 'bias'), scores, strict=True):
    own = head['class_logits'][ours]
    np.testing.assert_array_equal(own.T[0], theirs[CLASSES])
    np.testing.assert_array_equal(own.T[1:], theirs[:CLASSES])
  deltas = head['box_deltas']
  np.testing.assert_array_equal(deltas['kernel'].T[4:], detectron2[f'{rois}.bbox_pred.weight'])
  np.testing.assert_array_equal(deltas['bias'][4:], detectron2[f'{rois}.bbox_pred.bias'])
  assert not deltas['kernel'][:, :4].any()


def test_names_of_published_files(torchvision):
  """Those of `fasterrcnn_resnet50_fpn_coco-258fb6c6.pth`, from before torchvision 0.14."""
  older = {
    name.replace('rpn.head.conv.0.0.', 'rpn.head.conv.')
    .replace('.0.weight', '.weight' if '.fpn.' in name else '.0.weight')
    .replace('.0.bias', '.bias' if '.fpn.' in name else '.0.bias'): array
    for name, array in torchvision.items()
  }
  assert {
    'backbone.body.conv1.weight',
    'backbone.body.layer1.0.downsample.1.running_var',
    'backbone.fpn.inner_blocks.0.weight',
    'backbone.fpn.layer_blocks.3.bias',
    'rpn.head.conv.weight',
    'rpn.head.cls_logits.bias',
    'roi_heads.box_head.fc6.weight',
    'roi_heads.box_predictor.bbox_pred.bias',
  } <= older.keys()
  variables = from_torch(NAME, older, f'{TORCHVISION}_coco', CLASSES)
  np.testing.assert_array_equal(
    variables['params']['rpn']['conv']['kernel'].transpose(3, 2, 0, 1),
    older['rpn.head.conv.weight'],
  )
  assert model_overrides(NAME, f'{TORCHVISION}_coco')['bn'].epsilon == 0


def test_names_of_detectron2(detectron2):
  assert {
    'backbone.bottom_up.stem.conv1.weight',
    'backbone.bottom_up.stem.conv1.norm.running_mean',
    'backbone.bottom_up.res2.0.shortcut.norm.bias',
    'backbone.bottom_up.res5.2.conv3.weight',
    'backbone.fpn_lateral2.bias',
    'backbone.fpn_output5.weight',
    'proposal_generator.rpn_head.conv.weight',
    'proposal_generator.rpn_head.objectness_logits.bias',
    'proposal_generator.rpn_head.anchor_deltas.weight',
    'roi_heads.box_head.fc2.weight',
  } <= detectron2.keys()
  buffers = {
    'pixel_mean': np.zeros((3, 1, 1)),
    'pixel_std': np.ones((3, 1, 1)),
    'proposal_generator.anchor_generator.cell_anchors.0': np.zeros((3, 4)),
  }
  from_torch(NAME, {'model': {**detectron2, **buffers}}, DETECTRON2, CLASSES)


def test_blue_comes_first_in_detectron2():
  path = ('params', 'backbone', 'stem_conv', 'kernel')
  entry = next(e for e in mapping.entries(DETECTRON2, CLASSES) if e.path == path)
  theirs = np.arange(64 * 3 * 49, dtype=np.float32).reshape(64, 3, 7, 7)
  ours = entry.layout.restore(theirs)
  np.testing.assert_array_equal(ours[1, 2, 0], theirs[:, 2, 1, 2])
  np.testing.assert_array_equal(ours[1, 2, 2], theirs[:, 0, 1, 2])


def test_they_are_told_apart(torchvision, detectron2):
  assert mapping.choose(torchvision, TORCH).name == f'{TORCHVISION}_coco'
  assert mapping.choose(detectron2, TORCH).name == DETECTRON2


def test_other_classes_and_other_networks(torchvision, detectron2):
  with pytest.raises(errors.UserError, match=r'are for 5 classes, not 80 .* Give num_classes=5'):
    from_torch(NAME, torchvision, TORCHVISION)
  with pytest.raises(errors.UserError, match='look like those of detectron2'):
    from_torch(NAME, detectron2, TORCHVISION, CLASSES)


def test_a_file_becomes_a_network_for_predictions(torchvision, tmp_path):
  path = tmp_path / 'detector.npz'
  np.savez(path, **torchvision)
  weights = exchange.read(path)
  config = weights.config
  assert config.model.name == NAME
  assert (config.model.settings, config.model.stride_in) == ('torchvision', '3x3')
  assert (config.data.shorter_side, config.data.longer_side) == (800, 1333)
  assert weights.num_classes == CLASSES and weights.class_names is None
  assert config.bn.epsilon == 0
  model = network.build_model(config, CLASSES)
  overrides = model_overrides(NAME, f'{TORCHVISION}_coco')
  assert exchange.function_of(model) == exchange.function_of(
    create_model(NAME, CLASSES, **overrides)
  )
  expected = from_torch(NAME, torchvision, f'{TORCHVISION}_coco', CLASSES)
  jax.tree.map(np.testing.assert_array_equal, weights.variables, expected)


def test_unused_ids_of_coco_come_last():
  """Of the 90 ids of torchvision's classes ten do not exist."""
  found = {e.path[-2:]: e for e in mapping.entries(f'{TORCHVISION}_coco', 90)}
  ids = np.arange(91, dtype=np.float32)
  for kind in ('kernel', 'bias'):
    entry = found['class_logits', kind]
    theirs = np.broadcast_to(ids.reshape(-1, *[1] * (len(entry.shape) - 1)), entry.shape)
    ours = entry.layout.restore(theirs)
    first = ours if ours.ndim == 1 else ours[0]
    assert first[:81].tolist() == [0, *coco.CATEGORIES]
    assert sorted(first.tolist()) == ids.tolist()
    np.testing.assert_array_equal(entry.layout.export(ours), theirs)
  deltas = found['box_deltas', 'bias'].layout.restore(np.arange(4 * 91, dtype=np.float32))
  np.testing.assert_array_equal(deltas[4 * 12 : 4 * 13], 4 * 13 + np.arange(4))
  names = exchange.known_class_names(VARIANTS[f'{TORCHVISION}_coco'], 90)
  assert names and names[11:13] == ('stop sign', 'parking meter') and names[80] == 'class 80'
  assert exchange.known_class_names(VARIANTS[DETECTRON2], 80) == names[:80]


@pytest.mark.slow
def test_a_converted_detector_finds_what_torchvision_does(tmp_path, shared_data):
  """From a file to a workdir, to boxes on photos, and back; torchvision's numbers are golden."""
  shapes = [(entry.name, entry.shape) for entry in mapping.entries(TORCHVISION, case.CLASSES)]
  path, workdir = tmp_path / 'detector.npz', tmp_path / 'workdir'
  arrays = case.weights(shapes)
  np.savez(path, **arrays)
  convert.main([f'--from={path}', f'--to={workdir}', f'--variant={TORCHVISION}'])
  back = tmp_path / 'back.safetensors'
  convert.main([f'--from={workdir}', f'--to={back}', f'--variant={TORCHVISION}'])
  again, _ = storage.read(back)
  assert again.keys() == arrays.keys()
  assert all((again[name] == array).all() for name, array in arrays.items())
  config = json.loads((workdir / 'config.json').read_text())
  config['data'] |= {'shorter_side': 192, 'longer_side': 256}
  (workdir / 'config.json').write_text(json.dumps(config))
  detector = senet_jax.load(workdir, task='detection')
  assert detector.class_names[:2] == ('person', 'bicycle')
  settings = dataclasses.replace(detector.model.options, post_nms=case.PROPOSALS)
  detector = dataclasses.replace(detector, model=detector.model.clone(settings=settings))
  images, _, _ = case.photos(shared_data)
  pixels = images * case.STD + case.MEAN
  height, width = case.SIZES[0]  # the other one is padded there
  photo = pixels[0, :height, :width].round().astype(np.uint8)
  (found,) = detector.detect([photo], threshold=0.05)
  assert found.size == (height, width)
  with np.load(paths.TESTS / 'golden' / 'numbers' / 'torchvision_detection.npz') as golden:
    # Pixels are rounded, which can move a box past another.
    near = np.abs(found.boxes[:, None] - golden['boxes0'][None]).max(-1).min(0) < 1
    assert near.mean() > 0.9
