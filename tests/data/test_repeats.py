"""Repeated augmentation: which images a batch has, on any hosts and devices; random erasing."""

import functools
import math

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from senet_jax import config as config_lib, runtime
from senet_jax.data import augment
from senet_jax.data.device_feed import DeviceFeed
from senet_jax.data.stream_feed import Order

N, BATCH, TIMES = 100, 48, 3


def reads(order: Order, steps: range) -> np.ndarray:
  return np.stack([order.examples(step)[1:] for step in steps], axis=1)


@pytest.mark.parametrize('hosts', [1, 2, 3])
def test_each_image_comes_three_times(hosts):
  parts = [
    reads(Order(N, BATCH, 5, host, hosts, repeats=TIMES), range(25)) for host in range(hosts)
  ]
  epoch, index = np.concatenate(parts, axis=2)
  # Twelve epochs, each of a third of the images: the last one is there once.
  for e in range(12):
    seen = index[epoch // TIMES == e]
    assert len(seen) == N
    counts = np.bincount(seen)
    assert sorted(counts[counts > 0]) == [1] + [TIMES] * (N // TIMES)
    # Each time another draw of the augmentation.
    keys = set(zip(index[epoch // TIMES == e], epoch[epoch // TIMES == e], strict=True))
    assert len(keys) == N
  # Within a batch they are a third of it apart.
  first = reads(Order(N, BATCH, 5, repeats=TIMES), range(1))[1, 0].reshape(TIMES, -1)
  assert (first == first[0]).all()
  np.testing.assert_array_equal(index, reads(Order(N, BATCH, 5, repeats=TIMES), range(25))[1])


def test_the_device_feed_does_the_same():
  config = config_lib.default()
  config.model.name, config.data.name = 'se_resnet20_cifar', 'digits'
  config.data.train_split, config.batch_size, config.data.repeats = f'train[:{N}]', BATCH, TIMES
  found = {}
  for devices in (1, 8):
    mesh = runtime.data_mesh(devices)
    feed = DeviceFeed.create(config, mesh)
    program = runtime.data_parallel(feed.examples, mesh, (P(), P()), P('data'))
    steps = [program(feed.inputs(s, 1)[0], np.int32(s)) for s in range(9)]
    found[devices] = np.stack([np.stack(x) for x in zip(*steps, strict=True)])
  np.testing.assert_array_equal(found[1], found[8])
  index, epoch = found[1]
  for e in range(4):
    counts = np.bincount(index[epoch // TIMES == e])
    assert sorted(counts[counts > 0]) == [1] + [TIMES] * (N // TIMES)
    assert len(set(zip(index[epoch // TIMES == e], epoch[epoch // TIMES == e], strict=True))) == N


def test_random_erasing_against_its_law():
  """Area and aspect of what is gone, against draws of NumPy by timm's rule."""
  side, draws, share = 40, 3000, 0.6
  erase = jax.jit(jax.vmap(functools.partial(augment.erased, share=share), in_axes=(0, None)))
  ones = np.ones((side, side, 1), np.float32)
  gone = np.asarray(erase(jax.random.split(jax.random.key(0), draws), ones))[..., 0] == 0
  some = gone.any((1, 2))
  assert some.mean() == pytest.approx(share, abs=0.03)
  rows, columns = gone.any(2).sum(1)[some], gone.any(1).sum(1)[some]
  np.testing.assert_array_equal(gone[some].sum((1, 2)), rows * columns)
  rng, expected = np.random.default_rng(0), []
  while len(expected) < 20_000:
    area = rng.uniform(0.02, 1 / 3) * side**2
    aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
    h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if w < side and h < side:
      expected.append((h, w))
  expected = np.array(expected)
  for found, theirs in ((rows, expected[:, 0]), (columns, expected[:, 1])):
    quantiles = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
      np.quantile(found, quantiles), np.quantile(theirs, quantiles), atol=1.01
    )
  # Anywhere that it fits: as far from one border as from the other.
  assert gone.mean(0)[0].mean() == pytest.approx(gone.mean(0)[-1].mean(), abs=0.02)
