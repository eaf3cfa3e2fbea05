"""Measures the rate of a training feed, beside that of as much as it cannot do without."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.data import feeds, preprocessing
from senet_jax.data.device_feed import DeviceFeed
from senet_jax.data.sources import Source
from senet_jax.data.stream_feed import StreamFeed
from senet_jax.reporting.statistics import mean_std

# Encoded images that the raw rate is measured on; they stay in memory.
_RAW_IMAGES = 512


def measure(config: ConfigDict, seconds: float, rounds: int) -> dict:
  """Measures the training feed, and as much work as it cannot do without, in turn.

  A stream reads the files, shuffles, decodes the crops, resizes, changes them and puts batches on
  the devices. The raw rate beside it is that of TensorFlow on all cores: each JPEG or PNG decoded
  whole, from memory, and resized (bilinear, not antialiased) to the images' shape. The feed may be
  faster, since it does not decode what it cuts off.

  A feed in device memory makes inputs of images with all that a run does to them; the raw rate
  beside it is that of the same without random changes.

  Args:
    config: of a run.
    seconds: of each measurement.
    rounds: pairs of measurements.

  Returns:
    `input` and `raw`, each with `mean`, `std` and `rounds` in images a second, and `ratio`;
    `cpu_ms` of each are the milliseconds of CPU that an image took in this process, which other
    programs on the machine change less.

  Raises:
    UserError: the configuration has a mistake.
  """
  config_lib.check(config)
  feed = feeds.training_feed(config, runtime.data_mesh())
  if isinstance(feed, StreamFeed):
    shape = preprocessing.training_transform(config).shape
    raw = _raw_batches(feed.split, shape, config.batch_size)
    ways = {'input': _streamed_batches(feed), 'raw': raw}
  else:
    plain = dataclasses.replace(feed, transform=feed.transform.without_changes())
    ways = {'input': _device_batches(feed), 'raw': _device_batches(plain)}
  rates: dict[str, list[float]] = {way: [] for way in ways}
  cpu: dict[str, list[float]] = {way: [] for way in ways}
  for batches in ways.values():
    next(batches)  # building the pipeline is not counted
  for _, way in itertools.product(range(rounds), ways):
    rate, cpu_ms = _rate(functools.partial(next, ways[way]), config.batch_size, seconds)
    rates[way].append(rate)
    cpu[way].append(cpu_ms)
  found = {
    way: {**mean_std(rates[way]), 'rounds': rates[way], 'cpu_ms': mean_std(cpu[way])}
    for way in ways
  }
  return {**found, 'ratio': found['input']['mean'] / found['raw']['mean']}


def describe(config: ConfigDict) -> str:
  """Returns what `measure` measures of a configuration, for its record."""
  streamed = 'raw decoding and resizing of the same files'
  beside = streamed if feeds.streams(config) else 'the same without random changes'
  return f'input pipeline alone, and {beside}, images/s'


def _streamed_batches(feed: StreamFeed) -> Iterator[None]:
  for step in itertools.count():
    inputs, _ = feed.inputs(step, 1)
    yield jax.block_until_ready(inputs) and None


def _device_batches(feed: DeviceFeed) -> Iterator[None]:
  whole, shared = PartitionSpec(), PartitionSpec(runtime.DATA_AXIS)
  program = runtime.data_parallel(feed.batch, feed.mesh, (feed.input_spec, whole), shared)
  for step in itertools.count():
    inputs, _ = feed.inputs(step, 1)
    yield jax.block_until_ready(program(inputs, np.int32(step))) and None


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


def _rate(batch: Callable[[], None], batch_size: int, seconds: float) -> tuple[float, float]:
  """Returns the images a second that `batch` gives, and the milliseconds of CPU of an image."""
  started, busy, count = time.monotonic(), time.process_time(), 0
  while True:
    batch()
    count += 1
    elapsed = time.monotonic() - started
    if elapsed >= seconds:
      images = count * batch_size
      return images / elapsed, 1e3 * (time.process_time() - busy) / images
