"""Images as files."""

import io

import numpy as np
from PIL import Image


def encoded(image: np.ndarray | Image.Image, kind: str = 'PNG', **options) -> bytes:
  """Returns an image, such as `[H, W, 3]` uint8, as the content of a file."""
  buffer = io.BytesIO()
  if not isinstance(image, Image.Image):
    image = Image.fromarray(image)
  image.save(buffer, kind, **options)
  return buffer.getvalue()
