"""Photos of every kind become the same RGB, here and in TensorFlow."""

import contextlib
import io
import pathlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from senet_jax import runtime
from senet_jax.data import photos
from tests.helpers.encoded import encoded

# pytest lifts the filter of the module; `test_nothing_is_printed` sees it at work.
_QUIET = pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')


def smooth(height=40, width=60) -> np.ndarray:
  """An image that JPEG keeps well and in which every corner differs."""
  y, x = np.mgrid[:height, :width]
  return np.stack([y * 4, x * 3, 255 - y - x], -1).astype(np.uint8)


def pixels(data: bytes) -> np.ndarray:
  image = photos.open_rgb(data)
  assert image.mode == 'RGB'
  return np.asarray(image)


def by_tensorflow(data: bytes) -> np.ndarray:
  tf = runtime.import_tensorflow()
  if data[:2] == b'\xff\xd8':
    return tf.io.decode_jpeg(data, channels=3, dct_method='INTEGER_ACCURATE').numpy()
  return tf.io.decode_png(data, channels=3).numpy()


def oriented(orientation: int) -> Image.Exif:
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = orientation
  return exif


# How a camera that was held so stores what is upright, by the definition of the tag (TIFF 6).
STORED = {
  1: lambda a: a,
  2: lambda a: a[:, ::-1],
  3: lambda a: a[::-1, ::-1],
  4: lambda a: a[::-1],
  5: lambda a: a.transpose(1, 0, 2),
  6: lambda a: np.rot90(a, 1),
  7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
  8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'MPO'])
@pytest.mark.parametrize('orientation', STORED)
def test_orientation(kind, orientation):
  stored = np.ascontiguousarray(STORED[orientation](smooth()))
  options = {'PNG': {}, 'WEBP': {'lossless': True}}.get(kind, {'quality': 95})
  data = encoded(stored, kind, exif=oriented(orientation), **options)
  tolerance = 0 if kind in ('PNG', 'WEBP') else 8
  np.testing.assert_allclose(pixels(data).astype(int), smooth(), atol=tolerance)
  plain = photos.plain_bytes(data)
  assert (plain is data) == (orientation == 1 and kind != 'WEBP')
  np.testing.assert_allclose(
    by_tensorflow(plain).astype(int), pixels(data), atol=2 * (plain is data)
  )


@pytest.mark.parametrize('orientation', [0, 9])
def test_orientation_that_does_not_exist(orientation):
  data = encoded(smooth(), 'JPEG', exif=oriented(orientation))
  assert pixels(data).shape == (40, 60, 3)
  assert photos.plain_bytes(data) is data


def test_orientation_beside_damaged_exif():
  exif = oriented(6)
  exif[ExifTags.Base.XResolution] = 72.0
  data = encoded(smooth(), 'JPEG', exif=exif)
  # The resolution is of another type than its value now.
  damaged = data.replace(b'\x01\x1a\x00\x05', b'\x01\x1a\x00\x01')
  with pytest.raises(TypeError, match='bad operand'):
    ImageOps.exif_transpose(Image.open(io.BytesIO(damaged)))
  assert pixels(damaged).shape == (60, 40, 3)
  assert by_tensorflow(photos.plain_bytes(damaged)).shape == (60, 40, 3)


def test_orientation_behind_the_pixels_of_a_png():
  data = encoded(smooth(), 'PNG')
  chunk = encoded(smooth(), 'PNG', exif=oriented(3))
  start = chunk.index(b'eXIf') - 4
  chunk = chunk[start : start + 12 + int.from_bytes(chunk[start : start + 4])]
  data = data[:-12] + chunk + data[-12:]
  np.testing.assert_array_equal(pixels(data), smooth()[::-1, ::-1])
  np.testing.assert_array_equal(by_tensorflow(photos.plain_bytes(data)), pixels(data))


def kinds() -> dict[str, tuple[bytes, np.ndarray, int]]:
  """Encoded images, what they show, and by how many grey levels they may differ from it."""
  rgb = smooth()
  image = Image.fromarray(rgb)
  grey = rgb[..., :1]
  as_grey = np.repeat(grey, 3, -1)
  alpha = np.full(grey.shape, 128, np.uint8)
  half_white = (rgb.astype(int) * 128 + 255 * 127) / 255
  rgba = np.concatenate([rgb, alpha], -1)
  grey_alpha = Image.merge('LA', [Image.fromarray(a[..., 0]) for a in (grey, alpha)])
  grey_half_white = np.repeat(half_white[..., :1], 3, -1)
  black_white = image.convert('1')
  black_white_rgb = np.asarray(black_white.convert('RGB'))
  palette = image.quantize(16)
  shown = np.asarray(palette.convert('RGB'))
  clear = np.where(np.asarray(palette)[..., None] == 3, 255, shown)
  deep = grey.astype(np.uint16)[..., 0] * 257
  cmyk = image.convert('CMYK')
  key = np.where((rgb == rgb[5, 5]).all(-1, keepdims=True), 255, rgb)
  more = {'save_all': True, 'append_images': [image.rotate(180)]}
  return {
    'jpeg': (encoded(rgb, 'JPEG', quality=95), rgb, 8),
    'jpeg_422': (encoded(rgb, 'JPEG', quality=95, subsampling='4:2:2'), rgb, 8),
    'jpeg_progressive': (encoded(rgb, 'JPEG', quality=95, progressive=True), rgb, 8),
    'jpeg_grey': (encoded(grey[..., 0], 'JPEG', quality=95), as_grey, 4),
    'jpeg_rgb': (encoded(rgb, 'JPEG', quality=95, keep_rgb=True), rgb, 4),
    'jpeg_cmyk': (encoded(cmyk, 'JPEG', quality=95), rgb, 12),
    'png': (encoded(rgb, 'PNG'), rgb, 0),
    'png_grey': (encoded(grey[..., 0], 'PNG'), as_grey, 0),
    'png_1_bit': (encoded(black_white, 'PNG'), black_white_rgb, 0),
    'png_16_bit': (encoded(deep, 'PNG'), as_grey, 0),
    'png_rgba': (encoded(rgba, 'PNG'), half_white, 1),
    'png_grey_alpha': (encoded(grey_alpha, 'PNG'), grey_half_white, 1),
    'png_palette': (encoded(palette, 'PNG'), shown, 0),
    'png_palette_clear': (encoded(palette, 'PNG', transparency=3), clear, 0),
    'png_key': (encoded(rgb, 'PNG', transparency=tuple(map(int, rgb[5, 5]))), key, 0),
    'webp': (encoded(rgb, 'WEBP', lossless=True), rgb, 0),
    'webp_alpha': (encoded(rgba, 'WEBP', lossless=True), half_white, 1),
    'webp_frames': (encoded(rgb, 'WEBP', lossless=True, **more), rgb, 0),
    'png_frames': (encoded(rgb, 'PNG', **more), rgb, 0),
    'gif_frames': (encoded(palette, 'GIF', **more), shown, 0),
    'bmp': (encoded(rgb, 'BMP'), rgb, 0),
  }  # fmt: skip


@pytest.mark.parametrize('kind', kinds())
def test_kinds(kind):
  data, expected, tolerance = kinds()[kind]
  np.testing.assert_allclose(pixels(data).astype(float), expected, atol=tolerance)
  plain = photos.plain_bytes(data)
  unchanged = kind.startswith(('jpeg', 'png')) and kind in (
    'jpeg', 'jpeg_422', 'jpeg_progressive', 'jpeg_grey', 'jpeg_rgb', 'png', 'png_grey', 'png_frames'
  )  # fmt: skip
  assert (plain is data) == unchanged
  tolerance = 2 if plain[:2] == b'\xff\xd8' else 0
  np.testing.assert_allclose(by_tensorflow(plain).astype(int), pixels(data), atol=tolerance)


def test_png_of_16_bit_colour():
  """Pillow cannot write one: made by TensorFlow, which rounds down as well."""
  tf = runtime.import_tensorflow()
  image = np.arange(2 * 60 * 60 * 3, dtype=np.uint16).reshape(60, 120, 3) * 3
  data = tf.io.encode_png(image).numpy()
  np.testing.assert_array_equal(pixels(data), image >> 8)
  np.testing.assert_array_equal(by_tensorflow(photos.plain_bytes(data)), image >> 8)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF', 'BMP'])
def test_truncated(kind):
  rng = np.random.default_rng(0)
  data = encoded(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
  for kept in (0, 1, 10, 30, len(data) // 2, len(data) * 9 // 10):
    with pytest.raises(photos.UnreadableImage) as error:
      photos.open_rgb(data[:kept])
    reason = str(error.value)
    assert reason and '\n' not in reason and '0x' not in reason, reason


def test_no_image():
  for function in (photos.open_rgb, photos.plain_bytes):
    with pytest.raises(photos.UnreadableImage, match='no JPEG, PNG, WEBP, GIF, BMP'):
      function(b'# a text\n' * 100)
    with pytest.raises(photos.UnreadableImage, match='empty'):
      function(b'')
    with pytest.raises(photos.UnreadableImage, match='no JPEG'):
      function(encoded(smooth(), 'PPM'))


@_QUIET
@pytest.mark.parametrize('side', [10_000, 20_000])
def test_decompression_bomb(side):
  """Below twice Pillow's limit, where it warns, and above."""
  data = encoded(Image.new('1', (side, side)), 'PNG')
  assert len(data) < 100_000
  for function in (photos.open_rgb, photos.plain_bytes):
    with pytest.raises(photos.UnreadableImage, match='pixels'):
      function(data)


def test_nothing_is_printed(tmp_path):
  """Outside pytest: on bombs and damaged EXIF."""
  (tmp_path / 'bomb.png').write_bytes(encoded(Image.new('1', (10_000, 10_000)), 'PNG'))
  whole = encoded(smooth(), 'JPEG', exif=oriented(6))
  damaged = whole.replace(b'\0\x01\x01\x12', b'\0\x09\x01\x12')  # nine tags, it says
  assert damaged != whole
  with pytest.warns(UserWarning, match='Corrupt EXIF'):
    Image.open(io.BytesIO(damaged)).getexif()
  (tmp_path / 'exif.jpg').write_bytes(damaged)
  code = (
    'import pathlib, sys, contextlib\nfrom senet_jax.data import photos\n'
    'for path in map(pathlib.Path, sys.argv[1:]):\n'
    '  with contextlib.suppress(photos.UnreadableImage): photos.open_rgb(path.read_bytes())\n'
  )
  command = [sys.executable, '-c', code, *map(str, tmp_path.iterdir())]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert not done.stdout + done.stderr


def png_of(body: bytes) -> bytes:
  """A black PNG of 8x8 pixels, whose data are `body`."""
  chunks = (b'IHDR', struct.pack('>IIBBBBB', 8, 8, 8, 0, 0, 0, 0)), (b'IDAT', body), (b'IEND', b'')
  return b'\x89PNG\r\n\x1a\n' + b''.join(
    struct.pack('>I', len(data)) + name + data + struct.pack('>I', zlib.crc32(name + data))
    for name, data in chunks
  )


def test_black_png_whose_data_are_damaged_behind_the_pixels():
  data = zlib.compress(bytes(8 * 9 + 100))
  assert not pixels(png_of(data)).any()
  with pytest.raises(photos.UnreadableImage, match='incorrect data check'):
    photos.open_rgb(png_of(data[:-4] + b'\xff' * 4))


@_QUIET
def test_any_damage_is_an_unreadable_image():
  rng = np.random.default_rng(0)
  for kind in ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP'):
    whole = encoded(smooth(), kind)
    for _ in range(100):
      data = bytearray(whole)
      for place in rng.integers(0, len(data), 5):
        data[place] = rng.integers(256)
      for function in (photos.open_rgb, photos.plain_bytes):
        with contextlib.suppress(photos.UnreadableImage):
          function(bytes(data))


# --- the crop of an evaluation -------------------------------------------------------------------


def test_central_crop_shows_the_middle():
  image = Image.fromarray(smooth(40, 61))
  crop = photos.central_crop(image, 40, 32)
  assert crop.dtype == np.uint8
  np.testing.assert_array_equal(crop, smooth(40, 61)[4:36, 14:46])
  np.testing.assert_array_equal(photos.central_crop(image, 40, (40, 20)), smooth(40, 61)[:, 20:40])
  assert photos.central_crop(image, None, 20).shape == (20, 20, 3)
  assert photos.central_crop(image, None, (20, 30)).shape == (20, 30, 3)
  same = Image.fromarray(smooth(32, 32))
  np.testing.assert_array_equal(photos.central_crop(same, None, 32), smooth(32, 32))
  with pytest.raises(ValueError, match='resize=20 is smaller than the crop of 32 x 32'):
    photos.central_crop(image, 20, 32)


@pytest.mark.parametrize(
  ('height', 'width', 'keep_aspect'),
  [*((275, width, True) for width in (300, 333, 500, 1001)), (500, 375, True), (275, 400, False)],
)
def test_central_crop_is_resizing_and_then_cropping(height, width, keep_aspect):
  rng = np.random.default_rng(0)
  image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
  scale = 256 / min(height, width)
  size = (round(width * scale), round(height * scale)) if keep_aspect else (256, 256)
  whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
  left, top = ((n - 224) // 2 for n in size)
  found = photos.central_crop(image, 256, 224, keep_aspect=keep_aspect)
  difference = found - whole[top : top + 224, left : left + 224]
  assert np.isin(difference, (0, 1, 255)).all() and (difference != 0).mean() < 1e-2


def test_central_crop_of_a_strip():
  crop = photos.central_crop(Image.new('RGB', (1, 50_000), 'red'), 256, 224)
  assert (crop == (255, 0, 0)).all() and crop.shape == (224, 224, 3)


# --- real photos ---------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def photo_files(imagenet_sample) -> list[pathlib.Path]:
  """100 photos of ImageNet."""
  return sorted(imagenet_sample.iterdir())


def test_real_photos(photo_files):
  assert len(photo_files) == 100
  unchanged = 0
  for path in photo_files:
    data = path.read_bytes()
    plain = photos.plain_bytes(data)
    unchanged += plain is data
    assert np.abs(by_tensorflow(plain).astype(int) - pixels(data)).max() <= 3
  assert unchanged >= 95
