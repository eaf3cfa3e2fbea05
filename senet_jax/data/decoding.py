"""From encoded photos to images of one size, as TensorFlow graphs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from senet_jax import runtime

if TYPE_CHECKING:
  import tensorflow as tf

# Tries to fit a random crop into the image before the largest one in the middle is taken.
_TRIES = 10
# Of a JPEG while it is decoded, which costs less than decoding it whole.
_REDUCTIONS = (1, 2, 4, 8)


def training_image(
  encoded: 'tf.Tensor',
  seed: 'tf.Tensor',
  *,
  size: int,
  area: tuple[float, float] | tuple[()],
  aspect: tuple[float, float],
  rotation: float,
  fill: str = 'reflect',
) -> 'tf.Tensor':
  """A random crop of a photo, resized and turned at random.

  A JPEG is decoded only where the crop is, and reduced while it is decoded as long as its shorter
  side stays at least `size`; what remains, for photos of less than 16 times `size` by less than
  three, is a bilinear reduction. Other formats are decoded whole and reduced with antialiasing.

  Args:
    encoded: scalar string, a JPEG or PNG.
    seed: `[2]` int32; the result depends on nothing else.
    size: side of the result.
    area: bounds of the crop's share of the image; empty: the largest square, in the middle.
    aspect: bounds of its width over height.
    rotation: largest angle in degrees.
    fill: what comes in at the corners then: `reflect`, or `nearest` pixels.

  Returns:
    uint8 `[size, size, 3]`.
  """
  tf = runtime.import_tensorflow()
  draws = tf.random.stateless_uniform([4 * _TRIES + 1], seed)

  def window(shape: tf.Tensor) -> tf.Tensor:
    if not area:
      return largest_square(shape)
    return random_window(shape, tf.reshape(draws[1:], [4, _TRIES]), area, aspect)

  def crop_jpeg() -> tf.Tensor:
    y, x, height, width = tf.unstack(window(tf.io.extract_jpeg_shape(encoded)[:2]))
    fits = [tf.minimum(height, width) >= size * reduction for reduction in _REDUCTIONS[1:]]
    branches = [
      lambda reduction=reduction: tf.io.decode_and_crop_jpeg(
        encoded, tf.stack([y, x, height, width]) // reduction, channels=3, ratio=reduction
      )
      for reduction in _REDUCTIONS
    ]
    return tf.switch_case(tf.reduce_sum(tf.cast(fits, tf.int32)), branches)

  def crop_other() -> tf.Tensor:
    image = _decode_other(encoded)
    y, x, height, width = tf.unstack(window(tf.shape(image)[:2]))
    return image[y : y + height, x : x + width]

  image = tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.image.resize(crop_jpeg(), (size, size)),
    lambda: tf.image.resize(crop_other(), (size, size), antialias=True),
  )
  image = tf.ensure_shape(image, (size, size, 3))
  if rotation:
    image = _rotate(image, (2 * draws[0] - 1) * rotation, fill.upper())
  return to_uint8(image)


def random_window(
  shape: 'tf.Tensor',
  draws: 'tf.Tensor',
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> 'tf.Tensor':
  """A random part of an image, as Inception's training has it.

  Its area is uniform within the bounds, its aspect log-uniform and its place uniform among those
  where it fits; if none of the tries fits, it is the largest with an allowed aspect in the middle.

  Args:
    shape: `[2]` int32, height and width of the image.
    draws: `[4, tries]` float32, uniform in [0, 1).
    area: bounds of its share of the image.
    aspect: bounds of its width over height.

  Returns:
    `[4]` int32: y, x, height, width.
  """
  tf = runtime.import_tensorflow()
  height, width = tf.unstack(tf.cast(shape, tf.float32))
  share = area[0] + (area[1] - area[0]) * draws[0]
  low, high = tf.math.log(aspect[0]), tf.math.log(aspect[1])
  ratio = tf.exp(low + (high - low) * draws[1])
  heights = tf.round(tf.sqrt(share * height * width / ratio))
  widths = tf.round(tf.sqrt(share * height * width * ratio))
  fits = (heights >= 1) & (widths >= 1) & (heights <= height) & (widths <= width)
  first = tf.argmax(fits)  # 0 if none does
  h, w = heights[first], widths[first]
  y = tf.floor(draws[2][first] * (height - h + 1))
  x = tf.floor(draws[3][first] * (width - w + 1))
  # Float rounding must not push it out.
  y, x = tf.minimum(y, height - h), tf.minimum(x, width - w)
  # The largest one in the middle.
  most_h = tf.minimum(height, width / aspect[0])
  most_w = tf.minimum(width, height * aspect[1])
  less = tf.sqrt(tf.minimum(area[1] * height * width / (most_h * most_w), 1.0))
  most_h, most_w = (tf.maximum(tf.round(side * less), 1) for side in (most_h, most_w))
  middle = [(height - most_h) // 2, (width - most_w) // 2, most_h, most_w]
  window = tf.where(tf.reduce_any(fits), tf.stack([y, x, h, w]), tf.stack(middle))
  return tf.cast(window, tf.int32)


def largest_square(shape: 'tf.Tensor') -> 'tf.Tensor':
  """The square in the middle of an image, `[4]` int32: y, x, height, width."""
  tf = runtime.import_tensorflow()
  side = tf.reduce_min(shape)
  y, x = tf.unstack((shape - side) // 2)
  return tf.stack([y, x, side, side])


def evaluation_image(
  encoded: 'tf.Tensor',
  *,
  size: int,
  resize: int,
  keep_aspect: bool = True,
  interpolation: str = 'bilinear',
) -> 'tf.Tensor':
  """The middle of a photo whose shorter side is first resized to `resize`; as Pillow does it.

  Args:
    encoded: scalar string, a JPEG or PNG.
    size: side of the result.
    resize: at least `size`.
    keep_aspect: if not, both sides are resized to `resize`.
    interpolation: `bilinear` or `bicubic`.

  Returns:
    uint8 `[size, size, 3]`.
  """
  return _crop_resized(_decode(encoded), size, resize, (1, 1), keep_aspect, interpolation)


def evaluation_crops(
  encoded: 'tf.Tensor',
  *,
  size: int,
  scales: Sequence[int],
  places: Sequence[tuple[int, int]],
  keep_aspect: bool = True,
  interpolation: str = 'bilinear',
) -> 'tf.Tensor':
  """Crops of a photo that is resized to one or several scales; each as of `evaluation_image`.

  Args:
    encoded: scalar string, a JPEG or PNG.
    size: side of each crop.
    scales: shorter sides of the resized photo, each at least `size`.
    places: of the crops of each scale, down and across: 0 at the beginning, 1 in the middle, 2 at
      the end.
    keep_aspect: as of `evaluation_image`.
    interpolation: as of `evaluation_image`.

  Returns:
    uint8 `[len(scales) * len(places), size, size, 3]`, scale by scale.
  """
  tf = runtime.import_tensorflow()
  image = _decode(encoded)
  return tf.stack(
    [
      _crop_resized(image, size, scale, at, keep_aspect, interpolation)
      for scale in scales
      for at in places
    ]
  )


def _crop_resized(
  image: 'tf.Tensor',
  size: int,
  resize: int,
  place: tuple[int, int],
  keep_aspect: bool,
  interpolation: str,
) -> 'tf.Tensor':
  """Computes only what the crop shows, or a strip of pixels could become an image of gigabytes."""
  tf = runtime.import_tensorflow()
  shape = tf.shape(image)[:2]
  shorter = tf.reduce_min(shape) if keep_aspect else shape
  resized = tf.round(shape * resize / shorter)  # float64, as Python would
  offset = (tf.cast(resized, tf.int32) - size) * place // 2
  scale = tf.cast(resized / tf.cast(shape, tf.float64), tf.float32)
  shift = -tf.cast(offset, tf.float32)
  if interpolation == 'bilinear':
    return to_uint8(_resampled(image, (size, size), scale, shift, 'triangle'))
  # Beyond the range, where dark meets bright, Pillow cuts off behind each of its two passes.
  across = _resampled(
    image, (tf.shape(image)[0], size), scale * [0, 1] + [1, 0], shift * [0, 1], 'keyscubic'
  )
  across = to_uint8(tf.clip_by_value(across, 0, 255))
  both = _resampled(across, (size, size), scale * [1, 0] + [0, 1], shift * [1, 0], 'keyscubic')
  return to_uint8(tf.clip_by_value(both, 0, 255))


def _resampled(
  image: 'tf.Tensor', size: tuple, scale: 'tf.Tensor', shift: 'tf.Tensor', kernel: str
) -> 'tf.Tensor':
  """Resizes over the support of the reduction, as Pillow; else small details would alias."""
  tf = runtime.import_tensorflow()
  return tf.raw_ops.ScaleAndTranslate(
    images=image[None],
    size=size,
    scale=scale,
    translation=shift,
    kernel_type=kernel,
    antialias=True,
  )[0]


def _decode(encoded: 'tf.Tensor') -> 'tf.Tensor':
  tf = runtime.import_tensorflow()
  return tf.cond(
    tf.io.is_jpeg(encoded),
    lambda: tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE'),
    lambda: _decode_other(encoded),
  )


def _decode_other(encoded: 'tf.Tensor') -> 'tf.Tensor':
  tf = runtime.import_tensorflow()
  image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
  image.set_shape((None, None, 3))
  return image


def _rotate(image: 'tf.Tensor', degrees: 'tf.Tensor', fill: str) -> 'tf.Tensor':
  """Turns a float32 `[S, S, 3]` image about its middle, bilinear."""
  tf = runtime.import_tensorflow()
  angle = degrees * (3.141592653589793 / 180)
  cos, sin = tf.cos(angle), tf.sin(angle)
  middle = (image.shape[0] - 1) / 2
  # Maps a point of the result to one of the image: x' = a x + b y + c, y' = d x + e y + f.
  row_x = [cos, -sin, middle * (1 - cos + sin)]
  row_y = [sin, cos, middle * (1 - cos - sin)]
  turned = tf.raw_ops.ImageProjectiveTransformV3(
    images=image[None],
    transforms=tf.stack([*row_x, *row_y, 0.0, 0.0])[None],
    output_shape=image.shape[:2],
    fill_value=0.0,
    interpolation='BILINEAR',
    fill_mode=fill,
  )
  return tf.ensure_shape(turned[0], image.shape)


def to_uint8(image: 'tf.Tensor') -> 'tf.Tensor':
  """Rounds floats, which must lie within 0 and 255, as means of pixels do."""
  tf = runtime.import_tensorflow()
  return tf.cast(image + 0.5, tf.uint8)  # one pass less than by tf.round
