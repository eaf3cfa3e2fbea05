"""The streaming feed: which examples it gives, what becomes of their pixels, what it refuses."""

import io
import itertools
import json
import logging
import platform
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image
from scipy import ndimage

from senet_jax import config as config_lib, runtime
from senet_jax.data import decoding, feeds, prepare, sources
from senet_jax.data.builders import digits
from senet_jax.data.class_order import ClassOrder
from senet_jax.data.stream_feed import Order, StreamFeed
from senet_jax.errors import UserError
from senet_jax.evaluation import competition
from senet_jax.tools import evaluate
from senet_jax.training.loop import train
from tests.helpers.encoded import encoded
from tests.helpers.photos import small_photo
from tests.helpers.small_run import configured, summary

CLASSES = ('cat', 'dog', 'eel')
# Of the folder `photos` and the data sets packed from it.
COUNTS = {'train': 47, 'val': 22}
STREAM = {
  'model.name': 'se_resnet20_cifar', 'data.feed': 'stream', 'data.image_size': 32,
  'data.crop_area': (0.08, 1.0), 'data.pad': 0, 'data.eval_split': 'val', 'batch_size': 8,
}  # fmt: skip
# As little loss as a JPEG can have: colours at full resolution.
FINE = {'quality': 95, 'subsampling': 0}


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
  """A folder of photos of three classes and many sizes."""
  root = tmp_path_factory.mktemp('photos')
  for split, count in COUNTS.items():
    for i in range(count):
      folder = root / split / CLASSES[i % 3]
      folder.mkdir(parents=True, exist_ok=True)
      kind = 'PNG' if i % 5 == 4 else 'JPEG'
      image = small_photo(i + (split == 'val') * 1000, 40 + 3 * i, 70 + 2 * i)
      (folder / f'{i:03}.{kind.lower()}').write_bytes(encoded(image, kind, **FINE))
  return root


@pytest.fixture(scope='module')
def packed(photos, tmp_path_factory):
  """The directories with that folder as the data set `pets` of tfds, by file format."""
  found = {}
  for file_format in ('tfrecord', 'array_record'):
    found[file_format] = tmp_path_factory.mktemp(file_format)
    prepare.prepare('pets', found[file_format], image_folder=photos, file_format=file_format)
  return found


@pytest.fixture(params=['image_folder', 'tfrecord', 'array_record'])
def place(request, photos, packed):
  """`data.name` and `data.dir` of each kind of source."""
  if request.param == 'image_folder':
    return {'data.name': 'image_folder', 'data.dir': str(photos)}
  return {'data.name': 'pets', 'data.dir': str(packed[request.param])}


def stream_config(place, **fields):
  return configured({**STREAM, **place}, **fields)


def host_batches(config, first: int, count: int) -> list[dict[str, np.ndarray]]:
  """Batches of training as they leave the host."""
  feed = feeds.training_feed(config, runtime.data_mesh(1))
  return [jax.device_get(feed.inputs(step, 1)[0]) for step in range(first, first + count)]


# --- the order -----------------------------------------------------------------------------------


def reads(order: Order, steps: range) -> np.ndarray:
  """Position, epoch and index of what a host reads in each step, `[3, steps, n]`."""
  return np.stack([order.examples(step) for step in steps], axis=1)


@pytest.mark.parametrize('hosts', [1, 2, 3, 8])
def test_hosts_cover_each_example_once(hosts):
  n, batch, steps = 101, 24, range(13)  # three epochs and a bit, none a whole number of steps
  parts = [reads(Order(n, batch, 5, host, hosts), steps) for host in range(hosts)]
  position, epoch, index = np.concatenate(parts, axis=2)
  np.testing.assert_array_equal(np.sort(position, 1).ravel(), np.arange(13 * batch))
  # Host by host, the batches are those of one host.
  np.testing.assert_array_equal(index, reads(Order(n, batch, 5), steps)[2])
  for e in range(3):
    np.testing.assert_array_equal(np.sort(index[epoch == e]), np.arange(n))


@pytest.mark.parametrize('hosts', [1, 2, 3, 8])
def test_hosts_evaluate_each_example_once(hosts):
  n, batch = 101, 24
  parts = [reads(Order(n, batch, None, host, hosts), range(5)) for host in range(hosts)]
  position, _, index = np.concatenate(parts, axis=2)
  np.testing.assert_array_equal(index[position < n], np.arange(n))
  assert (index[position >= n] == n - 1).all()


def test_orders_differ_and_start_anywhere():
  whole = reads(Order(1000, 50, 0), range(40))[2]
  np.testing.assert_array_equal(reads(Order(1000, 50, 0), range(33, 40))[2], whole[33:])
  epochs = whole.reshape(2, 1000)
  assert (epochs[0] != epochs[1]).mean() > 0.99
  assert (reads(Order(1000, 50, 1), range(20))[2].ravel() != epochs[0]).mean() > 0.99
  # No trace of the order on disk: neighbours are far apart, as in any permutation.
  assert np.abs(np.diff(epochs[0])).mean() == pytest.approx(1000 / 3, rel=0.1)
  assert abs(np.corrcoef(epochs[0], np.arange(1000))[0, 1]) < 0.1


def plain_class_order(labels, seed):
  """Shen et al.'s two kinds of lists, one example after another; each with its class's round."""
  classes = sorted(set(labels))
  lists, rounds = {c: [] for c in classes}, dict.fromkeys(classes, -1)
  for traversal in itertools.count():
    for number in np.random.default_rng([seed, 0, traversal]).permutation(len(classes)):
      c = classes[number]
      if not lists[c]:
        rounds[c] += 1
        members = [i for i, label in enumerate(labels) if label == c]
        generator = np.random.default_rng([seed, 1, number, rounds[c]])
        lists[c] = [members[i] for i in generator.permutation(len(members))]
      yield lists[c].pop(0), rounds[c]


# Unbalanced, and one class of six has no example.
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(6), (40, 17, 0, 5, 1, 38)))


@pytest.mark.parametrize('hosts', [1, 2, 8])
def test_class_aware_sampling_against_plain_python(hosts):
  n, batch, steps = len(LABELS), 24, 13
  parts = [
    reads(Order(n, batch, 5, host, hosts, ClassOrder(LABELS, 5)), range(steps))
    for host in range(hosts)
  ]
  position, rounds, index = np.concatenate(parts, axis=2).reshape(3, -1)
  first = np.argsort(position)
  found = list(zip(index[first], rounds[first], strict=True))
  assert found == list(itertools.islice(plain_class_order(LABELS, 5), batch * steps))


def test_class_aware_batches(place):
  config = stream_config(place, data__sampling='class_aware', batch_size=9)
  labels = np.concatenate([b['labels'] for b in host_batches(config, 0, 20)])
  for traversal in labels.reshape(-1, 3):
    assert sorted(traversal) == [0, 1, 2]
  whole = host_batches(config, 0, 6)
  jax.tree.map(np.testing.assert_array_equal, host_batches(config, 4, 2), whole[4:])


def test_labels_of_a_data_set_are_read_once(place, monkeypatch):
  config = stream_config(place)
  expected = [sources.open_source(config, split).labels() for split in ('train', 'train[5:20]')]
  np.testing.assert_array_equal(expected[1], expected[0][5:20])
  source = sources.open_source(config, 'train')
  parsed = source.read(np.arange(source.num_examples))[1]
  np.testing.assert_array_equal(expected[0], parsed)
  if place['data.name'] == 'image_folder':
    return
  again = sources.open_source(config, 'train')
  monkeypatch.setattr(sources, '_SCANNED', None)  # reading would fail
  np.testing.assert_array_equal(again.labels(), expected[0])


# --- what is read --------------------------------------------------------------------------------


def test_an_epoch_is_the_data(place, photos):
  """Every photo once, with its label, from every kind of source."""
  # So large that none is reduced while it is decoded.
  config = stream_config(place, data__crop_area=(), data__image_size=100)
  batches = host_batches(config, 0, 6)
  images, labels, epoch = (
    np.concatenate([b[name] for b in batches]) for name in ('images', 'labels', 'epoch')
  )
  assert images.dtype == np.uint8 and images.shape == (48, 100, 100, 3)
  expected = []
  for path in sorted(photos.glob('train/*/*')):
    image = Image.open(path).convert('RGB')
    side = min(image.size)
    x, y = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((x, y, x + side, y + side)).resize((100, 100), Image.BILINEAR)
    expected.append((CLASSES.index(path.parent.name), np.asarray(square, float)))
  found = images[epoch == 0].astype(float)
  assert len(found) == len(expected) == COUNTS['train']
  taken = set()
  for label, image in expected:
    distance = np.abs(found - image).max((1, 2, 3))
    nearest = int(distance.argmin())
    # The decoder of training is a faster one; other pictures differ by 100 and more.
    assert distance[nearest] <= 8 and labels[epoch == 0][nearest] == label
    taken.add(nearest)
  assert len(taken) == COUNTS['train']


def test_both_formats_give_the_same_batches(packed):
  first, second = (
    host_batches(stream_config({'data.name': 'pets', 'data.dir': str(d)}), 3, 4)
    for d in packed.values()
  )
  jax.tree.map(np.testing.assert_array_equal, first, second)


def test_an_epoch_replayed_gives_the_same_bytes(place):
  config = stream_config(place, data__rotation=10.0)
  whole = host_batches(config, 0, 12)
  jax.tree.map(np.testing.assert_array_equal, host_batches(config, 7, 5), whole[7:])
  # The same example looks different in the next epoch.
  same = [np.concatenate([b[name] for b in whole]) for name in ('index', 'images')]
  first, again = np.flatnonzero(same[0] == same[0][0])[:2]
  assert (same[1][first] != same[1][again]).mean() > 0.5
  # And with another seed.
  other = host_batches(stream_config(place, seed=1), 0, 1)
  assert (other[0]['index'] != whole[0]['index']).any()


def test_batches_on_several_devices_are_those_on_one(place):
  config = stream_config(place, data__pixel_jitter=20.0, data__color_jitter=0.4)
  batches = []
  for devices in (1, 8):
    mesh = runtime.data_mesh(devices)
    feed = StreamFeed.create(config, mesh)
    inputs, steps = feed.inputs(5, 10)
    assert steps == 1 and inputs['images'].sharding.num_devices == devices
    program = runtime.data_parallel(feed.batch, mesh, (P('data'), P()), P('data'))
    batches.append(jax.device_get(program(inputs, np.int32(5))))
  np.testing.assert_array_equal(batches[0]['labels'], batches[1]['labels'])
  np.testing.assert_allclose(batches[0]['images'], batches[1]['images'], atol=1e-4)


def test_parts_of_splits(place):
  whole = sources.open_source(stream_config(place), 'train')
  part = sources.open_source(stream_config(place), 'train[10:20]')
  assert (whole.num_examples, part.num_examples) == (47, 10)
  assert whole.class_names == CLASSES and whole.checksum != part.checksum
  assert part.records(np.array([3])) == whole.records(np.array([13]))
  assert part.name(3) == whole.name(13)


def test_small_images_stream_too(tmp_path):
  """A data set of tfds with a fixed shape, grey and in PNG."""
  prepare.prepare('digits', tmp_path)
  config = stream_config({'data.name': 'digits', 'data.dir': str(tmp_path)})
  config.data.image_size, config.data.crop_area, config.data.flip = 8, (), False
  images = np.concatenate([b['images'] for b in host_batches(config, 0, 4)])
  stored = digits.load_split('train')[0]
  feed = feeds.training_feed(config, runtime.data_mesh(1))
  index = np.concatenate([jax.device_get(feed.inputs(s, 1)[0])['index'] for s in range(4)])
  np.testing.assert_array_equal(images, np.broadcast_to(stored[index], images.shape))


def test_the_index_of_records_is_kept_and_renewed(packed, tmp_path):
  root = tmp_path / 'copy'
  shutil.copytree(packed['tfrecord'], root)
  config = stream_config({'data.name': 'pets', 'data.dir': str(root)})
  for old in root.glob('**/*.index.npz'):
    old.unlink()
  records = sources.open_source(config, 'train').records(np.arange(47))
  (kept,) = root.glob('**/train.index.npz')
  made = kept.stat().st_mtime_ns
  assert sources.open_source(config, 'train').records(np.arange(47)) == records
  assert kept.stat().st_mtime_ns == made


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('offset', np.full(47, -1)),
    ('length', np.full(47, 2**62)),
    ('length', np.zeros(46, np.int64)),
    ('shard', np.full(47, 7)),
    ('shard', np.array([{}], object)),
  ],
)
def test_an_index_that_says_other_things_is_made_anew(packed, tmp_path, name, value):
  root = tmp_path / 'copy'
  shutil.copytree(packed['tfrecord'], root)
  config = stream_config({'data.name': 'pets', 'data.dir': str(root)})
  records = sources.open_source(config, 'train').records(np.arange(47))
  (kept,) = root.glob('**/train.index.npz')
  index = dict(np.load(kept))
  np.savez(kept, **{**index, name: value}, allow_pickle=True)
  assert sources.open_source(config, 'train').records(np.arange(47)) == records
  np.testing.assert_array_equal(np.load(kept)[name], index[name])


def test_a_record_that_is_no_text_is_named(packed, tmp_path):
  """TensorFlow quotes it in its message, which Python then cannot read."""
  root = tmp_path / 'copy'
  shutil.copytree(packed['tfrecord'], root)
  config = stream_config({'data.name': 'pets', 'data.dir': str(root)})
  source = sources.open_source(config, 'train')
  (kept,) = root.glob('**/train.index.npz')
  index, (file,) = np.load(kept), root.glob('**/*train.tfrecord*')
  data, at = bytearray(file.read_bytes()), int(index['offset'][3])
  data[at : at + int(index['length'][3])] = b'\xde' * int(index['length'][3])
  file.write_bytes(data)
  feed = feeds.training_feed(config, runtime.data_mesh())
  for step in range(-(-source.num_examples // config.batch_size)):
    feed.inputs(step, 1)
  assert list(feed.damaged.values()) == [f'record 3 of {file}']


@pytest.mark.parametrize('target', ['nothing', '000.jpg'])
def test_links_to_nothing_are_named(target, tmp_path):
  for i in range(2):
    (tmp_path / 'train' / CLASSES[i]).mkdir(parents=True)
    (tmp_path / 'train' / CLASSES[i] / '000.jpg').symlink_to(target)
  config = stream_config({'data.name': 'image_folder', 'data.dir': str(tmp_path)})
  with pytest.raises(UserError, match=r'cat/000\.jpg cannot be read: .*; remove it, or bring back'):
    sources.open_source(config, 'train')


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
@pytest.mark.parametrize(
  'damage',
  [lambda d: d[:-1], lambda d: d[: len(d) // 2], lambda d: b'', lambda d: None],
  ids=['last byte missing', 'half', 'empty', 'missing'],
)
def test_damaged_files_are_named(packed, file_format, damage, tmp_path):
  root = tmp_path / 'copy'
  shutil.copytree(packed[file_format], root)
  (file,) = root.glob(f'**/*train.{file_format}*')
  left = damage(file.read_bytes())
  file.unlink()
  if left is not None:
    file.write_bytes(left)
  config = stream_config({'data.name': 'pets', 'data.dir': str(root)})
  with pytest.raises(UserError, match=rf'{file.name} is damaged: .*prepare the data set again'):
    sources.open_source(config, 'train')
  sources.open_source(config, 'val')


# --- pixels --------------------------------------------------------------------------------------


def test_random_windows():
  """Areas and aspects of thousands of crops; none leaves its image."""
  area, aspect, tries = (0.08, 1.0), (3 / 4, 4 / 3), 10
  shapes = np.array([(300, 400), (375, 500), (500, 333), (224, 224)], np.int32)
  count = 4000
  rng = np.random.default_rng(0)
  draws = rng.random((count, 4, tries), np.float32)
  which = np.arange(count) % len(shapes)
  windows = [
    decoding.random_window(shape, draw, area, aspect)
    for shape, draw in zip(shapes[which], draws, strict=True)
  ]
  y, x, height, width = np.transpose(windows)
  rows, columns = shapes[which].T
  assert (y >= 0).all() and (x >= 0).all() and (height >= 1).all() and (width >= 1).all()
  assert (y + height <= rows).all() and (x + width <= columns).all()
  share, ratio = height * width / (rows * columns), width / height
  assert share.min() > 0.078 and share.max() <= 1
  assert ratio.min() > 0.74 and ratio.max() < 1.35
  # The same law in float64 NumPy, drawn independently: accept a draw when it fits.
  expected = []
  for r, c in shapes[np.arange(20000) % len(shapes)]:
    for _ in range(tries):
      s, a = rng.uniform(*area), np.exp(rng.uniform(*np.log(aspect)))
      h, w = np.sqrt(s * r * c / a), np.sqrt(s * r * c * a)
      if h <= r and w <= c:
        expected.append((s, np.log(a)))
        break
  for found, reference in zip((share, np.log(ratio)), np.transpose(expected), strict=True):
    quantiles = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(
      np.quantile(found, quantiles), np.quantile(reference, quantiles), atol=0.025
    )
  # Places are uniform among those where the window fits.
  free = rows - height > 20
  places = (y / np.maximum(rows - height, 1))[free]
  np.testing.assert_allclose(np.quantile(places, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.03)


@pytest.mark.parametrize(('shape', 'expected'), [((10, 100), (10, 13)), ((100, 10), (13, 10))])
def test_where_no_window_fits_the_middle_is_taken(shape, expected):
  # Nearly the whole area, at an aspect that is too wide.
  draws = np.full((4, 10), 0.999, np.float32)
  window = decoding.random_window(shape, draws, (0.9, 1.0), (3 / 4, 4 / 3))
  assert tuple(window[2:]) == expected
  assert tuple(window[:2]) == ((shape[0] - expected[0]) // 2, (shape[1] - expected[1]) // 2)


@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_a_training_image_is_the_resized_window(kind):
  data = encoded(small_photo(1, 60, 80), kind, **FINE)
  drawn = np.random.default_rng(3).random(decoding.training_draws(None), np.float32)
  options = {'area': (0.08, 1.0), 'aspect': (3 / 4, 4 / 3)}
  found = decoding.training_image(data, drawn, (32, 32, 3), rotation=0.0, **options)
  y, x, h, w = decoding.random_window((60, 80), drawn[1:].reshape(4, 10), **options)
  window = Image.open(io.BytesIO(data)).convert('RGB').crop((x, y, x + w, y + h))
  np.testing.assert_array_equal(found, np.asarray(window.resize((32, 32), Image.BILINEAR)))


@pytest.mark.parametrize(('fill', 'mode'), [('reflect', 'reflect'), ('nearest', 'nearest')])
def test_rotation_against_scipy(fill, mode):
  image = small_photo(7, 33, 33)
  for seed in range(3):
    drawn = np.random.default_rng(seed).random(decoding.training_draws(None), np.float32)
    found = decoding.training_image(
      encoded(image, 'PNG'), drawn, (33, 33, 3), area=(), aspect=(1, 1),
      rotation=40.0, fill=fill,
    )  # fmt: skip
    assert found.dtype == np.uint8
    degrees = (2 * float(drawn[0]) - 1) * 40
    turned = ndimage.rotate(image.astype(float), degrees, reshape=False, order=1, mode=mode)
    np.testing.assert_allclose(found, turned, atol=1.1)


def test_flips_are_half_of_all(photos):
  config = stream_config({'data.name': 'image_folder', 'data.dir': str(photos)}, batch_size=40)
  config.data.crop_area, config.data.image_size = (), 8
  mesh = runtime.data_mesh(1)
  feed = feeds.training_feed(config, mesh)
  program = runtime.data_parallel(feed.batch, mesh, (P('data'), P()), P('data'))
  flipped = []
  for step in range(50):
    inputs, _ = feed.inputs(step, 1)
    plain = np.asarray(feed.transform.plain.to_input(inputs['images']))
    changed = np.asarray(program(inputs, np.int32(step))['images'])
    same, mirrored = (
      np.abs(changed - other).max((1, 2, 3)) < 1e-3 for other in (plain, plain[:, :, ::-1])
    )
    assert (same ^ mirrored).all()
    flipped.append(mirrored)
  assert np.mean(flipped) == pytest.approx(0.5, abs=0.04)  # 2000 draws: 3.6 standard deviations


def test_evaluation_is_what_pillow_makes_of_it(place, photos):
  config = stream_config(place, data__image_size=28, data__resize=32)
  config.eval.batch_size = 8
  for devices in (1, 8):
    mesh = runtime.data_mesh(devices)
    feed = feeds.evaluation_feed(config, 'val', mesh)
    assert len(feed) == 3 and feed.split.num_examples == 22
    batches = [jax.device_get(feed.inputs(step)) for step in range(3)]
    images, labels, mask = (
      np.concatenate([b[name] for b in batches]) for name in ('images', 'labels', 'mask')
    )
    assert mask.sum() == 22
    expected = {}
    for path in sorted(photos.glob('val/*/*')):
      image = Image.open(path).convert('RGB')
      scale = 32 / min(image.size)
      image = image.resize((round(image.width * scale), round(image.height * scale)), 2)
      x, y = (image.width - 28) // 2, (image.height - 28) // 2
      cropped = np.asarray(image.crop((x, y, x + 28, y + 28)), float)
      expected[str(path.relative_to(photos))] = (CLASSES.index(path.parent.name), cropped)
    left = list(expected.values())
    for image, label in zip(images[mask > 0], labels[mask > 0], strict=True):
      distances = [np.abs(image - other).max() for _, other in left]
      best = int(np.argmin(distances))
      assert distances[best] <= 2 and left.pop(best)[0] == label
    assert not left


def test_evaluation_of_images_resized_to_squares(photos):
  """As of Places365: the feed of an evaluation and that of `tools.evaluate`."""
  place = {'data.name': 'image_folder', 'data.dir': str(photos)}
  config = stream_config(place, data__image_size=28, data__resize=32, batch_size=22)
  config.data.resize_keep_aspect = False
  mesh = runtime.data_mesh(1)
  transform = competition.choose_crops([config])
  assert 'square' in transform.crops.describe()
  plain = feeds.evaluation_feed(config, 'val', mesh)
  crops, _ = competition.open_feed(config, 'val', mesh, transform)
  found = [jax.device_get(feed.inputs(0))['images'] for feed in (plain, crops)]
  for i, path in enumerate(sorted(photos.glob('val/*/*'))):
    image = Image.open(path).convert('RGB').resize((32, 32), 2)
    expected = np.asarray(image, float)[2:30, 2:30]
    assert np.abs(found[0][i] - expected).max() <= 2
    np.testing.assert_array_equal(found[1][i, 0], found[0][i])


@pytest.mark.parametrize(('wanted', 'batch'), [(None, 8), (3, 4), (100, 24)])
def test_shapes_are_those_of_the_inputs(photos, wanted, batch):
  config = stream_config({
    'data.name': 'image_folder', 'data.dir': str(photos), 'eval.batch_size': wanted,
  })  # fmt: skip
  mesh = runtime.data_mesh(4)
  training, evaluation = (
    feeds.training_feed(config, mesh),
    feeds.evaluation_feed(config, 'val', mesh),
  )
  assert evaluation.batch_size == batch
  for feed, inputs in ((training, training.inputs(0, 1)[0]), (evaluation, evaluation.inputs(0))):
    found, expected = (
      jax.tree.map(lambda x: (x.shape, x.dtype, x.sharding), one)
      for one in (inputs, *feed.shapes())
    )
    assert found == expected


# --- bad data ------------------------------------------------------------------------------------


@pytest.fixture
def damaged(photos, tmp_path):
  """The folder with two training images and one evaluation image that cannot be decoded."""
  root = tmp_path / 'damaged'
  shutil.copytree(photos, root)
  cat, dog = root / 'train' / 'cat', root / 'train' / 'dog'
  first, second = sorted(cat.iterdir())[3], sorted(dog.iterdir())[2]
  first.write_bytes(first.read_bytes()[:300])
  second.write_text('not an image')
  bad = sorted((root / 'val' / 'eel').iterdir())[0]
  bad.write_bytes(b'')
  return root, (first, second), bad


def test_unreadable_images_are_named_and_replaced(damaged, photos, caplog):
  root, bad, _ = damaged
  config = stream_config({'data.name': 'image_folder', 'data.dir': str(root)})
  feed = feeds.training_feed(config, runtime.data_mesh(1))
  whole = stream_config({'data.name': 'image_folder', 'data.dir': str(photos)})
  with caplog.at_level(logging.WARNING, 'senet_jax'):
    found = [jax.device_get(feed.inputs(step, 1)[0]) for step in range(12)]  # two epochs
  assert sorted(feed.damaged.values()) == sorted(map(str, bad))
  assert len(caplog.records) == 2 and 'of at most 10' in caplog.text
  replaced = 0
  for batch, good in zip(found, host_batches(whole, 0, 12), strict=True):
    for i, index in enumerate(good['index'].tolist()):
      if index in feed.damaged:
        assert batch['index'][i] == index + 1 and batch['epoch'][i] == good['epoch'][i]
        replaced += 1
      else:
        np.testing.assert_array_equal(batch['images'][i], good['images'][i])
        assert batch['labels'][i] == good['labels'][i]
  assert replaced == 4
  # Resumed in the middle, the same.
  feed = feeds.training_feed(config, runtime.data_mesh(1))
  again = [jax.device_get(feed.inputs(step, 1)[0]) for step in range(4, 12)]
  jax.tree.map(np.testing.assert_array_equal, again, found[4:])


def test_too_many_unreadable_images(damaged):
  root, bad, _ = damaged
  place = {'data.name': 'image_folder', 'data.dir': str(root)}
  feed = feeds.training_feed(stream_config(place, data__max_damaged=1), runtime.data_mesh(1))
  with pytest.raises(
    UserError, match=r'2 images .* cannot be read or decoded, more than config.data.max'
  ):
    for step in range(6):
      feed.inputs(step, 1)
  assert str(bad[0]) in feed.damaged.values() or str(bad[1]) in feed.damaged.values()


def test_an_unreadable_image_does_not_count_in_evaluation(damaged):
  root, _, bad = damaged
  config = stream_config({'data.name': 'image_folder', 'data.dir': str(root)})
  feed = feeds.evaluation_feed(config, 'val', runtime.data_mesh(1))
  masks = [np.asarray(feed.inputs(step)['mask']) for step in range(len(feed))]
  assert np.sum(masks) == COUNTS['val'] - 1 and list(feed.damaged.values()) == [str(bad)]


def test_nothing_readable(tmp_path):
  for i in range(4):
    path = tmp_path / 'train' / 'cat' / f'{i}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('no image')
  config = stream_config({'data.name': 'image_folder', 'data.dir': str(tmp_path)})
  feed = feeds.training_feed(config, runtime.data_mesh(1))
  with pytest.raises(UserError, match=r'no image of .* can be decoded'):
    feed.inputs(0, 1)


@pytest.mark.thorough
def test_damage_is_remembered(damaged, tmp_path):
  root, bad, worse = damaged
  place = {'data.name': 'image_folder', 'data.dir': str(root)}
  for steps in (6, 7):
    assert train(run_config(place, steps=steps, batch_size=8), tmp_path / 'run')
    expected = {'train': sorted(map(str, bad)), 'eval': [str(worse)]}
    assert summary(tmp_path / 'run')['unreadable_images'] == expected


@pytest.mark.parametrize('end', ['', 'raise SystemExit(3)', 'os.kill(os.getpid(), 2)'])
def test_a_process_ends_while_images_are_read(photos, end):
  """Reads that take long, and hold the interpreter for a part of it, keep no process alive."""
  code = f"""
import os, time
from senet_jax import config as config_lib, runtime
from senet_jax.data import feeds
config = config_lib.imagenet('se_resnet18')
config.data.name, config.data.dir, config.data.eval_split = 'image_folder', {str(photos)!r}, 'val'
config.batch_size = 64
feed = feeds.training_feed(config, runtime.data_mesh(1))
read = feed.split.read
def slow(indices):
  time.sleep(0.02)
  sum(range(200_000))
  return read(indices)
object.__setattr__(feed.split, 'read', slow)
feed.inputs(0, 1)
feed.inputs(5, 1)  # drops what was under way
{end}
"""
  done = subprocess.run([sys.executable, '-c', code], timeout=120, capture_output=True)
  assert done.returncode in {'': (0,), 'raise SystemExit(3)': (3,)}.get(end, (-2, 130))


@pytest.mark.thorough
def test_storage_that_does_not_answer(photos, tmp_path):
  """A run ends, naming host and image, though the thread that reads never does."""
  root = tmp_path / 'photos'
  shutil.copytree(photos, root)
  stuck = sorted((root / 'train' / 'cat').iterdir())[0]
  code = (
    'import pathlib, runpy, time\n'
    'read = pathlib.Path.read_bytes\n'
    f'stuck = pathlib.Path({str(stuck)!r})\n'
    # As of a file on a server that is gone.
    'pathlib.Path.read_bytes = lambda self: time.sleep(999) if self == stuck else read(self)\n'
    'runpy.run_module("senet_jax.main", run_name="__main__")\n'
  )
  flags = ['name=image_folder', f'dir={root}', 'eval_split=val', 'image_size=32', 'read_timeout=2']
  command = [sys.executable, '-c', code, f'--workdir={tmp_path}/run']
  command += ['--config=configs/imagenette_se_r18.py', '--config.batch_size=48']  # all, at once
  command += [
    '--config.model.depths=(1,1,1,1)',
    '--config.model.se.ratio=4',
    *(f'--config.data.{flag}' for flag in flags),
  ]
  done = subprocess.run(command, timeout=120, capture_output=True, text=True)
  assert done.returncode == 2, done.stderr
  message = rf'^senet_jax: {platform.node()} has waited 2 s for {root}/train/\S+ and those'
  assert re.search(message, done.stderr, re.MULTILINE), done.stderr


def test_labels_outside_the_range(packed):
  place = {'data.name': 'pets', 'data.dir': str(packed['tfrecord'])}
  with pytest.raises(UserError, match=r'num_classes=2 is less than the 3 classes of pets'):
    sources.open_source(stream_config(place, model__num_classes=2), 'train')
  feed = feeds.training_feed(stream_config(place), runtime.data_mesh(1))
  feed.stream.form.num_classes = 2  # as if a record had a label that its data set does not know
  with pytest.raises(UserError, match=r'label 2 of record \d+ of \S+ is outside 0 to 1'):
    for step in range(6):
      feed.inputs(step, 1)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'data.name': 'pets', 'data.dir': '/nowhere'}, 'pets is not prepared in /nowhere'),
    ({'data.name': 'image_folder'}, 'config.data.dir must be the folder with the photos'),
    ({'data.name': 'image_folder', 'data.dir': '/nowhere'}, '/nowhere'),
  ],
)
def test_missing_data(fields, message):
  with pytest.raises(UserError, match=message):
    sources.open_source(stream_config(fields), 'train')


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'data.feed': 'stream', 'steps_per_dispatch': 5}, 'one batch at a time'),
    ({'data.crop_area': (0.1, 1.0)}, "no effect with config.data.feed='device'"),
    ({'data.feed': 'stream', 'data.crop_area': (0.5, 0.1)}, 'the smaller one first'),
    ({'data.feed': 'stream', 'data.crop_area': (0.5, 1.5)}, 'at most 1'),
    ({'data.mean': (1.0, 2.0)}, 'must be a tuple of 0 or 3 finite numbers'),
    ({'data.resize_keep_aspect': False}, "no effect with config.data.feed='device'"),
  ],
)
def test_fields_that_do_not_fit(fields, message):
  config = config_lib.default()
  config.update_from_flattened_dict(fields)
  with pytest.raises(UserError, match=message):
    config_lib.check(config)


# --- whole runs ----------------------------------------------------------------------------------


def run_config(place, **fields):
  fields = {'model__width': 8, 'model__depths': (1, 1, 1), 'model__se__ratio': 4, 'steps': 20,
            'log__tensorboard': False, 'checkpoint__every_steps': 5, 'batch_size': 16,
            **fields}  # fmt: skip
  config = stream_config(place, **fields)
  config.schedule.name = 'constant'
  return config


@pytest.mark.thorough
def test_four_steps_and_four_more_are_eight(packed, photos, tmp_path, capsys):
  """From TFRecord and ArrayRecord the same, bit for bit; from a folder too."""
  digests = {}
  for name, parts in (
    ('tfrecord', (8,)), ('array_record', (4, 8)), ('folder', (8,)), ('folder', (4, 8)),
  ):  # fmt: skip
    place = {'data.name': 'pets', 'data.dir': str(packed.get(name))}
    if name == 'folder':
      place = {'data.name': 'image_folder', 'data.dir': str(photos)}
    workdir = tmp_path / f'{name}_{len(parts)}'
    for count in parts:
      assert train(run_config(place, steps=count), workdir)
    found = summary(workdir)
    digests[workdir.name] = found['params_sha256']
    assert found['examples_seen'] == 128 > COUNTS['train']
    assert found['unreadable_images'] == {'train': [], 'eval': []}
    classes = json.loads((workdir / 'classes.json').read_text())
    assert classes == {'num_classes': 3, 'names': list(CLASSES)}
  assert digests['tfrecord_1'] == digests['array_record_2']
  assert digests['folder_1'] == digests['folder_2']
  assert capsys.readouterr().out.count('resumed from step 4') == 2


@pytest.mark.thorough
def test_class_aware_sampling_goes_on_where_it_stopped(packed, tmp_path):
  place = {'data.name': 'pets', 'data.dir': str(packed['tfrecord'])}
  digests = []
  for steps in ((8,), (3, 8)):
    workdir = tmp_path / str(len(steps))
    for count in steps:
      assert train(run_config(place, steps=count, data__sampling='class_aware'), workdir)
    digests.append(summary(workdir)['params_sha256'])
  assert digests[0] == digests[1]
  with pytest.raises(UserError, match=r'data\.sampling'):
    train(run_config(place, steps=9), workdir)


def test_evaluation_on_other_classes(photos, tmp_path):
  place = {'data.name': 'image_folder', 'data.dir': str(photos)}
  train(run_config(place, steps=1), tmp_path / 'run')
  cow = "class 0 of image_folder is 'cow', which is none of the 3 classes"
  for changed, message in (('cow', cow), (None, None)):
    other = tmp_path / f'other_{changed}'
    shutil.copytree(photos, other)
    if changed:
      for split in ('train', 'val'):
        (other / split / 'dog').rename(other / split / changed)
        (other / split / 'cat').rename(other / split / 'dog')
    else:
      for split in ('train', 'val'):
        shutil.copytree(other / split / 'eel', other / split / 'fox')
      message = 'num_classes=3 is less than the 4 classes'
    with pytest.raises(UserError, match=message):
      evaluate.main([f'--workdir={tmp_path / "run"}', f'--data_dir={other}'])


def test_other_data_is_another_run(photos, tmp_path):
  place = {'data.name': 'image_folder', 'data.dir': str(photos)}
  train(run_config(place, steps=1), tmp_path / 'run')
  other = tmp_path / 'other'
  shutil.copytree(photos, other)
  next(other.glob('train/cat/*')).rename(other / 'train' / 'cat' / 'renamed.jpeg')
  config = run_config({**place, 'data.dir': str(other)}, steps=2)
  with pytest.raises(UserError, match=r'dataset\.train\.checksum.*; bring back the files'):
    train(config, tmp_path / 'run')
