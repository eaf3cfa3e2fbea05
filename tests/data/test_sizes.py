"""Sizes of images that change in training: when, in both feeds, on any hosts and devices."""

import math

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image

from senet_jax import config as config_lib, runtime
from senet_jax.config import reading
from senet_jax.data import datasets, feeds
from senet_jax.data.device_feed import DeviceFeed
from senet_jax.data.sizes import Sizes, training_sizes
from senet_jax.data.stream_feed import Order, StreamFeed
from senet_jax.errors import UserError
from senet_jax.training import setup
from senet_jax.workdir.network import check_model
from tests.helpers.paths import ROOT
from tests.helpers.photos import small_photo

IMAGENET = 1_281_167


def config_of(**fields):
  config = config_lib.default()
  config.model.name, config.batch_size = 'se_resnet20_cifar', 16
  config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in fields.items()})
  config_lib.check(config)
  return config


@pytest.mark.parametrize(
  ('epochs', 'start_ramp', 'end_ramp'), [(16, 11, 13), (40, 29, 34), (88, 65, 76)]
)
@pytest.mark.parametrize('network', ['r50', 'se_r50'])
def test_the_recipe_grows_as_ffcvs_images_do(network, epochs, start_ramp, end_ramp):
  """Against the rule of its code and the figures of its configurations, epoch by epoch."""
  config = reading.load(f'{ROOT}/configs/imagenet_{network}_ffcv.py:e{epochs}', [])
  sizes = Sizes.create(config, IMAGENET)
  per_epoch = IMAGENET / config.batch_size
  for epoch in range(epochs):
    between = np.interp([epoch], [start_ramp, end_ramp], [160, 192])[0]
    expected = 160 if epoch <= start_ramp else 192 if epoch >= end_ramp else None
    expected = expected or int(np.round(between / 32)) * 32
    assert sizes.at(math.ceil(epoch * per_epoch)) == expected
  assert sizes.steps_left(0, 10**9) == sizes.starts[1]


def test_equal_parts_of_the_run_or_places_in_epochs_and_steps():
  config = config_of(data__train_size=(24, 28, 32), epochs=3.0)
  assert Sizes.create(config, 160) == Sizes((24, 28, 32), (0, 10, 20))
  config.data.train_size_boundaries = (0.5, 2.0)
  assert Sizes.create(config, 160).starts == (0, 5, 20)
  config.schedule.unit = 'steps'
  config.data.train_size_boundaries = (3.0, 4.0)
  sizes = Sizes.create(config, 160)
  assert [sizes.at(step) for step in range(6)] == [24, 24, 24, 28, 32, 32]
  assert [sizes.steps_left(step, 7) for step in range(5)] == [3, 2, 1, 1, 7]
  assert Sizes.create(config_of(data__train_size=(24,)), 160) is None
  assert training_sizes(config_of()) == (32,)
  # In a run of fewer steps than sizes the last one that has begun counts.
  assert Sizes.create(config_of(data__train_size=(24, 28, 32), steps=1), 160).at(0) == 28


def test_a_size_of_the_device_feed_is_that_of_a_run_with_it_alone(monkeypatch):
  monkeypatch.setattr(datasets, '_FAKE_EXAMPLES', 48)
  fields = {'data__fake': True, 'steps': 8, 'data__mixup': 0.4, 'data__erasing': 0.5}
  found = {}
  for name, sides, devices in (
    ('both', (20, 32), 1), ('eight devices', (20, 32), 8), ('small', (20,), 1), ('large', None, 1)
  ):  # fmt: skip
    mesh = runtime.data_mesh(devices)
    feed = DeviceFeed.create(config_of(data__train_size=sides, **fields), mesh)
    program = runtime.data_parallel(feed.batch, mesh, (P(), P()), P('data'))
    given = {step: feed.inputs(step, 5) for step in (2, 6)}
    found[name] = [
      jax.device_get(program(inputs, np.int32(step))) for step, (inputs, _) in given.items()
    ]
    several = sides is not None and len(sides) > 1
    # A dispatch ends where the size changes; of each size there is a shape of inputs.
    assert [steps for _, steps in given.values()] == ([2, 5] if several else [4, 5])
    shapes = [jax.tree.map(np.shape, inputs) for inputs in feed.shapes()]
    assert [jax.tree.map(np.shape, inputs) for inputs, _ in given.values()] == (
      shapes if several else 2 * shapes
    )
  for k, alone in enumerate(('small', 'large')):
    jax.tree.map(np.testing.assert_array_equal, found['both'][k], found[alone][k])
    for name, array in found['eight devices'][k].items():
      np.testing.assert_allclose(found['both'][k][name], array, rtol=1e-5, atol=1e-5)
  assert [batch['images'].shape for batch in found['both']] == [(16, 20, 20, 3), (16, 32, 32, 3)]


def test_a_stream_on_one_two_and_three_hosts(tmp_path):
  for i in range(24):
    folder = tmp_path / 'train' / 'ab'[i % 2]
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small_photo(i, 40, 48)).save(folder / f'{i}.png')
  fields = {
    'data__name': 'image_folder', 'data__dir': str(tmp_path), 'data__feed': 'stream',
    'data__crop_area': (0.3, 1.0), 'data__pad': 0, 'data__image_size': 32, 'batch_size': 24,
    'steps': 4, 'data__randaugment': 'rand-m7-mstd0.5-inc1',
  }  # fmt: skip
  mesh = runtime.data_mesh(1)
  feed = feeds.training_feed(config_of(data__train_size=(20, 28), **fields), mesh)
  assert isinstance(feed, StreamFeed)
  whole = [jax.device_get(feed.inputs(step, 9)[0]) for step in range(4)]
  assert [len(batch['images'][0]) for batch in whole] == [20, 20, 28, 28]
  expected = [jax.tree.map(lambda x: (x.shape, x.dtype), shape) for shape in feed.shapes()]
  assert expected == [jax.tree.map(lambda x: (x.shape, x.dtype), whole[k]) for k in (1, 2)]
  batch = jax.eval_shape(feed.batch, whole[1], np.int32(1))
  assert batch['images'].shape == (24, 20, 20, 3)
  alone = feeds.training_feed(config_of(data__train_size=(28,), **fields), mesh)
  np.testing.assert_array_equal(alone.inputs(3, 1)[0]['images'], whole[3]['images'])
  for hosts in (2, 3):
    parts = []
    for host in range(hosts):
      feed.stream.order = Order(24, 24, 0, host, hosts)
      parts.append(list(feed.stream.batches(1, 4)))
    for step, pieces in enumerate(zip(*parts, strict=True), 1):
      images = np.concatenate([piece['images'] for piece in pieces])
      np.testing.assert_array_equal(images, whole[step]['images'])


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'data__train_size': ()}, r'train_size=\(\) must be a tuple of 1 to 8 whole numbers'),
    ({'data__train_size': (0, 32)}, r'train_size=\(0, 32\) must be a tuple'),
    ({'data__train_size_boundaries': (3.0,)}, r'must be one less than the sizes of .*=None'),
    (
      {'data__train_size': (20, 32), 'data__train_size_boundaries': (3.0, 4.0)},
      r'train_size_boundaries=\(3\.0, 4\.0\) must be one less than the sizes',
    ),
    (
      {'data__train_size': (20, 24, 32), 'data__train_size_boundaries': (4.0, 4.0)},
      r'train_size_boundaries=\(4\.0, 4\.0\) must rise',
    ),
  ],
)
def test_what_does_not_fit(fields, message):
  with pytest.raises(UserError, match=message) as caught:
    config_of(**fields)
  assert '\n' not in str(caught.value)


def test_sizes_that_the_network_or_its_augmentation_cannot_take():
  vgg = config_of(model__name='se_vgg16_bn', data__image_size=64, data__train_size=(64, 16))
  with pytest.raises(UserError, match='images of 16x16 pixels leave nothing behind'):
    check_model(vgg)
  with pytest.raises(UserError, match=r'cutout=40 would blank out most images of side 16'):
    setup.check_batch(config_of(data__cutout=40, data__train_size=(16, 32)), 1)
