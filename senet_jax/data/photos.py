"""Photos as people have them: any kind of JPEG, PNG, WebP, GIF or BMP becomes plain RGB.

All functions may run in several threads at once; Pillow decodes without the interpreter lock.
"""

import io
import warnings

import numpy as np
from PIL import ExifTags, Image

# Of the files that are taken from a folder; what a file is, its content says.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp')

# Pillow's names. Each further format it knows is one more parser that strange files can reach.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP')
# Bit depth 8 and colour type grey or RGB, at this place of the header of every PNG.
_PNG_TYPE = slice(24, 26)
_PLAIN_PNG = (b'\x08\x00', b'\x08\x02')
# Begins what a PNG may hold an orientation in.
_PNG_METADATA = (b'eXIf', b'Raw profile type', b'XML:com.adobe.xmp')
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

# On damaged EXIF and on large images, which are an error here. `warnings.catch_warnings` around
# each image would not do: it is not safe in threads.
warnings.filterwarnings('ignore', module=r'PIL\.')


class UnreadableImage(ValueError):
  """Data that is no image, or a damaged one; the message is the reason, in a few words."""


def open_rgb(data: bytes) -> Image.Image:
  """Decodes an encoded image, as of `to_rgb`.

  Raises:
    UnreadableImage: it is of no known format, damaged, cut short or beyond Pillow's limit of size.
  """
  return to_rgb(_open(data))


def to_rgb(image: Image.Image) -> Image.Image:
  """Turns any Pillow image upright and into 8-bit RGB.

  The first frame of several; transparency in front of white; 16 bits without the lower 8; CMYK
  without its colour profile.

  Raises:
    UnreadableImage: the image was opened but not decoded yet, and is damaged.
  """
  try:
    image.load()
    upright = _upright(image)
    if image.mode.startswith('I;16'):  # Pillow's own conversion clips
      image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
      image = image.convert('RGBA')
      image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
    image = image.convert('RGB')
  except Exception as error:  # decoders raise nearly anything on damaged data
    raise UnreadableImage(_reason(error)) from error
  image.info = {}  # nothing of it holds any more
  return image if upright is None else image.transpose(upright)


def plain_bytes(data: bytes) -> bytes:
  """Encoded data from which a decoder that knows no EXIF makes the image of `open_rgb`.

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
  """The middle of a resized image, as an evaluation sees it.

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
  height, width = (size, size) if isinstance(size, int) else size
  resize = resize or max(height, width)
  shorter = min(image.size)
  resized = tuple(round(side * resize / (shorter if keep_aspect else side)) for side in image.size)
  if resized[0] < width or resized[1] < height:
    raise ValueError(f'resize={resize} is smaller than the crop of {height} x {width}')
  left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
  # Only what the crop shows is computed, or a strip of pixels could become an image of gigabytes.
  x, y = image.width / resized[0], image.height / resized[1]
  box = (left * x, top * y, (left + width) * x, (top + height) * y)
  return np.asarray(image.resize((width, height), Image.Resampling[interpolation.upper()], box))


def _open(data: bytes) -> Image.Image:
  """Reads the header."""
  try:
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
  except Image.UnidentifiedImageError as error:
    known = 'JPEG, PNG, WebP, GIF or BMP'
    raise UnreadableImage(f'no {known} image' if data else 'the file is empty') from error
  except Exception as error:  # as in to_rgb
    raise UnreadableImage(_reason(error)) from error
  # Up to twice its limit Pillow only warns.
  if Image.MAX_IMAGE_PIXELS and image.width * image.height > Image.MAX_IMAGE_PIXELS:
    raise UnreadableImage(
      f'{image.width} x {image.height} pixels are more than the {Image.MAX_IMAGE_PIXELS} allowed'
    )
  return image


def _upright(image: Image.Image) -> Image.Transpose | None:
  """Returns what brings an image upright; None if it is, or if its EXIF block cannot be read."""
  try:
    return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
  except Exception:
    return None


def _reason(error: Exception) -> str:
  return ' '.join(str(error).split())[:100] or type(error).__name__
