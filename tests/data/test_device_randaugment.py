"""RandAugment on the device: Pillow's pixels, the laws of the stream's, the feed that does it."""

import functools
from contextlib import nullcontext
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image

from senet_jax import config as config_lib, runtime
from senet_jax.config.randaugment import Policy
from senet_jax.data import datasets, draws, randaugment
from senet_jax.data.device_feed import DeviceFeed
from senet_jax.data.device_randaugment import DeviceRandAugment
from senet_jax.data.preprocessing import TrainingTransform
from senet_jax.data.randaugment import OPERATIONS, Moving
from senet_jax.errors import UserError
from senet_jax.runtime import keys
from tests.helpers.photos import small_photo

FILL = (124, 116, 104)
RECIPE = 'rand-m7-mstd0.5-inc1'
AMOUNTS = (0.0, 0.13, 0.5, 0.7, 0.99, 1.0)


def device(text: str = RECIPE, bicubic: bool = True) -> DeviceRandAugment:
  return DeviceRandAugment(Policy.parse(text), FILL, bicubic)


def for_tpu(*arguments, tpu=None, default, **_):
  """Takes the place of `jax.lax.platform_dependent`."""
  return (tpu or default)(*arguments)


@functools.cache
def changed(bicubic: bool, tpu: bool):
  one = device(bicubic=bicubic).change

  @jax.jit
  def change(image, number, amount):
    with mock.patch.object(jax.lax, 'platform_dependent', for_tpu) if tpu else nullcontext():
      return one(image, number[None], amount[None])

  return change


@pytest.mark.parametrize('tpu', [False, True], ids=['cpu', 'tpu'])
@pytest.mark.parametrize('resample', ['BILINEAR', 'BICUBIC'])
@pytest.mark.parametrize('number', range(1, 1 + len(OPERATIONS)), ids=OPERATIONS)
def test_an_operation_is_within_a_grey_level_of_pillows(number, resample, tpu):
  name, function = list(OPERATIONS.items())[number - 1]
  images = [small_photo(seed, 32, 32) for seed in (0, 1)]
  images += [np.full((32, 32, 3), 77, np.uint8), images[0] // 3 + 40]
  moving = Moving(FILL, Image.Resampling[resample])
  for image in images:
    for amount in (*AMOUNTS, *(-a for a in AMOUNTS if name in randaugment.SIGNED)):
      expected = np.asarray(function(Image.fromarray(image), amount, moving)).astype(int)
      found = changed(resample == 'BICUBIC', tpu)(image, np.int32(number), np.float32(amount))
      assert found.dtype == np.uint8
      assert np.abs(np.asarray(found).astype(int) - expected).max() <= 1, amount


@pytest.mark.parametrize(
  'text', [RECIPE, 'rand-m8-mstd101-n3-p1-inc1', 'rand-m7-mstd9-mmax8-inc1', 'rand-m4-p0.9-inc1']
)
def test_the_laws_are_those_of_the_stream(text):
  count = 8000
  of_each = jax.random.split(jax.random.key(0), count)
  which, amounts = jax.device_get(jax.jit(jax.vmap(device(text).plan))(of_each))
  theirs = randaugment.RandAugment(Policy.parse(text), Moving(FILL, Image.Resampling.BILINEAR))
  numbers = np.stack([np.arange(count), np.zeros(count, int)], 1)
  plans = [theirs.plan(row) for row in draws.uniform(numbers, theirs.draws)]
  done = [step for plan in plans for step in plan]
  expected = np.array([1 + list(OPERATIONS).index(name) for name, _ in done])
  operations = which.shape[1]
  assert (which > 0).mean() == pytest.approx(len(done) / count / operations, abs=0.015)
  shares = [np.bincount(x[x > 0], minlength=16)[1:] / (x > 0).sum() for x in (which, expected)]
  np.testing.assert_allclose(shares[0], shares[1], atol=0.015)
  for sign in (-1, 1):  # those that have a sign, and all others
    ours = np.sort(sign * amounts[(which > 0) & (sign * amounts > 0)])
    other = np.sort([sign * a for _, a in done if sign * a > 0])
    assert len(ours) == pytest.approx(len(other), rel=0.05)
    levels = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(ours, levels), np.quantile(other, levels), atol=0.03)
  assert set(which[amounts < 0]) == {
    1 + list(OPERATIONS).index(name) for name in randaugment.SIGNED
  }


@pytest.mark.thorough
def test_branches_and_all_operations_at_once_are_the_same():
  images = jnp.stack([small_photo(seed, 16, 16) for seed in range(8)])
  of_each = jax.random.split(jax.random.key(4), 8)
  change = device('rand-m7-mstd0.5-p1-inc1')
  drawn = jax.vmap(change.plan)(of_each)
  found, together = (
    jax.jit(change)(of_each, images),
    jax.jit(jax.vmap(change.change))(images, *drawn),
  )
  np.testing.assert_allclose(found.astype(int), together.astype(int), atol=1)
  assert (found != images).any((1, 2, 3)).mean() > 0.5


def cifar(**fields):
  config = config_lib.default()
  config.model.name, config.data.fake, config.batch_size = 'se_resnet20_cifar', True, 24
  config.update_from_flattened_dict({'data.randaugment': RECIPE, **fields})
  return config


@pytest.mark.parametrize('devices', [1, pytest.param(8, marks=pytest.mark.thorough)])
def test_the_feed_on_one_device_and_on_eight(monkeypatch, devices):
  """By example alone, before all else, with the mean colour around what is moved."""
  monkeypatch.setattr(datasets, '_FAKE_EXAMPLES', 48)
  config = cifar(**{'data.pad': 0, 'data.flip': False})
  config_lib.check(config)
  mesh = runtime.data_mesh(devices)
  feed = DeviceFeed.create(config, mesh)

  def made(inputs, step):
    return feed.batch(inputs, step)['images'], *feed.examples(inputs, step)

  program = runtime.data_parallel(made, mesh, (P(), P()), P('data'))
  images, index, epoch = jax.device_get(program(feed.inputs(3, 1)[0], np.int32(3)))
  of_each = jax.vmap(functools.partial(keys.of_example, config.seed))(epoch, index)
  plain = TrainingTransform.create(config).plain
  change = DeviceRandAugment(Policy.parse(RECIPE), tuple(round(x) for x in plain.mean), False)
  which, amounts = jax.vmap(change.plan)(of_each)
  originals = jax.device_get(feed.split.arrays['images'])[index]
  one = jax.jit(change.change)
  for k, image in enumerate(originals):
    expected = one(image, which[k], amounts[k])
    np.testing.assert_allclose(images[k], plain.to_input(expected[None])[0], atol=1e-5)


def test_what_does_not_fit():
  with pytest.raises(UserError, match=r'digits is grey; leave .*randaugment out'):
    TrainingTransform.create(cifar(**{'data.name': 'digits'}))
  bicubic = {'data.crop_interpolation': 'bicubic'}
  config_lib.check(cifar(**bicubic))
  with pytest.raises(UserError, match='crop_interpolation=bicubic has no effect'):
    config_lib.check(cifar(**bicubic, **{'data.randaugment': None}))
