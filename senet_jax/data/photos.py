"""Photos as people have them: any JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF becomes plain RGB.

All functions may run in several threads at once; Pillow decodes without the interpreter lock.
"""

import contextlib
import importlib.util
import io
import os
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image, features

from senet_jax.errors import UserError, at_least


def _readable_formats() -> dict[str, tuple[str, ...]]:
  """Returns Pillow's names of what is read, and suffixes; each is one more parser to reach."""
  formats = {
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'),
    'PNG': ('.png',),
    'WEBP': ('.webp',),
    'GIF': ('.gif',),
    'BMP': ('.bmp',),
    'TIFF': ('.tif', '.tiff'),
  }
  if features.check('avif'):
    formats['AVIF'] = ('.avif',)
  if importlib.util.find_spec('pillow_heif'):
    import pillow_heif

    pillow_heif.register_heif_opener()
    formats['HEIF'] = ('.heic', '.heif')
  return formats


_FORMATS = _readable_formats()
# Of the files that are taken from a folder, in lower case; what a file is, its content says.
SUFFIXES = tuple(suffix for suffixes in _FORMATS.values() for suffix in suffixes)
# Of one image, unless `allow_pixels` says more; Pillow's own limit.
_MAX_PIXELS = Image.MAX_IMAGE_PIXELS or sys.maxsize
_VARIABLE = 'SENET_JAX_MAX_PIXELS'
# Of all images that are being decoded at once; a larger one is decoded alone.
_PIXELS_IN_FLIGHT = 100_000_000
# Bit depth 8 and colour type grey or RGB, at this place of the header of every PNG.
_PNG_TYPE = slice(24, 26)
_PLAIN_PNG = (b'\x08\x00', b'\x08\x02')
# Begins what a PNG may hold an orientation in.
_PNG_METADATA = (b'eXIf', b'Raw profile type', b'XML:com.adobe.xmp')
# The marker behind the pixels of a JPEG, and what could be some more of them.
_END_OF_JPEG, _MORE_JPEG = b'\xff\xd9', bytes(range(1, 251)) * 16
# How an image is brought upright, by its EXIF orientation. ImageOps.exif_transpose writes a new
# EXIF block too, and fails where the old one is damaged.
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# Those that exchange height and width.
_SIDEWAYS = tuple(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))

# On damaged EXIF and on large images, which are an error here. `warnings.catch_warnings` around
# each image would not do: it is not safe in threads.
warnings.filterwarnings('ignore', module=r'PIL\.')


most_pixels = _MAX_PIXELS


class UnreadableImage(ValueError):
  """Data that is no image, or a damaged one; the message is the reason, in a few words."""


def allow_pixels(count: int) -> None:
  """Sets how many pixels an image may have.

  Raises:
    UserError: it is not positive.
  """
  global most_pixels
  at_least('max_pixels', count, 1)
  most_pixels = count
  Image.MAX_IMAGE_PIXELS = None  # ours holds for all


def open_rgb(data: bytes) -> Image.Image:
  """Returns an encoded image as `to_rgb` makes it.

  Raises:
    UnreadableImage: it is of no known format, damaged, cut short, has no clear meaning as grey
      levels or is beyond the limit of size.
  """
  return _decoded(_open(data), data)


def _decoded(image: Image.Image, data: bytes) -> Image.Image:
  kind = image.format
  _load(image)
  # What is missing of a PNG comes out as zeros, of a JPEG as one colour.
  end = np.asarray(image.crop((0, max(image.height - 8, 0), image.width, image.height)))
  if kind == 'PNG' and not end[-1].any():
    _check_png(data)
  elif kind in ('JPEG', 'MPO') and (end == end[0, 0]).all():
    _check_jpeg(data, image)
  return to_rgb(image)


def _load(image: Image.Image) -> None:
  try:
    image.load()
  except Exception as error:  # decoders raise nearly anything on damaged data
    raise UnreadableImage(_reason(error)) from error


def _check_png(data: bytes) -> None:
  """Checks that the rows of a PNG are there, of whose lack Pillow says nothing.

  Raises:
    UnreadableImage: some are missing.
  """
  width, height, depth, colours, _, _, interlaced = struct.unpack('>IIBBBBB', data[16:29])
  if interlaced:  # whose first pass alone shows something in each row
    return
  channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
  expected = height * (1 + (width * depth * channels + 7) // 8)
  inflate, found, at = zlib.decompressobj(), 0, 8
  while at + 8 <= len(data) and found < expected:
    length, kind = struct.unpack('>I4s', data[at : at + 8])
    piece = data[at + 8 : at + 8 + length] if kind == b'IDAT' else b''
    while piece:
      try:
        found += len(inflate.decompress(piece, 2**20))
      except zlib.error as error:  # behind the pixels, where Pillow does not look
        raise UnreadableImage(str(error)) from error
      piece = inflate.unconsumed_tail
    at += length + 12
  if found < expected:
    raise UnreadableImage(f'it has {found} bytes of pixels of {expected}')


def _check_jpeg(data: bytes, image: Image.Image) -> None:
  """Checks that all rows of a JPEG are there, of whose lack Pillow says nothing.

  Args:
    data: the JPEG.
    image: what Pillow makes of it.

  Raises:
    UnreadableImage: there is less than the header says.
  """
  at = data.rfind(_END_OF_JPEG)
  if at < 0:
    raise UnreadableImage('it has no end')
  # A decoder that has all it wants passes over more.
  longer = Image.open(io.BytesIO(data[:at] + _MORE_JPEG + data[at:]), formats=('JPEG',))
  _load(longer)
  if longer.tobytes() != image.tobytes():
    raise UnreadableImage('it ends before the last rows that its header promises')


@contextlib.contextmanager
def opened_rgb(data: bytes) -> Iterator[Image.Image]:
  """Gives an encoded image as `open_rgb` does, once there is room for it in memory.

  Threads that decode at the same time wait for each other, so that large images do not add up; the
  image is to be used within the block.

  Raises:
    UnreadableImage: see `open_rgb`.
  """
  image = _open(data)
  with _in_flight.room(image.width * image.height):
    yield _decoded(image, data)


def size_of(data: bytes) -> tuple[int, int]:
  """Returns height and width of what `open_rgb` makes of an encoded image; reads only its header.

  Raises:
    UnreadableImage: as of `open_rgb`; damage beyond the header goes unnoticed.
  """
  image = _open(data)
  turned = _upright(image) in _SIDEWAYS
  return (image.width, image.height) if turned else (image.height, image.width)


class Room:
  """Pixels that may be in memory at once."""

  def __init__(self, pixels: int):
    self._pixels, self._free = pixels, pixels
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def room(self, pixels: int) -> Iterator[None]:
    """Takes so many pixels, or all, as soon as they are free."""
    pixels = min(pixels, self._pixels)
    with self._changed:
      self._changed.wait_for(lambda: self._free >= pixels)
      self._free -= pixels
    try:
      yield
    finally:
      with self._changed:
        self._free += pixels
        self._changed.notify_all()


_in_flight = Room(_PIXELS_IN_FLIGHT)


def to_rgb(image: Image.Image) -> Image.Image:
  """Turns any Pillow image upright and into 8-bit RGB.

  The first frame of several; transparency in front of white; 16 bits without the lower 8; CMYK
  without its colour profile. Wider integers and floats, of which nothing says what is white, are
  refused.

  Raises:
    UnreadableImage: the image was opened but not decoded yet, and is damaged; or see above.
  """
  if image.mode in ('I', 'F'):
    raise UnreadableImage(
      f'its values (mode {image.mode}) are no grey levels from 0 to 255; convert it to 8 bits'
    )
  _load(image)
  try:
    upright = _upright(image)
    if image.mode.startswith('I;16'):  # Pillow's own conversion clips
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == 'La':  # premultiplied
      image = image.convert('LA')
    if image.has_transparency_data:
      image = image.convert('RGBA')
      image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    image = image.convert('RGB')
  except Exception as error:  # decoders raise nearly anything on damaged data
    raise UnreadableImage(_reason(error)) from error
  image.info = {}  # nothing of it holds any more
  return image if upright is None else image.transpose(upright)


def plain_bytes(data: bytes) -> bytes:
  """Returns encoded data from which a decoder that knows no EXIF makes the image of `open_rgb`.

  That is the data itself, of which only the header is looked at, if it is a grey or RGB JPEG or
  8-bit PNG without transparency that need not be turned; else a PNG.

  Raises:
    UnreadableImage: as of `open_rgb`; damage beyond the header of plain data goes unnoticed.
  """
  image = _open(data)
  if image.format == 'PNG':
    plain = data[_PNG_TYPE] in _PLAIN_PNG and 'transparency' not in image.info
    # Without any, Pillow would decode the whole PNG to look for EXIF behind the pixels.
    metadata = any(name in data for name in _PNG_METADATA)
  else:
    plain = image.format in ('JPEG', 'MPO') and image.mode in ('L', 'RGB')
    metadata = True
  if plain and (not metadata or _upright(image) is None):
    return data
  buffer = io.BytesIO()
  to_rgb(image).save(buffer, 'PNG', compress_level=1)
  return buffer.getvalue()


def central_crop(
  image: Image.Image,
  resize: int | None,
  size: int | tuple[int, int],
  keep_aspect: bool = True,
  interpolation: str = 'bilinear',
) -> np.ndarray:
  """Returns the middle of a resized image, as an evaluation sees it.

  Args:
    image: RGB.
    resize: the shorter side before the crop, in pixels; None: the larger side of the crop.
    size: side of the square crop, or its height and width.
    keep_aspect: if not, both sides are resized to `resize`.
    interpolation: `bilinear` or `bicubic`, over the support of the reduction.

  Returns:
    uint8 `[height, width, 3]`.

  Raises:
    ValueError: the resized image is smaller than the crop.
  """
  size = (size, size) if isinstance(size, int) else size
  return crop_resized(image, resize or max(size), size, (1, 1), keep_aspect, interpolation)


def crop_resized(
  image: Image.Image,
  resize: int,
  size: tuple[int, int],
  place: tuple[int, int],
  keep_aspect: bool,
  interpolation: str,
) -> np.ndarray:
  """Returns a crop of a resized image.

  Args:
    image: RGB.
    resize: as of `central_crop`.
    size: height and width of the crop.
    place: of the crop, down and across, in halves of what the image is larger.
    keep_aspect: as of `central_crop`.
    interpolation: as of `central_crop`.

  Returns:
    uint8 `[height, width, 3]`.

  Raises:
    ValueError: the resized image is smaller than the crop.
  """
  height, width = size
  shorter = min(image.size)
  resized = tuple(round(side * resize / (shorter if keep_aspect else side)) for side in image.size)
  if resized[0] < width or resized[1] < height:
    raise ValueError(f'resize={resize} is smaller than the crop of {height} x {width}')
  top, left = (resized[1] - height) * place[0] // 2, (resized[0] - width) * place[1] // 2
  # Only what the crop shows is computed, or a strip of pixels could become an image of gigabytes.
  x, y = image.width / resized[0], image.height / resized[1]
  box = (left * x, top * y, (left + width) * x, (top + height) * y)
  return np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()], box))


def _open(data: bytes) -> Image.Image:
  """Reads the header."""
  try:
    image = Image.open(io.BytesIO(data), formats=tuple(_FORMATS))
  except Image.UnidentifiedImageError as error:
    known = f'no {", ".join(_FORMATS)} image'
    raise UnreadableImage(known if data else 'the file is empty') from error
  except Exception as error:  # as in to_rgb
    raise UnreadableImage(_reason(error)) from error
  # Up to twice its limit Pillow only warns.
  if image.width * image.height > most_pixels:
    raise UnreadableImage(
      f'{image.width} x {image.height} pixels are more than the {most_pixels} allowed '
      f'(--max_pixels, or {_VARIABLE} in the environment, allows more)'
    )
  return image


def _upright(image: Image.Image) -> Image.Transpose | None:
  """Returns what brings an image upright; None if it is, or if its EXIF block cannot be read."""
  try:
    return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
  except Exception:
    return None


def _reason(error: Exception) -> str:
  return ' '.join(str(error).split())[:100] or type(error).__name__


if _VARIABLE in os.environ:
  if not os.environ[_VARIABLE].isdecimal():
    raise UserError(f'{_VARIABLE}={os.environ[_VARIABLE]!r} must be a number of pixels.')
  allow_pixels(int(os.environ[_VARIABLE]))
