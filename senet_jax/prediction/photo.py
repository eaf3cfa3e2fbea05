"""Photos as people give them to a network: files, contents of files, opened images, arrays."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from senet_jax.data import photos
from senet_jax.data.photos import UnreadableImage
from senet_jax.errors import UserError

# A path, the content of a file, an opened image, or an array: uint8 [H, W, 3], or [H, W, 1] or
# [H, W] in grey.
Photo = str | os.PathLike | bytes | Image.Image | np.ndarray


def several(images: Sequence[Photo] | np.ndarray | Photo) -> Sequence[Photo]:
  """Returns images as a sequence; a lone one that has parts of its own, as a path has, as one."""
  if isinstance(images, str | os.PathLike | bytes | Image.Image):
    return [images]
  shape = getattr(images, 'shape', None)
  if shape is not None and len(shape) != 4:
    raise UserError(f'images are of shape {shape}; give [N, H, W, 3] or a list of images.')
  return list(images)


@contextlib.contextmanager
def opened_photo(image: Photo) -> Iterator[Image.Image]:
  """Gives a photo upright and in RGB, to be used within the block.

  Raises:
    UnreadableImage: it is no image, damaged, or too large.
    UserError: it is an array of another shape or dtype.
  """
  if isinstance(image, str | os.PathLike):
    try:
      image = pathlib.Path(image).read_bytes()
    except OSError as error:
      raise UnreadableImage(error.strerror) from error
  if isinstance(image, bytes):
    with photos.opened_rgb(image) as rgb:
      yield rgb
    return
  if isinstance(image, Image.Image):
    yield photos.to_rgb(image)
    return
  array = np.asarray(image)
  grey = array.ndim == 2 or array.shape[2:] == (1,)
  if array.dtype != np.uint8 or not array.size or not (grey or array.shape[2:] == (3,)):
    raise UserError(
      f'an image is {array.dtype} {list(array.shape)}; give uint8 [H, W, 3], 0 to 255, or a path.'
    )
  yield photos.to_rgb(Image.fromarray(array.reshape(array.shape[:2]) if grey else array))
