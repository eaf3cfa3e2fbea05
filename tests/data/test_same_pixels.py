"""The same bytes are the same pixels in training, evaluation and prediction, from every source."""

import io

import jax
import numpy as np
import pytest
from PIL import ExifTags, Image

from senet_jax import runtime
from senet_jax.data import decoding, feeds, photos, prepare
from senet_jax.data.photos import UnreadableImage
from senet_jax.prediction.photo import opened_photo
from tests.helpers.encoded import encoded
from tests.helpers.small_run import small

SIDE = 24


def strange_images() -> dict[str, bytes]:
  """Files with which decoders differ: transparency, orientation, palettes, depth, colours."""
  rng = np.random.default_rng(0)
  smooth = np.clip(rng.normal(128, 60, (6, 6, 4)), 0, 255).astype(np.uint8)
  rgba = Image.fromarray(smooth).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
  rgb = rgba.convert('RGB')
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 6
  deep = (np.asarray(rgb.convert('L')).astype(np.uint16) << 8) + 77
  return {
    'alpha.png': encoded(rgba, 'PNG'),
    'grey_alpha.png': encoded(rgba.convert('LA'), 'PNG'),
    'clear_palette.png': encoded(rgb.quantize(8), 'PNG', transparency=2),
    'deep.png': encoded(Image.fromarray(deep), 'PNG'),
    'turned.jpg': encoded(rgb, 'JPEG', exif=exif.tobytes()),
    'cmyk.jpg': encoded(rgb.convert('CMYK'), 'JPEG'),
    'plain.jpg': encoded(rgb, 'JPEG'),
    'grey.jpg': encoded(rgb.convert('L'), 'JPEG'),
    'palette.gif': encoded(rgb.quantize(16), 'GIF'),
    'alpha.webp': encoded(rgba, 'WEBP', lossless=True),
    'plain.bmp': encoded(rgb, 'BMP'),
    'plain.tif': encoded(rgb, 'TIFF'),
  }


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A folder of these, two classes with the same images in both splits."""
  root = tmp_path_factory.mktemp('strange')
  for split in ('train', 'val'):
    for label, (name, data) in enumerate(strange_images().items()):
      path = root / split / 'ab'[label % 2] / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(data)
  return root


@pytest.fixture(scope='module')
def tfds_dir(folder, tmp_path_factory):
  """The PNGs and JPEGs as they are in a data set of tfds, which somebody else has made."""
  import tensorflow_datasets as tfds

  root = tmp_path_factory.mktemp('tfds')
  found = {k: v for k, v in strange_images().items() if k.endswith(('png', 'jpg'))}

  class Raw(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')
    url_infos = None

    def _info(self):
      features = {
        'image': tfds.features.Image(shape=(None, None, None)),
        'label': tfds.features.ClassLabel(names=['a', 'b']),
      }
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples() for split in ('train', 'val')}

    def _generate_examples(self):
      for i, (name, data) in enumerate(found.items()):
        yield name, {'image': data, 'label': i % 2}

  Raw.name = 'raw'
  Raw(data_dir=root).download_and_prepare()
  return root


def images_of(name, data_dir):
  """What training and evaluation take to the devices, sorted, without random changes."""
  config = small(data__fake=False, data__feed='stream', data__name=name, batch_size=4)
  config.data.dir, config.data.train_split, config.data.eval_split = str(data_dir), 'train', 'val'
  config.data.update({'image_size': SIDE, 'resize': SIDE, 'crop_area': (), 'rotation': 0.0})
  mesh = runtime.data_mesh(1)
  train, evaluation = feeds.training_feed(config, mesh), feeds.evaluation_feed(config, 'val', mesh)
  count = train.split.num_examples
  shown = [jax.device_get(train.inputs(step, 1)[0]) for step in range(-(-count // 4))]
  trained = {int(i): image for b in shown for i, image in zip(b['index'], b['images'], strict=True)}
  batches = [jax.device_get(evaluation.inputs(step)) for step in range(len(evaluation))]
  evaluated = np.concatenate([b['images'] for b in batches])[:count]
  assert not train.damaged and not evaluation.damaged
  return sorted(im.tobytes() for im in trained.values()), sorted(im.tobytes() for im in evaluated)


def predicted(names):
  with_sides = (
    photos.central_crop(photos.open_rgb(strange_images()[n]), SIDE, SIDE) for n in names
  )
  return sorted(image.tobytes() for image in with_sides)


def test_a_folder(folder):
  expected = predicted(strange_images())
  assert images_of('image_folder', folder) == (expected, expected)


def test_a_data_set_of_tfds(tfds_dir):
  expected = predicted([n for n in strange_images() if n.endswith(('png', 'jpg'))])
  assert images_of('raw', tfds_dir) == (expected, expected)


def test_a_packed_folder(folder, tmp_path):
  prepare.prepare('packed_strange', tmp_path, image_folder=folder)
  expected = predicted(strange_images())
  assert images_of('packed_strange', tmp_path) == (expected, expected)


@pytest.mark.parametrize('name', strange_images())
def test_a_pillow_image_and_a_path(name, tmp_path):
  data = strange_images()[name]
  (tmp_path / name).write_bytes(data)
  expected = np.asarray(photos.open_rgb(data))
  for given in (tmp_path / name, Image.open(io.BytesIO(data))):
    with opened_photo(given) as image:
      np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize(('mode', 'dtype'), [('F', np.float32), ('I', np.int32)])
def test_values_without_a_scale_are_refused(mode, dtype):
  image = Image.fromarray(np.full((8, 8), 1, dtype))
  assert image.mode == mode
  with pytest.raises(UnreadableImage, match=f'mode {mode}.* are no grey levels from 0 to 255'):
    photos.to_rgb(image)
  with pytest.raises(UnreadableImage, match=f'mode {mode}'):
    photos.open_rgb(encoded(image, 'TIFF'))


def test_a_png_without_its_last_rows():
  image = Image.fromarray(np.random.default_rng(0).integers(1, 255, (900, 10, 3), dtype=np.uint8))
  whole = encoded(image, 'PNG')
  assert photos.open_rgb(whole).size == (10, 900)
  few = encoded(image.crop((0, 0, 10, 3)), 'PNG')
  bad = whole[:33] + few[33:]  # the header of the one, the pixels of the other
  with pytest.raises(UnreadableImage, match='bytes of pixels of 27900'):
    photos.open_rgb(bad)
  black = encoded(Image.new('RGB', (10, 900)), 'PNG')
  assert not np.asarray(photos.open_rgb(black)).any()


@pytest.mark.parametrize('options', [{}, {'progressive': True}, {'subsampling': '4:4:4'}])
def test_a_jpeg_whose_header_lies(options):
  noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
  data = bytearray(encoded(Image.fromarray(noise), 'JPEG', **options))
  at = data.index(b'\xff\xc2' if options.get('progressive') else b'\xff\xc0') + 5
  data[at : at + 2] = (6400).to_bytes(2, 'big')
  with pytest.raises(UnreadableImage, match='ends before the last rows'):
    photos.open_rgb(bytes(data))
  white = encoded(Image.new('RGB', (64, 640), 'white'), 'JPEG', **options)
  assert np.asarray(photos.open_rgb(white)).min() == 255


def test_training_crops_are_those_of_pillow_on_all_kinds():
  drawn = np.zeros(decoding.training_draws(None), np.float32)
  for data in strange_images().values():
    found = decoding.training_image(data, drawn, (16, 16, 3), area=(), aspect=(1, 1), rotation=0.0)
    expected = photos.open_rgb(data).resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(expected))
