"""Random changes of images that are made on the device, each draw keyed by the example."""

import functools

import jax
import jax.numpy as jnp


def to_input(images: jax.Array, mean, std, image_size: int | None = None) -> jax.Array:
  """Turns stored images into network inputs.

  Args:
    images: `[N, H, W, C]` on the 0-255 scale, uint8 or float, C 1 (grey, repeated) or 3.
    mean: per channel, 0-255 scale, subtracted.
    std: per channel, 0-255 scale, divided by.
    image_size: side to resize to, bilinear; None or the images' own: no resizing.

  Returns:
    `[N, S, S, 3]` float32.
  """
  x = (images.astype(jnp.float32) - jnp.asarray(mean)) / jnp.asarray(std)
  n, height, width, channels = x.shape
  if image_size and (height, width) != (image_size, image_size):
    x = jax.image.resize(x, (n, image_size, image_size, channels), 'bilinear')
  return jnp.broadcast_to(x, (*x.shape[:3], 3)) if channels == 1 else x


def augment(
  keys: jax.Array,
  images: jax.Array,
  *,
  pad: int,
  flip: bool,
  cutout: int,
  fill: str = 'zeros',
  rotation: float = 0.0,
  erasing: float = 0.0,
) -> jax.Array:
  """Random flip, crop, rotation, cutout and erasing, in this order, of normalised images.

  The order and the zeros are those of the CIFAR training code that the paper builds on
  (fb.resnet.torch, Cutout): padding and cutout put in zeros after normalisation.

  Args:
    keys: `[N]` typed keys, one an image; an image's result depends on nothing else.
    images: `[N, H, W, C]` float32.
    pad: pixels around an image before the crop of its own size; 0: no crop.
    flip: mirror with probability 1/2.
    cutout: side in pixels of the zero square, centred on any pixel, so that it may stick out;
      0: none.
    fill: what is around an image: `zeros`, or the `nearest` of its pixels.
    rotation: largest angle in degrees.
    erasing: share of the images that lose a rectangle, see `erased`.

  Returns:
    `[N, H, W, C]` float32.
  """
  change = functools.partial(
    _augment, pad=pad, flip=flip, cutout=cutout, fill=fill, rotation=rotation, erasing=erasing
  )
  return jax.vmap(change)(keys, images)


def _augment(
  key: jax.Array,
  image: jax.Array,
  pad: int,
  flip: bool,
  cutout: int,
  fill: str,
  rotation: float,
  erasing: float,
) -> jax.Array:
  flip_key, crop_key, cutout_key = jax.random.split(key, 3)
  if flip:
    image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
  corner = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
  if rotation:
    # `split` above gives the keys of 0 to 2, too.
    turn_key = jax.random.fold_in(key, 3)
    degrees = jax.random.uniform(turn_key, minval=-rotation, maxval=rotation)
    image = move_and_turn(image, corner - pad, degrees, fill)
  elif pad:
    mode = 'edge' if fill == 'nearest' else 'constant'
    padded = jnp.pad(image, [(pad, pad), (pad, pad), (0, 0)], mode)
    image = jax.lax.dynamic_slice(padded, (*corner, 0), image.shape)
  if cutout:
    height, width, _ = image.shape
    center = jax.random.randint(cutout_key, (2,), 0, jnp.array([height, width]))
    start = center - cutout // 2
    rows, columns = (
      (jnp.arange(size) >= first) & (jnp.arange(size) < first + cutout)
      for size, first in zip((height, width), start, strict=True)
    )
    image = jnp.where(rows[:, None, None] & columns[None, :, None], 0.0, image)
  return erased(jax.random.fold_in(key, 6), image, erasing) if erasing else image


def erased(key: jax.Array, image: jax.Array, share: float) -> jax.Array:
  """Returns an image with a random rectangle of zeros (Zhong et al. 2020), as timm's `const`.

  Its area is uniform from 2 % to a third of the image's, its height over its width log-uniform from
  0.3 to 1 / 0.3, its place uniform among those where it fits; of ten tries the first that fits is
  taken, if one does.

  Args:
    key: the result depends on nothing else.
    image: `[H, W, C]` float32, normalised.
    share: with which probability it is done.
  """
  height, width, _ = image.shape
  whether, *each = jax.random.split(key, 5)
  area, aspect, top, left = (jax.random.uniform(k, (_TRIES,)) for k in each)
  area = (_LEAST_AREA + (_MOST_AREA - _LEAST_AREA) * area) * height * width
  aspect = jnp.exp(jnp.log(_LEAST_ASPECT) * (1 - 2 * aspect))
  high, wide = jnp.round(jnp.sqrt(area * aspect)), jnp.round(jnp.sqrt(area / aspect))
  fits = (high < height) & (wide < width)
  first = fits.argmax()
  high, wide = high[first], wide[first]
  y, x = jnp.floor(top[first] * (height - high + 1)), jnp.floor(left[first] * (width - wide + 1))
  rows, columns = jnp.arange(height), jnp.arange(width)
  gone = ((rows >= y) & (rows < y + high))[:, None] & (columns >= x) & (columns < x + wide)
  gone &= fits.any() & jax.random.bernoulli(whether, share)
  return jnp.where(gone[..., None], 0.0, image)


def move_and_turn(image: jax.Array, shift: jax.Array, degrees: jax.Array, fill: str) -> jax.Array:
  """Moves an image up and to the left and turns it about the middle, bilinear, in one step.

  Args:
    image: `[H, W, C]` float32.
    shift: `[2]`, pixels up and to the left.
    degrees: scalar; the content turns anticlockwise.
    fill: as of `augment`.
  """
  middle = [(side - 1) / 2 for side in image.shape[:2]]
  y, x = (jnp.arange(n) - m for n, m in zip(image.shape[:2], middle, strict=True))
  y, x = (y + shift[0])[:, None], (x + shift[1])[None]
  cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
  # Where the pixels of the result are in the image.
  places = [cos * y + sin * x + middle[0], cos * x - sin * y + middle[1]]
  mode = 'nearest' if fill == 'nearest' else 'constant'
  take = functools.partial(
    jax.scipy.ndimage.map_coordinates, coordinates=places, order=1, mode=mode
  )
  return jax.vmap(take, in_axes=-1, out_axes=-1)(image)


# Of random erasing.
_TRIES, _LEAST_AREA, _MOST_AREA, _LEAST_ASPECT = 10, 0.02, 1 / 3, 0.3

# Principal axes of the RGB values of ImageNet on the 0-1 scale and the standard deviations along
# them, as in fb.resnet.torch: the lighting noise of Krizhevsky et al. 2012.
_AXES = (
  (-0.5675, 0.7192, 0.4009),
  (-0.5808, -0.0045, -0.8140),
  (-0.5836, -0.6948, 0.4203),
)
_DEVIATIONS = (0.2175, 0.0188, 0.0045)
# Share of red, green and blue in grey.
_GREY = (0.299, 0.587, 0.114)


def recolor(
  keys: jax.Array,
  images: jax.Array,
  *,
  pixel_jitter: float,
  color_jitter: float,
  lighting: float,
  brightness_jitter: float = 0.0,
) -> jax.Array:
  """Random changes of colour: brightness jitter, colour jitter, lighting, pixel jitter.

  They come in this order. Colour jitter and lighting are those of fb.resnet.torch. Values may leave
  the 0-255 scale; only brightness jitter cuts off what is above, as Pillow does.

  Args:
    keys: `[N]` typed keys, one an image.
    images: `[N, H, W, 3]` float32 RGB on the 0-255 scale.
    pixel_jitter: each channel is shifted by a value uniform up to this, either way. The released
      models list "pixel jitter +-20" without more; one shift a channel is our reading.
    color_jitter: brightness, contrast and saturation, in random order, each multiplied by 1 plus a
      value uniform up to this, either way.
    lighting: standard deviation of the multiples of the principal axes that are added.
    brightness_jitter: values are multiplied by 1 plus one uniform up to this, either way.

  Returns:
    `[N, H, W, 3]` float32.
  """
  change = functools.partial(
    _recolor,
    pixel_jitter=pixel_jitter,
    color_jitter=color_jitter,
    lighting=lighting,
    brightness_jitter=brightness_jitter,
  )
  return jax.vmap(change)(keys, images)


def _recolor(
  key: jax.Array,
  image: jax.Array,
  pixel_jitter: float,
  color_jitter: float,
  lighting: float,
  brightness_jitter: float,
) -> jax.Array:
  # `_augment` draws from the same key, with the numbers 0 to 3 and 6; `Mixing` has 7,
  # `DeviceRandAugment` 8.
  jitter_key, lighting_key, pixel_key = jax.random.split(jax.random.fold_in(key, 5), 3)
  if brightness_jitter:
    brightness_key = jax.random.fold_in(key, 4)
    amount = jax.random.uniform(brightness_key, minval=-brightness_jitter, maxval=brightness_jitter)
    image = jnp.minimum((1 + amount) * image, 255)
  if color_jitter:
    image = _jitter_colors(jitter_key, image, color_jitter)
  if lighting:
    amounts = lighting * jax.random.normal(lighting_key, (3,)) * jnp.asarray(_DEVIATIONS)
    image = image + 255 * jnp.asarray(_AXES) @ amounts
  if pixel_jitter:
    image = image + jax.random.uniform(pixel_key, (3,), minval=-pixel_jitter, maxval=pixel_jitter)
  return image


def _jitter_colors(key: jax.Array, image: jax.Array, strength: float) -> jax.Array:
  order_key, amount_key = jax.random.split(key)
  amounts = 1 + jax.random.uniform(amount_key, (3,), minval=-strength, maxval=strength)

  def toward(image, other, amount):
    return amount * image + (1 - amount) * other

  def brightness(image):
    return amounts[0] * image

  def contrast(image):
    return toward(image, _grey(image).mean(), amounts[1])

  def saturation(image):
    return toward(image, _grey(image), amounts[2])

  for which in jax.random.permutation(order_key, 3):
    image = jax.lax.switch(which, (brightness, contrast, saturation), image)
  return image


def _grey(image: jax.Array) -> jax.Array:
  return (image @ jnp.asarray(_GREY))[..., None]
