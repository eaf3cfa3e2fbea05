"""Mixup and CutMix: their laws against NumPy, and who is mixed with whom."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from senet_jax import config as config_lib, runtime
from senet_jax.data import mixing
from senet_jax.data.device_feed import DeviceFeed
from senet_jax.data.mixing import Mixing
from senet_jax.errors import UserError
from senet_jax.training import setup

SIDES = 17, 24
DRAWS = 4000


@functools.cache
def drawn(mixup: float, cutmix: float, **options) -> tuple[np.ndarray, np.ndarray]:
  """Weights of pixels `[n, H, W]` and shares of labels `[n]`."""
  mixer = Mixing(0, mixup, cutmix, **dict(options))
  draw = jax.jit(jax.vmap(functools.partial(mixer.draw, shape=SIDES)))
  return tuple(map(np.asarray, draw(jax.random.split(jax.random.key(1), DRAWS))))


def rand_bbox(sides, share, center):
  """The box of timm 1.0.31, with its draws given."""
  low, high = [], []
  for side, middle in zip(sides, center, strict=True):
    cut = int(side * np.sqrt(1 - share))
    low.append(np.clip(middle - cut // 2, 0, side))
    high.append(np.clip(middle + (cut + 1) // 2, 0, side))
  return low, high


def test_boxes_are_those_of_timm():
  rng = np.random.default_rng(0)
  shares = rng.uniform(size=DRAWS).astype(np.float32)
  centers = rng.integers(0, SIDES, (DRAWS, 2))
  found = jax.jit(jax.vmap(lambda s, c: mixing.box(s, c, jnp.array(SIDES))))(shares, centers)
  expected = [rand_bbox(SIDES, s, c) for s, c in zip(shares, centers, strict=True)]
  np.testing.assert_array_equal(np.stack(found, 1), np.array(expected))


@pytest.mark.parametrize('alpha', [0.1, 1.0])
def test_shares_of_mixup_are_of_the_beta_distribution(alpha):
  weights, shares = drawn(alpha, 0.0)
  np.testing.assert_array_equal(weights, np.broadcast_to(shares[:, None, None], weights.shape))
  reference = np.random.default_rng(0).beta(alpha, alpha, 200_000)
  levels = np.linspace(0.02, 0.98, 25)
  below = (shares[:, None] < levels).mean(0) - (reference[:, None] < levels).mean(0)
  assert np.abs(below).max() < 1.95 / np.sqrt(DRAWS)  # Kolmogorov and Smirnov, p = 0.001
  assert np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1


def test_cutmix_cuts_one_box_whose_share_is_that_of_the_label():
  weights, shares = drawn(0.0, 1.0)
  assert set(np.unique(weights)) == {0.0, 1.0}
  np.testing.assert_allclose(shares, weights.mean((1, 2)), rtol=1e-6)
  inside = weights == 0
  rows, columns = inside.any(2), inside.any(1)
  np.testing.assert_array_equal(inside, rows[:, :, None] & columns[:, None])
  assert (np.abs(np.diff(np.pad(rows, [(0, 0), (1, 1)]).astype(int))).sum(1) <= 2).all()
  # Against draws of NumPy through timm's box: the mean share, and how often each pixel is cut.
  rng = np.random.default_rng(0)
  expected = np.ones((10_000, *SIDES))
  for weight in expected:
    (y, x), (end_y, end_x) = rand_bbox(SIDES, rng.beta(1, 1), rng.integers(0, SIDES))
    weight[y:end_y, x:end_x] = 0
  np.testing.assert_allclose(weights.mean(0), expected.mean(0), atol=0.04)
  assert weights.mean() == pytest.approx(expected.mean(), abs=0.015)


def test_how_often():
  weights, shares = drawn(0.5, 1.0, cutmix_share=0.3, share=0.6)
  mixed = shares < 1 - 1e-6
  cut = mixed & (weights.min((1, 2)) == 0) & (weights.max((1, 2)) == 1)
  # A share of nearly 1, or a box of less than a pixel, is as good as none.
  assert mixed.mean() == pytest.approx(0.6, abs=0.12)
  assert cut.mean() / mixed.mean() == pytest.approx(0.3, abs=0.1)


def numbered(n: int) -> dict[str, np.ndarray]:
  images = np.arange(n, dtype=np.float32)[:, None, None, None] * np.ones((1, *SIDES, 3), np.float32)
  return {'images': images, 'labels': np.arange(n, dtype=np.int32)}


@pytest.mark.parametrize('each', [False, True])
def test_an_image_is_what_its_labels_and_share_say(each):
  mixer, batch = jax.jit(Mixing(0, 0.5, 1.0, each=each)), numbered(16)
  of_each = jax.random.split(jax.random.key(3), 16)
  shares = []
  for step in range(6):
    mixed = jax.device_get(mixer(batch, of_each, jnp.int32(step)))
    np.testing.assert_array_equal(mixed['labels'], batch['labels'])
    np.testing.assert_array_equal(mixed['other_labels'], batch['labels'] ^ 1)
    share = mixed['share']
    value = share * mixed['labels'] + (1 - share) * mixed['other_labels']
    np.testing.assert_allclose(mixed['images'].mean((1, 2, 3)), value, rtol=1e-4, atol=1e-4)
    shares.append(share)
  shares = np.stack(shares)
  if each:  # by example alone
    assert len(np.unique(shares[0])) > 10 and (shares == shares[0]).all()
  else:  # by step alone
    assert len(np.unique(shares)) == 6 and (shares == shares[:, :1]).all()


def digits(**fields):
  config = config_lib.default()
  config.model.name = 'se_resnet20_cifar'
  config.data.name = 'digits'
  config.batch_size = 96
  config.update_from_flattened_dict(fields)
  return config


def test_one_device_mixes_as_eight_do():
  config = digits(**{'data.mixup': 0.4, 'data.cutmix': 1.0, 'data.mix_each': True,
                     'data.repeats': 3, 'data.erasing': 0.5})  # fmt: skip
  found = []
  for devices in (1, 8):
    mesh = runtime.data_mesh(devices)
    feed = DeviceFeed.create(config, mesh)
    program = runtime.data_parallel(feed.batch, mesh, (P(), P()), P('data'))
    inputs, _ = feed.inputs(17, 1)
    found.append(jax.device_get(program(inputs, np.int32(17))))
  for name, array in found[0].items():
    np.testing.assert_allclose(found[1][name], array, rtol=1e-5, atol=1e-5)
  assert found[0].keys() == {'images', 'labels', 'other_labels', 'share'}


def test_an_odd_share_of_a_batch_cannot_be_mixed():
  with pytest.raises(UserError, match='batch_size=72 gives a device 9 images, an odd number'):
    setup.check_batch(digits(batch_size=72, **{'data.cutmix': 1.0}), 8)
  setup.check_batch(digits(batch_size=72), 8)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'data.mixup': -0.1}, r'data\.mixup=-0\.1 must be a finite number'),
    ({'data.cutmix_share': 0.3}, r'data\.cutmix_share=0\.3 has no effect unless both'),
    ({'data.mix_each': True}, r'data\.mix_each=True has no effect without'),
    ({'bce_threshold': 0.2}, r"bce_threshold=0\.2 has no effect with config\.loss='cross_entropy'"),
    (
      {'loss': 'bce', 'bce_threshold': 0.2, 'label_smoothing': 0.1},
      r'makes every target 0 or 1, so that config\.label_smoothing=0\.1 would have no effect',
    ),
    ({'model.drop_path': 1.0}, r'model\.drop_path=1\.0 must be a finite number.* below 1'),
    ({'data.repeats': 9, 'batch_size': 8}, r'repeats=9 of an image do not fit into a batch of 8'),
    ({'data.repeats': 3, 'data.sampling': 'class_aware'}, r'repeats=3 is for .*sampling=uniform'),
  ],
)
def test_what_does_not_fit(fields, message):
  with pytest.raises(UserError, match=message) as caught:
    config_lib.check(digits(**fields))
  assert '\n' not in str(caught.value)
