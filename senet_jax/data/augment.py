"""Augmentation of small images on the device, each draw keyed by the example."""

import jax
import jax.numpy as jnp


def to_input(images: jax.Array, mean, std, image_size: int | None = None) -> jax.Array:
  """Turns stored images into network inputs.

  Args:
    images: `[N, H, W, C]` uint8, C 1 (grey, repeated) or 3.
    mean: per channel, 0-255 scale, subtracted.
    std: per channel, 0-255 scale, divided by.
    image_size: side to resize to, bilinear; None or the images' own: no resizing.

  Returns:
    `[N, S, S, 3]` float32.
  """
  n, height, width, channels = images.shape
  x = (images.astype(jnp.float32) - jnp.asarray(mean)) / jnp.asarray(std)
  if image_size and (height, width) != (image_size, image_size):
    x = jax.image.resize(x, (n, image_size, image_size, channels), 'bilinear')
  return jnp.broadcast_to(x, (*x.shape[:3], 3)) if channels == 1 else x


def augment(keys: jax.Array, images: jax.Array, *, pad: int, flip: bool, cutout: int) -> jax.Array:
  """Random flip, crop and cutout, in this order, of normalised images.

  The order and the zeros are those of the CIFAR training code that the paper builds on
  (fb.resnet.torch, Cutout): padding and cutout put in zeros after normalisation.

  Args:
    keys: `[N]` typed keys, one an image; an image's result depends on nothing else.
    images: `[N, H, W, C]` float32.
    pad: zero pixels around an image before the crop of its own size; 0: no crop.
    flip: mirror with probability 1/2.
    cutout: side in pixels of the zero square, centred on any pixel, so that it may stick out;
      0: none.

  Returns:
    `[N, H, W, C]` float32.
  """
  return jax.vmap(lambda key, image: _augment(key, image, pad, flip, cutout))(keys, images)


def _augment(key: jax.Array, image: jax.Array, pad: int, flip: bool, cutout: int) -> jax.Array:
  flip_key, crop_key, cutout_key = jax.random.split(key, 3)
  if flip:
    image = jnp.where(jax.random.bernoulli(flip_key), image[:, ::-1], image)
  if pad:
    padded = jnp.pad(image, [(pad, pad), (pad, pad), (0, 0)])
    y, x = jax.random.randint(crop_key, (2,), 0, 2 * pad + 1)
    image = jax.lax.dynamic_slice(padded, (y, x, 0), image.shape)
  if cutout:
    height, width, _ = image.shape
    center = jax.random.randint(cutout_key, (2,), 0, jnp.array([height, width]))
    start = center - cutout // 2
    rows, columns = (
      (jnp.arange(size) >= first) & (jnp.arange(size) < first + cutout)
      for size, first in zip((height, width), start, strict=True)
    )
    image = jnp.where(rows[:, None, None] & columns[None, :, None], 0.0, image)
  return image
