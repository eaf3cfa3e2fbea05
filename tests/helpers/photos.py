"""Smooth random pictures, and folders of files."""

import numpy as np
from PIL import Image


def small_photo(seed: int, height: int, width: int) -> np.ndarray:
  """Returns a smooth picture, `[height, width, 3]` uint8."""
  few = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
  return np.asarray(Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC))


def fill(root, *paths):
  """Makes empty files below `root`, for those who need their names only; returns `root`."""
  for path in paths:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(b'')
  return root
