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


def test_first_stage():
  anchors = jnp.array([[0, 0, 31, 31], [64, 64, 95, 95], [-8, 0, 23, 31.0], [0, 0, 3, 3]])
  targets = {
    'boxes': jnp.array([[[0, 0, 31, 31], [0, 0, 0, 0.0]]]),
    'valid': jnp.array([[True, False]]),
    'crowd': jnp.zeros((1, 2), bool),
  }
  logits = jnp.zeros((1, 4))
  # Off by 1 in x of the one positive anchor.
  deltas = jnp.full((1, 4, 4), 5.0).at[0, 0].set(jnp.array([1.0, 0, 0, 0]))
  sizes, priority = jnp.array([[96, 96]]), jnp.linspace(0, 0.9, 4)[None]

  def run(options):
    args = (anchors, sizes, targets, priority, options)

    def loss(logits, deltas):
      both = rpn.rpn_losses(logits, deltas, *args)
      return sum(both), both

    (_, both), slopes = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(logits, deltas)
    return both, slopes

  # Of whole pixels the third anchor reaches over the image; three are left, of 256 that should be.
  (objectness, shift), slopes = run(DETECTRON)
  assert objectness == pytest.approx(3 * np.log(2) / 256)
  assert shift == pytest.approx((1 - 1 / 18) / 256)
  np.testing.assert_allclose(slopes[0][0] * 256, [-0.5, 0.5, 0, 0.5], atol=1e-6)
  np.testing.assert_allclose(slopes[1][0, 0] * 256, [1, 0, 0, 0], atol=1e-6)
  assert not np.any(slopes[1][0, 1:])
  # There the third one is neither: its IoU is 0.6. The means are over those that are there.
  (objectness, shift), _ = run(TORCHVISION)
  assert objectness == pytest.approx(np.log(2))
  assert shift == pytest.approx((1 - 1 / 18) / 3)
  (objectness, shift), _ = run(DETECTRON2)
  assert shift == pytest.approx(1 / 256)


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
