"""The detectors: counts, variables, options, training step, what is frozen, bad input."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from senet_jax import errors
from senet_jax.detection import DetectorSettings, FasterRCNN, is_frozen, loss_fn
from senet_jax.detection.rpn import Proposals, best_of_batch
from senet_jax.detection.settings import DETECTRON, TORCHVISION
from senet_jax.layers import SEConfig, excitations
from senet_jax.models import all_models, create_model, list_models, model_info
from tests.helpers.models import count, tree_of

# Parameters of the reference, the trunk's affine maps counted.
COUNTS = {
  'faster_rcnn_r50_fpn': 41_757_156,
  'se_faster_rcnn_r50_fpn': 44_288_148,
  'faster_rcnn_r101_fpn': 60_749_284,
  'se_faster_rcnn_r101_fpn': 65_526_996,
}
WITHOUT_BIASES = {'se_faster_rcnn_r50_fpn': 44_272_100, 'se_faster_rcnn_r101_fpn': 65_492_452}
# Of paths, shapes and dtypes, and how many: the variable tree is the schema of every checkpoint.
DIGESTS = {
  'faster_rcnn_r50_fpn': ('8af29acb3f37dfac', 295),
  'se_faster_rcnn_r50_fpn': ('5cfc21280dcd0d57', 359),
  'faster_rcnn_r101_fpn': ('cc537bcadf38144c', 550),
  'se_faster_rcnn_r101_fpn': ('1448071103d3e11f', 682),
}
SIDE = 64


@functools.cache
def tree(name, **options):
  return tree_of(create_model(name, **options), SIDE)


def test_lists():
  assert list_models(task='detection') == sorted(COUNTS)
  assert not set(COUNTS) & set(list_models())
  assert all_models('*faster*') == sorted(COUNTS)
  assert all_models('*resnet50') == list_models('*resnet50')
  assert model_info('se_faster_rcnn_r50_fpn').published == {'table_7': {'ap': 40.4, 'ap50': 61.0}}
  with pytest.raises(errors.UserError, match='segmentation'):
    list_models(task='segmentation')
  with pytest.raises(errors.UserError, match='did you mean'):
    create_model('faster_rcnn_r50')


DEEP = [pytest.param(name, marks=pytest.mark.thorough) for name in COUNTS if 'r101' in name]
ALL_NAMES = [*(name for name in COUNTS if 'r50' in name), *DEEP]


@pytest.mark.parametrize('name', ALL_NAMES)
def test_parameters(name):
  params = tree(name)['params']
  assert count(params) == COUNTS[name]
  parts = {part: count(params[part]) for part in ('fpn', 'rpn', 'roi_head')}
  assert parts == {'fpn': 3_344_384, 'rpn': 593_935, 'roi_head': 14_310_805}
  if name in WITHOUT_BIASES:
    assert count(tree(name, se=SEConfig(use_bias=False))['params']) == WITHOUT_BIASES[name]


def digest(name):
  leaves = traverse_util.flatten_dict(tree(name))
  lines = sorted(f'{"/".join(path)} {leaf.shape} {leaf.dtype}' for path, leaf in leaves.items())
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:16], len(lines)


@pytest.mark.parametrize('name', ALL_NAMES)
def test_golden_variable_tree(name):
  assert digest(name) == DIGESTS[name]


@pytest.mark.thorough
def test_variable_tree_does_not_depend_on_options():
  name = 'se_faster_rcnn_r50_fpn'
  options = {'dtype': jnp.bfloat16, 'settings': 'torchvision', 'stride_in': '3x3'}
  assert tree(name, **options) == tree(name)


def test_twins():
  plain, se = (f'{prefix}faster_rcnn_r50_fpn' for prefix in ('', 'se_'))
  assert tree(plain, se=SEConfig()) == tree(se)
  assert tree(se, se=None) == tree(plain)


@pytest.mark.thorough
@pytest.mark.parametrize('trunk', ['resnet18', 'resnext50_32x4d', 'senet154'])
def test_other_trunks(trunk):
  model = create_model('se_faster_rcnn_r50_fpn', trunk=trunk)
  out = jax.eval_shape(
    lambda key: model.init_with_output(key, jnp.zeros((1, SIDE, SIDE, 3)), False)[0],
    jax.random.key(0),
  )
  assert out['boxes'].shape == (1, 100, 4)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'trunk': 'vgg16_bn'}, 'model.trunk'),
    ({'trunk': 'se_resnet50'}, 'SE is an option of the detector'),
    ({'settings': 'yolo'}, 'model.settings'),
    ({'depths': (1, 1, 1, 1)}, 'depths'),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(errors.UserError, match=message):
    create_model('faster_rcnn_r50_fpn', **options)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'score_threshold': 1.5}, 'score_threshold=1.5 must be from 0 to 1'),
    ({'rpn_negative': 0.8}, 'rpn_negative=0.8'),
    ({'post_nms': (0, 5)}, 'post_nms=0'),
    ({'anchor_style': 'yolo'}, 'anchor_style'),
    ({'box_offset': 2}, 'box_offset'),
  ],
)
def test_bad_settings(options, message):
  with pytest.raises(errors.UserError, match=message):
    DetectorSettings(**options)


SMALL = {
  'pre_nms': (60, 60),
  'post_nms': (40, 40),
  'rpn_batch': 32,
  'roi_batch': 16,
  'detections': 10,
  'anchor_sizes': (16, 32, 64, 128, 256),
}
TARGETS = {
  'boxes': jnp.array([[[4, 4, 40, 40], [20, 10, 60, 60.0]], [[8, 0, 30, 50], [0, 0, 0, 0.0]]]),
  'classes': jnp.array([[1, 0], [2, 0]]),
  'valid': jnp.array([[True, True], [True, False]]),
  'crowd': jnp.array([[False, True], [False, False]]),
}
SIZES = jnp.array([[64, 64], [60, 50]])


def small_model(options=DETECTRON, **overrides):
  settings = DetectorSettings(**{**vars(options), **SMALL})
  arguments = {'trunk': 'resnet18', 'num_classes': 3, 'settings': settings, 'se': SEConfig()}
  return FasterRCNN(**{**arguments, **overrides})


@pytest.fixture(scope='module')
def images():
  return jnp.asarray(np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)), jnp.float32)


@pytest.fixture(scope='module')
def variables(images):
  return jax.jit(functools.partial(small_model().init, train=False))(jax.random.key(0), images)


@jax.jit
def step(params, batch_stats, batch, key):
  loss = functools.partial(loss_fn, model=small_model(), rngs={'sampling': key})
  (total, losses), gradients = jax.value_and_grad(loss, has_aux=True)(params, batch_stats, batch)
  return total, losses, gradients


@pytest.fixture(scope='module')
def batch(images):
  return {'images': images, 'sizes': SIZES, 'targets': TARGETS}


@pytest.fixture(scope='module')
def one_step(variables, batch):
  return step(variables['params'], variables['batch_stats'], batch, jax.random.key(1))


def test_training_step(one_step):
  total, losses, gradients = one_step
  assert set(losses) == {'rpn_objectness', 'rpn_boxes', 'roi_classes', 'roi_boxes'}
  assert total == pytest.approx(sum(map(float, losses.values())))
  # At the start objectness is undecided, and so are four classes.
  assert losses['roi_classes'] == pytest.approx(np.log(4), abs=0.2)
  for path, gradient in traverse_util.flatten_dict(gradients).items():
    assert np.isfinite(gradient).all(), path
    if is_frozen(path):
      assert not np.any(gradient), path
    elif path[0] == 'backbone':
      assert np.any(gradient), path


def test_what_is_frozen():
  paths = set(traverse_util.flatten_dict(tree('se_faster_rcnn_r50_fpn')['params']))
  frozen = {'/'.join(path) for path in paths if is_frozen(path)}
  assert {'backbone/stem_conv/kernel', 'backbone/stage2_block1/se/fc1/bias'} <= frozen
  assert {'backbone/stage5_block3/bn3/scale', 'backbone/stage3_block1/proj_bn/bias'} <= frozen
  free = {'/'.join(path) for path in paths} - frozen
  assert {'backbone/stage3_block1/conv1/kernel', 'backbone/stage3_block1/se/fc1/bias'} <= free
  assert {'fpn/lateral2/bias', 'rpn/conv/kernel', 'roi_head/fc6/bias'} <= free


def test_the_sample_is_that_of_the_key(variables, batch, one_step):
  args = variables['params'], variables['batch_stats'], batch
  again, other = (step(*args, jax.random.key(seed)) for seed in (1, 2))
  assert again[0] == one_step[0]
  assert other[0] != one_step[0]


def test_padding_of_targets_changes_nothing(variables, batch, one_step):
  moved = {**TARGETS, 'boxes': TARGETS['boxes'].at[1, 1].set(jnp.array([1, 2, 50, 60]))}
  total, *_ = step(
    variables['params'],
    variables['batch_stats'],
    {**batch, 'targets': moved},
    jax.random.key(1),
  )
  assert total == one_step[0]


# So that there are detections without any training.
ALL = DetectorSettings(score_threshold=0.0)


@jax.jit
def detect(variables, images, sizes):
  return small_model(ALL).apply(variables, images, False, sizes)


@pytest.fixture(scope='module')
def detections(variables, images):
  return jax.tree.map(np.asarray, detect(variables, images, SIZES))


def test_detections(detections):
  assert detections['boxes'].shape == (2, 10, 4)
  assert detections['valid'].any(1).all()
  assert (np.diff(detections['scores'], axis=1) <= 0).all()
  for i, (height, width) in enumerate(np.asarray(SIZES)):
    boxes = detections['boxes'][i][detections['valid'][i]]
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= width - 1).all()
    assert (boxes[:, 3] <= height - 1).all()
  for name, value in detections.items():
    assert not value[~detections['valid']].any(), name


def test_an_image_is_detected_alike_in_other_places(variables, images, detections):
  swapped = detect(variables, images[::-1], SIZES[::-1])
  np.testing.assert_allclose(swapped['boxes'][::-1], detections['boxes'], atol=1e-2)
  np.testing.assert_allclose(swapped['scores'][::-1], detections['scores'], atol=1e-5)


def test_bfloat16(variables, images, batch):
  model = small_model(dtype=jnp.bfloat16)
  loss = functools.partial(loss_fn, model=model, rngs={'sampling': jax.random.key(1)})
  total, losses = jax.eval_shape(loss, variables['params'], variables['batch_stats'], batch)
  assert total.dtype == jnp.float32
  assert all(value.dtype == jnp.float32 for value in losses.values())


def test_gates_go_by_the_papers_names(variables, images):
  run = functools.partial(small_model().apply, train=False, mutable=['intermediates'])
  _, state = jax.eval_shape(run, variables, images)
  assert list(excitations(state['intermediates']))[:3] == ['SE_2_1', 'SE_2_2', 'SE_3_1']


def test_no_callbacks(variables, images, batch):
  key = jax.random.key(0)
  trained = jax.make_jaxpr(step)(variables['params'], variables['batch_stats'], batch, key)
  detect = functools.partial(small_model().apply, train=False)
  for jaxpr in (trained, jax.make_jaxpr(detect)(variables, images)):
    assert 'callback' not in str(jaxpr)


@pytest.mark.parametrize(
  ('shape', 'train', 'message'),
  [((1, 64, 65, 3), False, 'multiples of 32'), ((1, 64, 64, 3), True, 'train=True needs targets')],
)
def test_bad_inputs(variables, shape, train, message):
  run = functools.partial(small_model().apply, train=train)
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(run, variables, jnp.zeros(shape))


def test_proposals_of_the_whole_batch():
  proposals = Proposals(
    jnp.zeros((2, 3, 4)),
    jnp.array([[5.0, 3.0, 1.0], [9.0, 4.0, 2.0]]),
    jnp.array([[True, True, True], [False, True, True]]),
  )
  best = best_of_batch(proposals, 3)
  np.testing.assert_array_equal(best.valid, [[True, True, False], [False, True, False]])


def test_conventions():
  assert create_model('faster_rcnn_r50_fpn').options is DETECTRON
  assert create_model('faster_rcnn_r50_fpn', settings='torchvision').options is TORCHVISION
