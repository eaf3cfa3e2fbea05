"""Photos are resized by the filter that the configuration says, in every path of an evaluation."""

import numpy as np
import pytest
from PIL import Image

from senet_jax import config as config_lib
from senet_jax.data import decoding, photos
from senet_jax.data.crops import Crops
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.evaluation import competition
from tests.helpers.encoded import encoded

FILTERS = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}


def photo(height=150, width=201):
  """Sharp edges, at which a bicubic filter goes beyond the range."""
  rng = np.random.default_rng(0)
  blocks = rng.integers(0, 2, (height // 6 + 1, width // 6 + 1, 3)) * 255
  pixels = blocks.repeat(6, 0).repeat(6, 1)[:height, :width].astype(np.uint8)
  return Image.fromarray(pixels)


@pytest.mark.parametrize('interpolation', FILTERS)
@pytest.mark.parametrize('resize', [60, 235])
def test_pillow_and_tensorflow_agree(interpolation, resize):
  image, size = photo(), 56
  whole = image.resize((round(image.width * resize / image.height), resize), FILTERS[interpolation])
  left, top = (whole.width - size) // 2, (whole.height - size) // 2
  expected = np.asarray(whole.crop((left, top, left + size, top + size)), int)
  ours = photos.central_crop(image, resize, size, interpolation=interpolation)
  assert np.abs(ours - expected).max() <= 1
  options = {'size': size, 'interpolation': interpolation}
  one = decoding.evaluation_image(encoded(image), resize=resize, **options)
  difference = np.abs(one.astype(int) - expected)
  assert difference.max() <= 3 and difference.mean() < 0.5
  crops = Crops(size, (resize,), interpolation=interpolation).of_photo(encoded(image))
  np.testing.assert_array_equal(crops[0], one)


def test_filters_differ():
  bilinear, bicubic = (
    photos.central_crop(photo(), 60, 56, interpolation=name).astype(int) for name in FILTERS
  )
  assert np.abs(bilinear - bicubic).mean() > 2


def test_the_configuration_says_it():
  config = config_lib.imagenet('se_resnet50')
  assert evaluation_transform(config).interpolation == 'bilinear'
  config.data.interpolation, config.data.resize = 'bicubic', 235
  assert evaluation_transform(config).interpolation == 'bicubic'
  crops = competition.choose_crops([config]).crops
  assert crops.describe() == '224 x 224 of images of 235, bicubic'
  config.data.interpolation = 'lanczos'
  with pytest.raises(UserError, match=r"data\.interpolation='lanczos' is unknown"):
    config_lib.check(config)
  config = config_lib.cifar('se_resnet20_cifar')
  config.data.interpolation = 'bicubic'
  with pytest.raises(UserError, match=r"interpolation=bicubic has no effect with .*'device'"):
    config_lib.check(config)
