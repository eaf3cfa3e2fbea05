"""Parts of modern recipes against timm's own code, draw by draw."""

import importlib
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image

from senet_jax.config.randaugment import Policy
from senet_jax.data import mixing
from senet_jax.data.randaugment import OPERATIONS, Moving, RandAugment
from senet_jax.training.criterion import Criterion
from tests.helpers.photos import small_photo
from tests.helpers.torch_zoo import import_timm

import_timm()
theirs = importlib.import_module('timm.data.auto_augment')
mixup = importlib.import_module('timm.data.mixup')
losses = importlib.import_module('timm.loss')

FILL = (124, 116, 104)
RESAMPLINGS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


@pytest.mark.parametrize('name', OPERATIONS)
def test_an_operation_at_any_magnitude(name, monkeypatch):
  image = Image.fromarray(small_photo(3, 64, 48))
  for resample in RESAMPLINGS:
    options = {'img_mean': FILL, 'interpolation': resample}
    # At 10 timm asks Pillow for an image of no bits, which it refuses.
    for magnitude in np.linspace(0, 9.9, 21):
      for sign in (1, -1):
        monkeypatch.setattr(theirs, '_randomly_negate', lambda v, sign=sign: sign * v)
        operation = theirs.AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=options)
        expected = np.asarray(operation(image)).astype(int)
        signed = sign if theirs.LEVEL_TO_ARG[name] is not None else 1
        if name in ('PosterizeIncreasing', 'SolarizeIncreasing', 'SolarizeAdd'):
          signed = 1
        found = OPERATIONS[name](image, signed * magnitude / 10, Moving(FILL, resample))
        assert np.abs(np.asarray(found).astype(int) - expected).max() <= 1, (magnitude, sign)


def test_all_operations_are_there():
  assert list(OPERATIONS) == theirs._RAND_INCREASING_TRANSFORMS


@pytest.mark.parametrize('text', ['rand-m7-mstd0.5-inc1', 'rand-m6-mstd0.5-inc1', 'rand-n3-inc1'])
def test_the_law_of_operations(text):
  """How often each operation is done, and the arguments that reach it."""
  random.seed(0)
  np.random.seed(0)  # noqa: NPY002
  seen, count = [], 20_000
  transform = theirs.rand_augment_transform(text, {'img_mean': FILL})

  def record(operation):
    def function(image, *arguments, **_):
      seen.append((operation.name, *arguments))
      return image

    return function

  for operation in transform.ops:
    operation.aug_fn = record(operation)
  for _ in range(count):
    transform(None)
  ours = RandAugment(Policy.parse(text), Moving(FILL, RESAMPLINGS[0]))
  drawn = np.random.default_rng(0).uniform(size=(count, ours.draws))
  found = [step for row in drawn for step in ours.plan(row)]
  assert len(found) == pytest.approx(len(seen), rel=0.05)
  for name, scale in (('Rotate', 30), ('ShearX', 0.3), ('TranslateYRel', 0.45)):
    mine = np.array([amount * scale for n, amount in found if n == name])
    other = np.array([arguments[0] for n, *arguments in seen if n == name])
    assert len(mine) == pytest.approx(len(other), rel=0.15)
    assert np.abs(mine).mean() == pytest.approx(np.abs(other).mean(), rel=0.02)
    assert (mine > 0).mean() == pytest.approx((other > 0).mean(), abs=0.1)


def test_boxes_of_cutmix(monkeypatch):
  rng, sides = np.random.default_rng(0), (224, 160)
  for _ in range(3000):
    share, center = np.float32(rng.uniform()), [rng.integers(0, side) for side in sides]
    given = iter(center)
    monkeypatch.setattr(np.random, 'randint', lambda *a, g=given, **k: next(g))
    yl, yh, xl, xh = mixup.rand_bbox((3, *sides), share)
    low, high = mixing.box(share, np.array(center), np.array(sides))
    assert (*low, *high) == (yl, xl, yh, xh)


def test_targets_and_losses():
  rng, k = np.random.default_rng(0), 10
  logits = rng.normal(0, 3, (32, k)).astype(np.float32)
  labels = torch.from_numpy(rng.integers(0, k, 32))
  for share, smoothing, threshold in ((0.3, 0.1, None), (0.8, 0.0, 0.2), (0.55, 0.0, None)):
    targets = mixup.mixup_target(labels, k, share, smoothing)
    batch = {
      'labels': jnp.asarray(labels.numpy()),
      'other_labels': jnp.asarray(labels.numpy()[::-1].copy()),
      'share': jnp.full(32, share),
    }
    x = torch.tensor(logits, requires_grad=True)
    loss = losses.BinaryCrossEntropy(target_threshold=threshold)(x, targets)
    loss.backward()
    criterion = Criterion('bce', smoothing, threshold)
    value, gradient = jax.value_and_grad(lambda z, c=criterion, b=batch: c(z, b).mean())(logits)
    assert float(value) == pytest.approx(loss.item(), abs=1e-6)
    np.testing.assert_allclose(gradient, x.grad.numpy(), atol=1e-6)
    if threshold is None:
      soft = losses.SoftTargetCrossEntropy()(torch.tensor(logits), targets)
      ours = Criterion(smoothing=smoothing)(jnp.asarray(logits), batch).mean()
      assert float(ours) == pytest.approx(soft.item(), abs=1e-5)
