"""The limits of a demonstration: size, pixels, time and number of requests."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Limits:
  """Bounds of what requests may ask for.

  Attributes:
    bytes: of a photo as a file.
    pixels: of a photo.
    requests: that are answered or wait at once; one more is told to come again.
    seconds: from the beginning of a request to its answer.
  """

  bytes: int = 16 * 2**20
  pixels: int = 50_000_000
  requests: int = 128
  seconds: float = 30.0
