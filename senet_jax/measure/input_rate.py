"""Measures the rate of a streaming feed, beside that of nothing but decoding and resizing."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.data import feeds, preprocessing
from senet_jax.data.sources import Source
from senet_jax.data.stream_feed import StreamFeed
from senet_jax.errors import UserError
from senet_jax.reporting.statistics import mean_std

# Encoded images that the raw rate is measured on; they stay in memory.
_RAW_IMAGES = 512


def measure(config: ConfigDict, seconds: float, rounds: int) -> dict:
  """Measures the training feed, and nothing but decoding and resizing, in turn.

  The raw rate is that of TensorFlow on all cores: each JPEG or PNG decoded whole, from memory, and
  resized (bilinear, not antialiased) to the images' shape. The feed reads the files, shuffles,
  decodes the crops, resizes and puts batches on the devices; it may be faster than the raw rate,
  since it does not decode what it cuts off.

  Args:
    config: of a run with streamed data.
    seconds: of each measurement.
    rounds: pairs of measurements.

  Returns:
    `input` and `raw`, each with `mean`, `std` and `rounds` in images a second, and `ratio`.

  Raises:
    UserError: the configuration has a mistake, or the data is not streamed.
  """
  config_lib.check(config)
  if not feeds.streams(config):
    raise UserError(
      f'{config.data.name} is not streamed (config.data.feed={config.data.feed!r}, '
      f'config.data.fake={config.data.fake}); give a configuration that streams.'
    )
  feed = StreamFeed.create(config, runtime.data_mesh())
  shape = preprocessing.training_transform(config).shape
  ways = {'input': _feed_batches(feed), 'raw': _raw_batches(feed.split, shape, config.batch_size)}
  rates: dict[str, list[float]] = {way: [] for way in ways}
  for batches in ways.values():
    next(batches)  # building the pipeline is not counted
  for _, way in itertools.product(range(rounds), ways):
    rates[way].append(_rate(functools.partial(next, ways[way]), config.batch_size, seconds))
  found = {way: {**mean_std(values), 'rounds': values} for way, values in rates.items()}
  return {**found, 'ratio': found['input']['mean'] / found['raw']['mean']}


def _feed_batches(feed: feeds.TrainingFeed) -> Iterator[None]:
  for step in itertools.count():
    inputs, _ = feed.inputs(step, 1)
    yield jax.block_until_ready(inputs) and None


def _raw_batches(source: Source, shape: tuple[int, int, int], batch_size: int) -> Iterator[None]:
  tf = runtime.import_tensorflow()
  encoded, _ = source.read(np.arange(min(_RAW_IMAGES, source.num_examples)))

  def decode(data):
    image = tf.io.decode_image(data, channels=3, expand_animations=False)
    image.set_shape((None, None, 3))
    return tf.cast(tf.image.resize(image, shape[:2]) + 0.5, tf.uint8)

  images = tf.data.Dataset.from_tensor_slices(encoded).repeat()
  images = images.map(tf.autograph.experimental.do_not_convert(decode), tf.data.AUTOTUNE)
  for _ in images.batch(batch_size).prefetch(2).as_numpy_iterator():
    yield None


def _rate(batch: Callable[[], None], batch_size: int, seconds: float) -> float:
  """Returns the images a second that `batch` gives."""
  started, count = time.monotonic(), 0
  while True:
    batch()
    count += 1
    elapsed = time.monotonic() - started
    if elapsed >= seconds:
      return count * batch_size / elapsed
