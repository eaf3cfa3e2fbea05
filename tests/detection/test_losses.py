"""Losses and their gradients on cases computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.detection import losses, roi_heads, rpn
from senet_jax.detection.settings import DETECTRON, DETECTRON2, TORCHVISION


@pytest.mark.parametrize(
  ('beta', 'values', 'slopes'),
  [
    (1.0, [2.5, 0.125, 0.0, 0.125, 1.5], [-1, -0.5, 0, 0.5, 1]),
    (0.25, [2.875, 0.375, 0.0, 0.375, 1.875], [-1, -1, 0, 1, 1]),
    (0.0, [3.0, 0.5, 0.0, 0.5, 2.0], [-1, -1, 0, 1, 1]),
  ],
)
def test_smooth_l1(beta, values, slopes):
  error = jnp.array([-3.0, -0.5, 0.0, 0.5, 2.0])
  np.testing.assert_allclose(losses.smooth_l1(error, beta), values)
  found = jax.vmap(jax.grad(lambda e: losses.smooth_l1(e, beta)))(error)
  np.testing.assert_allclose(found[jnp.array([0, 1, 3, 4])], np.array(slopes)[[0, 1, 3, 4]])


def test_masked_sum_has_no_gradient_elsewhere():
  values = jnp.array([1.0, 2.0, 4.0])
  mask = jnp.array([True, False, True])
  np.testing.assert_allclose(losses.masked_sum(values, mask), 5)
  np.testing.assert_allclose(jax.grad(losses.masked_sum)(values, mask), [1, 0, 1])


def rois(labels, valid):
  count = len(labels)
  return {
    'labels': jnp.array([labels]),
    'valid': jnp.array([valid]),
    'deltas': jnp.zeros((1, count, 4)),
    'boxes': jnp.zeros((1, count, 4)),
  }


def test_second_stage():
  sample = rois([2, 0, 1, 1], [True, True, True, False])
  logits = jnp.zeros((1, 4, 3))
  # The deltas of class 2 of the first box are off by 2 and 0.5; others than a box's own do nothing.
  deltas = jnp.full((1, 4, 3, 4), 7.0)
  deltas = deltas.at[0, 0, 2].set(jnp.array([2, 0.5, 0, 0])).at[0, 2, 1].set(0)

  def loss(*args):
    return roi_heads.roi_losses(*args, sample, DETECTRON)

  classes, boxes = loss(logits, deltas)
  slopes = jax.grad(lambda *args: sum(loss(*args)), argnums=(0, 1))(logits, deltas)
  assert classes == pytest.approx(np.log(3))
  assert boxes == pytest.approx((1.5 + 0.125) / 3)
  np.testing.assert_allclose(slopes[0][0, 0], np.array([1 / 3, 1 / 3, -2 / 3]) / 3, atol=1e-6)
  np.testing.assert_array_equal(slopes[0][0, 3], 0)
  expected = np.zeros((4, 3, 4))
  expected[0, 2, :2] = [1 / 3, 0.5 / 3]
  np.testing.assert_allclose(slopes[1][0], expected, atol=1e-6)


# An object at the first anchor, and a place for another one at the second.
FIRST_ANCHORS = np.array(
  [[0, 0, 31, 31], [64, 64, 95, 95], [-8, 0, 23, 31], [0, 0, 3, 3], [65, 0, 96, 31]], np.float32
)
FIRST_TARGETS = {
  'boxes': FIRST_ANCHORS[None, :2],
  'valid': np.array([[True, False]]),
  'crowd': np.zeros((1, 2), bool),
}


def first_stage(options, targets=FIRST_TARGETS, images=1):
  """Returns both losses of equal images, and their gradients with respect to the outputs."""
  # Off by 1 in x of the one positive anchor.
  deltas = np.full((1, 5, 4), 5.0, np.float32)
  deltas[0, 0] = [1, 0, 0, 0]
  given = {
    'sizes': np.array([[96, 96]]), 'targets': targets, 'logits': np.zeros((1, 5), np.float32),
    'deltas': deltas, 'priority': np.linspace(0, 0.9, 5)[None],
  }  # fmt: skip
  given = jax.tree.map(lambda x: jnp.repeat(jnp.asarray(x), images, 0), given)

  def loss(outputs):
    arguments = {**given, **outputs}
    both = rpn.rpn_losses(all_anchors=jnp.asarray(FIRST_ANCHORS), options=options, **arguments)
    return sum(both), both

  outputs = {name: given[name] for name in ('logits', 'deltas')}
  (_, both), slopes = jax.jit(jax.value_and_grad(loss, has_aux=True))(outputs)
  return both, slopes


@pytest.mark.parametrize('images', [1, 2])
def test_first_stage(images):
  # Of whole pixels the third anchor reaches over the image, and so does the last, whose edge is on
  # it; three are left, of 256 that should be.
  (objectness, shift), slopes = first_stage(DETECTRON, images=images)
  assert objectness == pytest.approx(3 * np.log(2) / 256)
  assert shift == pytest.approx((1 - 1 / 18) / 256)
  of_logits, of_deltas = (slopes[name] * 256 * images for name in ('logits', 'deltas'))
  np.testing.assert_allclose(of_logits, [[-0.5, 0.5, 0, 0.5, 0]] * images, atol=1e-6)
  np.testing.assert_allclose(of_deltas[:, 0], [[1, 0, 0, 0]] * images, atol=1e-6)
  assert not np.any(of_deltas[:, 1:])
  # There the third one is neither: its IoU is 0.6. The means are over those that are there.
  (objectness, shift), _ = first_stage(TORCHVISION, images=images)
  assert objectness == pytest.approx(np.log(2))
  assert shift == pytest.approx((1 - 1 / 18) / 4)
  (_, shift), _ = first_stage(DETECTRON2, images=images)
  assert shift == pytest.approx(1 / 256)


def test_a_crowd_makes_no_anchor_positive():
  crowd = {**FIRST_TARGETS, 'valid': np.ones((1, 2), bool), 'crowd': np.array([[False, True]])}
  with_it, without = (jax.tree.leaves(first_stage(DETECTRON, x)) for x in (crowd, FIRST_TARGETS))
  assert len(with_it) == len(without) == 4
  for a, b in zip(with_it, without, strict=True):
    np.testing.assert_array_equal(a, b)


def test_no_sample_of_the_second_stage_is_in_a_crowd():
  proposals = rpn.Proposals(
    boxes=jnp.array([[[0, 0, 9, 9], [42, 2, 51, 11], [55, 0, 64, 9], [80, 80, 89, 89.0]]]),
    scores=jnp.zeros((1, 4)),
    valid=jnp.ones((1, 4), bool),
  )
  # One object, all of it in a crowd, and a second crowd with the second proposal, and 0.5 of the
  # third one.
  targets = {
    'boxes': jnp.array([[[0, 0, 9, 9], [0, 0, 19, 19], [40, 0, 59, 19.0]]]),
    'classes': jnp.array([[4, 5, 6]]),
    'valid': jnp.ones((1, 3), bool),
    'crowd': jnp.array([[False, True, True]]),
  }

  def sampled(options):
    sample = roi_heads.sample_rois(proposals, targets, jnp.linspace(0, 0.9, 7)[None], options)
    there = np.asarray(sample['valid'][0])
    found = zip(sample['boxes'][0][there].tolist(), sample['labels'][0][there], strict=True)
    return sorted((*map(int, box), int(label)) for box, label in found)

  # The object is one of the boxes itself, wherever it is.
  assert sampled(DETECTRON) == [(0, 0, 9, 9, 5), (55, 0, 64, 9, 0), (80, 80, 89, 89, 0)]
  everywhere = sampled(TORCHVISION)
  assert everywhere.count((0, 0, 9, 9, 5)) == 2 and (42, 2, 51, 11, 0) in everywhere


def test_no_objects():
  anchors = jnp.array([[0, 0, 31, 31], [64, 64, 95, 95.0]])
  targets = {
    'boxes': jnp.zeros((1, 2, 4)),
    'valid': jnp.zeros((1, 2), bool),
    'crowd': jnp.zeros((1, 2), bool),
  }
  args = (anchors, jnp.array([[96, 96]]), targets, jnp.zeros((1, 2)), TORCHVISION)
  loss = lambda logits, deltas: sum(rpn.rpn_losses(logits, deltas, *args))  # noqa: E731
  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
  value, slopes = run(jnp.zeros((1, 2)), jnp.ones((1, 2, 4)))
  assert value == pytest.approx(np.log(2))
  np.testing.assert_allclose(slopes[0], 0.25)
  np.testing.assert_array_equal(slopes[1], 0)
