"""The device feed: which examples a step sees, and what augmentation does to them."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image, ImageEnhance
from scipy import ndimage

from senet_jax import config as config_lib, runtime
from senet_jax.data import augment, datasets, preprocessing
from senet_jax.data.class_order import ClassOrder
from senet_jax.data.device_feed import DeviceFeed, EvalFeed
from senet_jax.errors import UserError
from senet_jax.evaluation.evaluate import eval_program, evaluate
from senet_jax.models import create_model


def digits_config(**fields):
  config = config_lib.default()
  config.model.name = 'se_resnet20_cifar'  # which takes the mean of the data
  config.data.name = 'digits'
  config.data.pad = 2
  config.batch_size = 120
  config.update_from_flattened_dict(fields)
  return config


def examples_of(config, devices: int, steps: range, chunk: int = 1):
  """Index and epoch of each example of each step, `[steps, batch]`, as the program finds them."""
  mesh = runtime.data_mesh(devices)
  feed = DeviceFeed.create(config, mesh)
  program = runtime.data_parallel(feed.examples, mesh, (P(), P()), P('data'))
  found = []
  step = steps.start
  while step < steps.stop:
    inputs, count = feed.inputs(step, min(chunk, steps.stop - step))
    found += [program(inputs, np.int32(s)) for s in range(step, step + count)]
    step += count
  return tuple(np.stack(x) for x in zip(*found, strict=True))


def test_each_epoch_shows_each_example_once():
  config = digits_config()
  n = datasets.dataset_info('digits').splits['train']
  index, epoch = (x.ravel() for x in examples_of(config, 8, range(36)))
  assert n % config.batch_size  # so batches straddle epochs
  np.testing.assert_array_equal(epoch, np.arange(len(index)) // n)
  for e in (0, 1):
    np.testing.assert_array_equal(np.sort(index[epoch == e]), np.arange(n))
  assert (index[:n] != index[n : 2 * n]).mean() > 0.99
  other = examples_of(digits_config(seed=1), 8, range(1))[0]
  assert (other[0] != index[: config.batch_size]).mean() > 0.9


def test_examples_depend_on_the_step_alone():
  config = digits_config()
  whole = examples_of(config, 8, range(30))
  for devices, start, chunk in ((1, 0, 1), (4, 11, 1), (8, 23, 7), (2, 0, 30)):
    part = examples_of(config, devices, range(start, 30), chunk)
    for expected, found in zip(whole, part, strict=True):
      np.testing.assert_array_equal(found, expected[start:])


def test_class_aware_sampling():
  """The classes are balanced in each traversal, on any devices and from any step."""
  config = digits_config(**{'data.train_split': 'train[:500]', 'data.sampling': 'class_aware'})
  labels = datasets.load('digits', 'train[:500]')[1]
  order = ClassOrder(labels, config.seed)
  whole = examples_of(config, 8, range(20))
  expected = order.examples(np.arange(20 * config.batch_size))
  for found, wanted in zip(whole, reversed(expected), strict=True):
    np.testing.assert_array_equal(found.ravel(), wanted)
  for traversal in labels[whole[0].reshape(-1, 10)]:
    assert sorted(traversal) == list(range(10))
  for devices, start, chunk in ((1, 13, 1), (2, 7, 5)):
    part = examples_of(config, devices, range(start, 20), chunk)
    for wanted, found in zip(whole, part, strict=True):
      np.testing.assert_array_equal(found, wanted[start:])


def test_batches_are_the_same_on_any_number_of_devices():
  batches = []
  for devices in (1, 8):
    mesh = runtime.data_mesh(devices)
    feed = DeviceFeed.create(digits_config(**{'data.cutout': 3, 'data.image_size': 16}), mesh)
    inputs, _ = feed.inputs(11, 1)
    batch = runtime.data_parallel(feed.batch, mesh, (P(), P()), P('data'))(inputs, np.int32(11))
    batches.append(jax.device_get(batch))
  assert batches[0]['images'].shape == (120, 16, 16, 3)
  np.testing.assert_array_equal(batches[0]['labels'], batches[1]['labels'])
  np.testing.assert_allclose(batches[0]['images'], batches[1]['images'], atol=1e-6)


def test_to_input_against_numpy():
  images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
  mean, std = (10.0, 20.0, 30.0), (2.0, 3.0, 4.0)
  found = augment.to_input(images, mean, std)
  np.testing.assert_allclose(found, (images.astype(float) - mean) / std, rtol=1e-6)
  grey = augment.to_input(images[..., :1], (10.0,), (2.0,), image_size=8)
  assert grey.shape == (2, 8, 8, 3)
  np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


def numpy_augmented(image: np.ndarray, pad: int, cutout: int) -> dict[bytes, tuple[int, ...]]:
  """All that flip, crop and cutout can make of an image, with the draws that make it."""
  height, width, _ = image.shape
  possible = {}
  for flip, start in enumerate((image, image[:, ::-1])):
    padded = np.pad(start, [(pad, pad), (pad, pad), (0, 0)])
    for y, x in itertools.product(range(2 * pad + 1), repeat=2):
      crop = padded[y : y + height, x : x + width]
      for cy, cx in itertools.product(range(height), range(width)):
        cut = crop.copy()
        rows, columns = (slice(max(c - cutout // 2, 0), c - cutout // 2 + cutout) for c in (cy, cx))
        cut[rows, columns] = 0
        possible[cut.tobytes()] = (flip, y, x, cy, cx)
  return possible


@pytest.mark.parametrize(('pad', 'cutout'), [(1, 0), (0, 2), (0, 3), (1, 3)])
def test_augmentation_is_flip_then_crop_then_cutout(pad, cutout):
  image = np.arange(1, 5 * 5 * 3 + 1, dtype=np.float32).reshape(5, 5, 3)
  possible = numpy_augmented(image, pad, cutout)
  n = 8000
  keys = jax.random.split(jax.random.key(0), n)
  run = jax.jit(functools.partial(augment.augment, pad=pad, flip=True, cutout=cutout))
  found = np.asarray(run(keys, jnp.broadcast_to(jnp.asarray(image), (n, 5, 5, 3))))
  draws = np.array([possible[x.tobytes()] for x in found])
  # Where one image has several causes (a square in the padding) their shares say nothing.
  crops, squares = range(2 * pad + 1), range(5 if cutout and not pad else 0)
  for column, values in ((0, range(2)), (1, crops), (2, crops), (3, squares), (4, squares)):
    for value in values if not (pad and cutout) else ():
      share = (draws[:, column] == value).mean()
      assert share == pytest.approx(1 / len(values), abs=0.03), (column, value)


def drawn(images, n, **options):
  """`augment` of one image `[H, W, C]` with `n` keys."""
  options = {'pad': 0, 'flip': False, 'cutout': 0, **options}
  keys = jax.random.split(jax.random.key(1), n)
  run = jax.jit(functools.partial(augment.augment, **options))
  return np.asarray(
    run(keys, jnp.broadcast_to(jnp.asarray(images, jnp.float32), (n, *images.shape)))
  )


def test_edges_filled_with_the_nearest_pixels():
  """Against scipy; the same shifts as with zeros."""
  image = np.random.default_rng(2).normal(size=(6, 7, 3)).astype(np.float32)
  shifts = list(itertools.product(range(-2, 3), repeat=2))
  possible = [ndimage.shift(image, (*s, 0), order=1, mode='nearest') for s in shifts]
  with_zeros = [ndimage.shift(image, (*s, 0), order=1, mode='constant') for s in shifts]
  found, zeros = (drawn(image, 300, pad=2, fill=fill) for fill in ('nearest', 'zeros'))
  which = [int(np.argmin([np.abs(x - p).max() for p in possible])) for x in found]
  np.testing.assert_allclose(found, [possible[i] for i in which], atol=1e-6)
  np.testing.assert_allclose(zeros, [with_zeros[i] for i in which], atol=1e-6)
  assert set(which) == set(range(25))


@pytest.mark.parametrize('shift', [(0, 0), (2, -3)])
@pytest.mark.parametrize('degrees', [0.0, 2.0, -1.3, 30.0])
def test_moving_and_turning_against_scipy(shift, degrees):
  image = np.random.default_rng(3).uniform(0, 255, (12, 15, 3))
  run = jax.jit(augment.move_and_turn, static_argnums=3)
  found = run(jnp.asarray(image, jnp.float32), jnp.asarray(shift), degrees, 'nearest')
  if shift == (0, 0):
    expected = ndimage.rotate(image, degrees, reshape=False, order=1, mode='nearest')
    np.testing.assert_allclose(found, expected, atol=1e-2)
  # Both in one step, so that edges are filled once.
  cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  matrix, middle = np.array([[cos, sin], [-sin, cos]]), np.array([5.5, 7.0])
  offset = middle + matrix @ (np.array(shift) - middle)
  for channel in range(3):
    for fill, mode in (('nearest', 'nearest'), ('zeros', 'grid-constant')):
      found = run(jnp.asarray(image, jnp.float32), jnp.asarray(shift), degrees, fill)
      expected = ndimage.affine_transform(image[..., channel], matrix, offset, order=1, mode=mode)
      np.testing.assert_allclose(found[..., channel], expected, atol=1e-2)


def test_angles_are_uniform_and_independent_of_shifts():
  """A picture that is linear in its coordinates shows angle and shift."""
  rows, columns = np.mgrid[:31, :31] - 15.0
  found = drawn(np.stack([rows, columns, rows * 0], -1), 1500, pad=3, rotation=2.0)
  middle = found[:, 14:17, 14:17]
  angle = np.degrees(np.arctan((middle[:, 1, 2, 0] - middle[:, 1, 0, 0]) / 2))
  shift = np.round(middle[:, 1, 1, :2]).astype(int)
  np.testing.assert_allclose(
    np.quantile(angle, [0, 0.25, 0.5, 0.75, 1]), [-2, -1, 0, 1, 2], atol=0.15
  )
  assert {tuple(s) for s in shift} == set(itertools.product(range(-3, 4), repeat=2))
  assert np.abs(np.corrcoef(np.column_stack([angle, shift]).T) - np.eye(3)).max() < 0.1
  # With a crop, the shifts are those without a rotation.
  plain = drawn(np.stack([rows, columns, rows * 0], -1), 1500, pad=3)
  np.testing.assert_array_equal(plain[:, 15, 15, :2], shift)


def test_rotation_of_a_run():
  """On the devices for images in memory; a stream turns them on the host."""
  config = digits_config(**{'data.rotation': 2.0, 'data.pad_fill': 'nearest'})
  changes = preprocessing.TrainingTransform.create(config).augment.keywords
  assert (changes['rotation'], changes['fill']) == (2.0, 'nearest')
  config.data.feed = 'stream'
  assert preprocessing.TrainingTransform.create(config).augment.keywords['rotation'] == 0


def test_augmentation_is_of_seed_epoch_and_example():
  """Each of them changes what an image becomes, and nothing else does."""
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 1), np.uint8)

  def changed(seed=0, epoch=0, index=0, n=1):
    config = digits_config(seed=seed, **{'data.pad': 3, 'data.flip': True})
    transform = preprocessing.TrainingTransform.create(config)
    first = np.zeros(n, np.int32)
    return transform.to_input(np.stack([image] * n), first + epoch, first + index)[-1]

  shown = [changed(), changed(seed=1), changed(epoch=1), changed(index=1)]
  for i, one in enumerate(shown):
    for other in shown[:i]:
      assert np.abs(one - other).max() > 0.1
  np.testing.assert_array_equal(changed(n=3), shown[0])


def test_no_augmentation_is_the_identity():
  images = np.random.default_rng(0).normal(size=(3, 6, 6, 3)).astype(np.float32)
  keys = jax.random.split(jax.random.key(0), 3)
  found = augment.augment(keys, images, pad=0, flip=False, cutout=0)
  np.testing.assert_array_equal(found, images)


@pytest.mark.parametrize(('devices', 'batch'), [(1, 7), (8, 40), (8, 1000), (3, 100), (1, 360)])
def test_evaluation_counts_each_example_once(devices, batch):
  mesh = runtime.data_mesh(devices)
  feed = EvalFeed.create(digits_config(**{'eval.batch_size': batch}), 'test', mesh)
  assert feed.batch_size % devices == 0
  program = runtime.data_parallel(feed.batch, mesh, (P(),), P('data'))
  seen = [jax.device_get(program(feed.inputs(s))) for s in range(len(feed))]
  mask = np.concatenate([b['mask'] for b in seen]).astype(bool)
  images, labels = datasets.load('digits', 'test')
  np.testing.assert_array_equal(np.concatenate([b['labels'] for b in seen])[mask], labels)
  found = np.concatenate([b['images'] for b in seen])[mask][..., :1]
  info = datasets.dataset_info('digits')
  np.testing.assert_allclose(
    found, (images - np.float32(info.mean)) / np.float32(info.std), atol=1e-5
  )


def test_evaluation_against_numpy():
  model = create_model('resnet20_cifar', depths=(1, 1, 1), width=4)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
  results = []
  for devices, batch in ((8, 64), (1, 360), (2, 98)):
    mesh = runtime.data_mesh(devices)
    feed = EvalFeed.create(digits_config(**{'eval.batch_size': batch}), 'test', mesh)
    results.append(evaluate(eval_program(model, feed, mesh), variables, feed))
  images, labels = datasets.load('digits', 'test')
  info = datasets.dataset_info('digits')
  logits = np.asarray(
    model.apply(variables, augment.to_input(images, info.mean, info.std), train=False), float
  )
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  order = np.argsort(-logits, axis=-1, kind='stable')
  expected = {'loss': -log_p[np.arange(360), labels].mean()}
  for k in (1, 3, 5):
    expected[f'top{k}_error'] = 100 * (order[:, :k] != labels[:, None]).all(-1).mean()
  for result in results:
    assert result == pytest.approx(expected, rel=1e-5)


def test_evaluation_can_be_interrupted():
  model = create_model('resnet20_cifar', depths=(1, 1, 1), width=4)
  feed = EvalFeed.create(digits_config(), 'test', runtime.data_mesh(1))
  never = eval_program(model, feed, runtime.data_mesh(1))
  assert evaluate(never, {}, feed, interrupted=lambda: True) is None


# --- data sets -----------------------------------------------------------------------------------


def test_parts_of_splits():
  images, labels = datasets.load('digits', 'train')
  first, rest = datasets.load('digits', 'train[:80%]'), datasets.load('digits', 'train[80%:]')
  np.testing.assert_array_equal(np.concatenate([first[0], rest[0]]), images)
  np.testing.assert_array_equal(np.concatenate([first[1], rest[1]]), labels)
  np.testing.assert_array_equal(datasets.load('digits', 'train[-5:]')[1], labels[-5:])
  for split, message in (
    ('train[5%', 'not of the form'),
    ('validation', "'validation' is unknown"),
    ('test[400:]', 'no examples'),
  ):
    with pytest.raises(UserError, match=message):
      datasets.load('digits', split)


def test_statistics_of_digits():
  images = datasets.load('digits', 'train')[0]
  info = datasets.dataset_info('digits')
  np.testing.assert_allclose(info.mean, images.mean(), rtol=1e-3)
  np.testing.assert_allclose(info.std, images.std(), rtol=1e-3)


@pytest.mark.parametrize('name', [*datasets.DATASETS, 'my_photos'])
def test_fake_data_looks_like_the_data(name):
  info = datasets.streamed_info(name)
  shape = info.image_shape or (9, 9, 3)
  images, labels = datasets.fake(name, 'train', shape)
  assert images.shape[1:] == shape and images.dtype == np.uint8
  assert labels.min() >= 0 and labels.max() < info.num_classes
  again = datasets.fake(name, 'train', shape)
  np.testing.assert_array_equal(images, again[0])
  assert len(datasets.fake(name, 'train[:128]', shape)[1]) == 128
  # A network can tell the classes apart.
  dark, bright = images[labels == 0].mean(), images[labels == labels.max()].mean()
  assert bright - dark > 40
  # A part that begins behind the few that are made up is all of them.
  assert len(datasets.fake('tiny_imagenet', 'train[5000:98179]', (64, 64, 3))[1]) == 2048


def test_labels_are_checked():
  with pytest.raises(UserError, match=r'label 9 of example 2 .* outside 0 to 8'):
    datasets.check_labels(np.array([0, 8, 9]), 9, 'here')
  with pytest.raises(UserError, match='outside 0 to 4'):
    DeviceFeed.create(digits_config(**{'model.num_classes': 5}), runtime.data_mesh(1))


def test_batches_that_do_not_fit():
  with pytest.raises(UserError, match='not divisible by the 8 devices; use 120 or 128'):
    DeviceFeed.create(digits_config(batch_size=121), runtime.data_mesh(8))
  with pytest.raises(UserError, match='larger than the 1437 examples'):
    DeviceFeed.create(digits_config(batch_size=1440), runtime.data_mesh(8))


def test_unprepared_data_names_the_command(tmp_path):
  with pytest.raises(UserError, match=r'prepare_data --dataset=cifar10 --data_dir=\S+ --source='):
    datasets.load('cifar10', 'train', str(tmp_path))


# --- colours -------------------------------------------------------------------------------------


def recolored(images, n=1, **options):
  """Images `[H, W, 3]` recoloured with `n` keys, `[n, H, W, 3]`, and the keys."""
  options = {'pixel_jitter': 0.0, 'color_jitter': 0.0, 'lighting': 0.0, **options}
  keys = jax.random.split(jax.random.key(3), n)
  run = jax.jit(functools.partial(augment.recolor, **options))
  batch = jnp.broadcast_to(jnp.asarray(images, jnp.float32), (n, *images.shape))
  return np.asarray(run(keys, batch), float)


@pytest.fixture(scope='module')
def picture():
  return np.random.default_rng(1).uniform(0, 255, (5, 4, 3))


def test_pixel_jitter_shifts_each_channel(picture):
  shifts = recolored(picture, 2000, pixel_jitter=20.0) - picture
  np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1], shifts.shape), atol=1e-3)
  shifts = shifts[:, 0, 0]
  assert np.abs(shifts).max() <= 20
  np.testing.assert_allclose(shifts.mean(0), 0, atol=1)
  np.testing.assert_allclose(shifts.std(0), 20 / np.sqrt(3), rtol=0.05)
  assert np.abs(np.corrcoef(shifts.T) - np.eye(3)).max() < 0.1


def test_lighting_follows_the_axes_of_alexnet(picture):
  """Shifts of the whole image with the covariance of the published eigenvectors and values."""
  shifts = recolored(picture, 4000, lighting=0.1) - picture
  np.testing.assert_allclose(shifts, np.broadcast_to(shifts[:, :1, :1], shifts.shape), atol=1e-3)
  vectors = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140],
                      [-0.5836, -0.6948, 0.4203]])  # fmt: skip
  values = np.array([0.2175, 0.0188, 0.0045])
  expected = vectors @ np.diag((0.1 * 255 * values) ** 2) @ vectors.T
  found = np.cov(shifts[:, 0, 0].T)
  np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_color_jitter_against_float64(picture):
  """Each result is brightness, contrast and saturation in one of the six orders."""
  grey_of = np.array([0.299, 0.587, 0.114])
  steps = {
    'brightness': lambda x, a: a * x,
    'contrast': lambda x, a: a * x + (1 - a) * (x @ grey_of).mean(),
    'saturation': lambda x, a: a * x + (1 - a) * (x @ grey_of)[..., None],
  }
  n, strength = 60, 0.4
  found = recolored(picture, n, color_jitter=strength)
  orders, amounts = [], []
  for key, result in zip(jax.random.split(jax.random.key(3), n), found, strict=True):
    # The amounts as the implementation draws them; what is made of them is checked here.
    jitter_key = jax.random.split(jax.random.fold_in(key, 5), 3)[0]
    drawn = jax.random.uniform(
      jax.random.split(jitter_key)[1], (3,), minval=-strength, maxval=strength
    )
    amounts.append(1 + np.asarray(drawn, float))
    distances = {}
    for order in itertools.permutations(steps):
      x = picture
      for name in order:
        x = steps[name](x, amounts[-1][list(steps).index(name)])
      distances[order] = np.abs(x - result).max()
    best = min(distances, key=distances.get)
    assert distances[best] < 1e-2
    orders.append(best)
  assert len(set(orders)) == 6
  assert np.min(amounts) > 0.6 and np.max(amounts) < 1.4


def test_brightness_jitter_against_pillow(picture):
  """One factor an image, uniform; values above 255 are cut off."""
  whole = np.round(picture).astype(np.uint8)
  found = recolored(whole, 1000, brightness_jitter=0.2)
  darkest = np.unravel_index(np.where(whole > 100, whole, 255).argmin(), whole.shape)
  factors = found[(slice(None), *darkest)] / whole[darkest]
  np.testing.assert_allclose(np.quantile(factors, [0, 0.5, 1]), [0.8, 1.0, 1.2], atol=0.02)
  for factor, image in zip(factors[:20], found, strict=False):
    expected = ImageEnhance.Brightness(Image.fromarray(whole)).enhance(factor)
    assert np.abs(image - np.asarray(expected, float)).max() <= 1


def test_colors_are_for_colored_images():
  config = digits_config(**{'data.color_jitter': 0.4})
  with pytest.raises(UserError, match='digits is grey'):
    DeviceFeed.create(config, runtime.data_mesh(1))


def test_a_network_keeps_its_own_mean_and_the_configuration_may_change_it():
  config = config_lib.default()
  config.model.name, config.data.name = 'se_resnet50', 'cifar10'
  assert preprocessing.evaluation_transform(config).mean == (123.0, 117.0, 104.0)
  config.model.name = 'se_resnet110_cifar'
  assert preprocessing.evaluation_transform(config).mean == (125.3, 123.0, 113.9)
  config.data.mean, config.data.std = (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)
  found = preprocessing.evaluation_transform(config)
  assert (found.mean, found.std, found.shape) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (32, 32, 3))


@pytest.mark.parametrize(
  ('size', 'resize', 'expected'),
  [(None, None, (224, 256)), (320, None, (320, 366)), (320, 352, (320, 352)), (96, 96, (96, 96))],
)
def test_crops_of_evaluation(size, resize, expected):
  config = config_lib.imagenet('se_resnet50')
  config.data.image_size, config.data.resize = size, resize
  found = preprocessing.evaluation_transform(config)
  assert (found.shape[0], found.resize) == expected and found.image_size == expected[0]
  config.data.resize = expected[0] - 1
  with pytest.raises(UserError, match='is smaller than the crop'):
    preprocessing.evaluation_transform(config)
