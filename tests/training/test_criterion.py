"""Losses of smoothed and of mixed labels, value and gradient, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.training.criterion import Criterion, with_main_labels

CLASSES = 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (64, CLASSES)).astype(np.float32)
MIXED = {
  'labels': RNG.integers(0, CLASSES, 64).astype(np.int32),
  'other_labels': RNG.integers(0, CLASSES, 64).astype(np.int32),
  'share': RNG.uniform(size=64).astype(np.float32),
}
MIXED['share'][:2] = 0.25, 0.75  # at the threshold, which is none above it
PURE = {'labels': MIXED['labels']}


def targets_of(batch, smoothing: float, threshold: float | None) -> np.ndarray:
  eye = np.eye(CLASSES) * (1 - smoothing) + smoothing / CLASSES
  targets = eye[batch['labels']]
  if 'share' in batch:
    share = batch['share'].astype(float)[:, None]
    targets = share * targets + (1 - share) * eye[batch['other_labels']]
  return targets if threshold is None else (targets > threshold).astype(float)


@pytest.mark.parametrize('batch', [PURE, MIXED], ids=['pure', 'mixed'])
@pytest.mark.parametrize(('smoothing', 'threshold'), [(0.0, None), (0.1, None), (0.0, 0.25)])
def test_binary_cross_entropy(batch, smoothing, threshold):
  criterion = Criterion('bce', smoothing, threshold)
  loss, gradient = jax.value_and_grad(lambda x: criterion(x, batch).mean())(LOGITS)
  x, targets = LOGITS.astype(float), targets_of(batch, smoothing, threshold)
  each = np.logaddexp(0, x) - targets * x
  assert float(loss) == pytest.approx(each.mean(), abs=1e-6)
  expected = (1 / (1 + np.exp(-x)) - targets) / each.size
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.parametrize('batch', [PURE, MIXED], ids=['pure', 'mixed'])
@pytest.mark.parametrize('smoothing', [0.0, 0.1])
def test_cross_entropy(batch, smoothing):
  criterion = Criterion(smoothing=smoothing)
  loss, gradient = jax.value_and_grad(lambda x: criterion(x, batch).mean())(LOGITS)
  x, targets = LOGITS.astype(float), targets_of(batch, smoothing, None)
  shares = np.exp(x) / np.exp(x).sum(1, keepdims=True)
  assert float(loss) == pytest.approx(-(targets * np.log(shares)).sum(1).mean(), abs=1e-5)
  np.testing.assert_allclose(gradient, (shares - targets) / len(x), atol=1e-6)


def test_errors_are_of_the_larger_share():
  main = with_main_labels(jax.tree.map(jnp.asarray, MIXED))['labels']
  expected = np.where(MIXED['share'] < 0.5, MIXED['other_labels'], MIXED['labels'])
  np.testing.assert_array_equal(main, expected)
  assert with_main_labels(PURE) is PURE
