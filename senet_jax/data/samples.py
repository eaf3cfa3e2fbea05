"""A few real photos for examples: parts of the two that scikit-learn ships."""

import os
import pathlib

import numpy as np
from PIL import Image

from senet_jax.errors import UserError

# Class -> the photo and the part of it that shows the class: left, top, right, bottom.
_PARTS = {
  'sky': ('china.jpg', (340, 0, 640, 180)),
  'temple': ('china.jpg', (80, 60, 340, 340)),
  'trees': ('china.jpg', (380, 280, 640, 427)),
  'flower': ('flower.jpg', (170, 90, 440, 350)),
  'leaves': ('flower.jpg', (0, 0, 160, 420)),
}
_SIDES = (56, 84)  # of a crop, in pixels


def photos() -> dict[str, Image.Image]:
  """Returns an image of each class, a whole part of a photo, by the name of the class.

  Raises:
    UserError: scikit-learn is not installed.
  """
  whole = _load()
  return {name: whole[photo].crop(box) for name, (photo, box) in _PARTS.items()}


def write_folder(folder: str | os.PathLike, train: int = 40, val: int = 20) -> pathlib.Path:
  """Writes crops of the photos as `train/<class>/*.png` and `val/<class>/*.png`, always the same.

  Those of `train` are from one half of each part and those of `val` from the other, so that no
  pixel is in both.

  Args:
    folder: that they go to; it is made if missing.
    train: crops of each class.
    val: crops of each class to evaluate on.

  Returns:
    The folder.

  Raises:
    UserError: scikit-learn is not installed.
  """
  folder = pathlib.Path(folder)
  rng = np.random.default_rng(0)
  for name, part in photos().items():
    for split, count, half in zip(('train', 'val'), (train, val), halves(part), strict=True):
      (folder / split / name).mkdir(parents=True, exist_ok=True)
      for i in range(count):
        side = int(rng.integers(_SIDES[0], min(_SIDES[1], *half.size)))
        left, top = (int(rng.integers(0, length - side + 1)) for length in half.size)
        crop = half.crop((left, top, left + side, top + side))
        crop.save(folder / split / name / f'{i:02d}.png')
  return folder


def halves(image: Image.Image) -> tuple[Image.Image, Image.Image]:
  """Returns both halves of an image, across its longer side."""
  width, height = image.size
  x, y = (width // 2, height) if width >= height else (width, height // 2)
  return image.crop((0, 0, x, y)), image.crop((width - x, height - y, width, height))


def _load() -> dict[str, Image.Image]:
  try:
    from sklearn import datasets
  except ImportError as error:
    raise UserError('the sample photos need scikit-learn: pip install scikit-learn') from error
  loaded = datasets.load_sample_images()
  names = map(os.path.basename, loaded.filenames)
  return {n: Image.fromarray(pixels) for n, pixels in zip(names, loaded.images, strict=True)}
