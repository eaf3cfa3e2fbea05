"""Images as files."""

import io

import numpy as np
from PIL import Image


def encoded(image: np.ndarray, kind: str = 'PNG', **options) -> bytes:
  """Returns `[H, W, 3]` uint8 as the content of a file."""
  buffer = io.BytesIO()
  Image.fromarray(image).save(buffer, kind, **options)
  return buffer.getvalue()
