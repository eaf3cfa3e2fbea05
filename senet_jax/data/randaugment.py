"""RandAugment (Cubuk et al. 2020) with Pillow, with the operations and magnitudes of timm."""

import dataclasses
import math
import statistics
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from senet_jax.config.randaugment import MOST, Policy

# Uniform numbers that are drawn for an operation.
_DRAWS = 4
# The least that is not 0, of which there is no normal quantile.
_LEAST = 2.0**-25


@dataclasses.dataclass(frozen=True)
class Moving:
  """An affine transformation of an image.

  Attributes:
    fill: colour of what comes in from outside, RGB.
    resample: Pillow's interpolation.
  """

  fill: tuple[int, ...]
  resample: Image.Resampling


def _affine(matrix: Callable[[float, tuple[int, int]], tuple[float, ...]]) -> Callable:
  def move(image: Image.Image, amount: float, moving: Moving) -> Image.Image:
    return image.transform(
      image.size,
      Image.Transform.AFFINE,
      matrix(amount, image.size),
      resample=moving.resample,
      fillcolor=moving.fill,
    )

  return move


def _turn(image: Image.Image, amount: float, moving: Moving) -> Image.Image:
  return image.rotate(30 * amount, resample=moving.resample, fillcolor=moving.fill)


def _enhance(enhancer: type) -> Callable:
  """Returns a change of colour, contrast, brightness or sharpness, down to a tenth or up."""
  return lambda image, amount, moving: enhancer(image).enhance(max(0.1, 1 + 0.9 * amount))


def _posterize(image: Image.Image, amount: float, moving: Moving) -> Image.Image:
  """Keeps four bits or fewer; of none, which `ImageOps.posterize` refuses, black is left."""
  del moving
  kept = 256 - 2 ** (4 + int(amount * 4))
  return image.point([i & kept for i in range(256)] * 3)


def _solarize(image: Image.Image, amount: float, moving: Moving) -> Image.Image:
  del moving
  return ImageOps.solarize(image, 256 - min(256, int(amount * 256)))


def _solarize_add(image: Image.Image, amount: float, moving: Moving) -> Image.Image:
  """Makes dark pixels brighter."""
  del moving
  added = min(128, int(amount * 110))
  return image.point([min(255, i + added) if i < 128 else i for i in range(256)] * 3)


# Of an image, an amount from 0 to 1, for those of `SIGNED` from -1, and a `Moving`.
OPERATIONS: dict[str, Callable[[Image.Image, float, Moving], Image.Image]] = {
  'AutoContrast': lambda image, amount, moving: ImageOps.autocontrast(image),
  'Equalize': lambda image, amount, moving: ImageOps.equalize(image),
  'Invert': lambda image, amount, moving: ImageOps.invert(image),
  'Rotate': _turn,
  'PosterizeIncreasing': _posterize,
  'SolarizeIncreasing': _solarize,
  'SolarizeAdd': _solarize_add,
  'ColorIncreasing': _enhance(ImageEnhance.Color),
  'ContrastIncreasing': _enhance(ImageEnhance.Contrast),
  'BrightnessIncreasing': _enhance(ImageEnhance.Brightness),
  'SharpnessIncreasing': _enhance(ImageEnhance.Sharpness),
  'ShearX': _affine(lambda amount, size: (1, 0.3 * amount, 0, 0, 1, 0)),
  'ShearY': _affine(lambda amount, size: (1, 0, 0, 0.3 * amount, 1, 0)),
  'TranslateXRel': _affine(lambda amount, size: (1, 0, 0.45 * amount * size[0], 0, 1, 0)),
  'TranslateYRel': _affine(lambda amount, size: (1, 0, 0, 0, 1, 0.45 * amount * size[1])),
}
_NAMES = tuple(OPERATIONS)
SIGNED = frozenset(name for name in _NAMES if name not in {
  'AutoContrast', 'Equalize', 'Invert', 'PosterizeIncreasing', 'SolarizeIncreasing', 'SolarizeAdd',
})  # fmt: skip


@dataclasses.dataclass(frozen=True)
class RandAugment:
  """Draws operations and does them.

  Attributes:
    policy: how many, how strong.
    moving: of the operations that move.
  """

  policy: Policy
  moving: Moving

  @property
  def draws(self) -> int:
    """Returns how many uniform numbers an image needs."""
    return _DRAWS * self.policy.operations

  def plan(self, drawn: np.ndarray) -> list[tuple[str, float]]:
    """Returns the operations that are done, with their amounts.

    Args:
      drawn: `[draws]`, uniform in [0, 1).
    """
    planned = []
    for which, whether, strength, sign in drawn.reshape(-1, _DRAWS).astype(float):
      if whether < self.policy.probability:
        name = _NAMES[int(which * len(_NAMES))]
        amount = self._magnitude(strength) / MOST
        planned.append((name, -amount if name in SIGNED and sign < 0.5 else amount))
    return planned

  def _magnitude(self, drawn: float) -> float:
    policy, magnitude = self.policy, self.policy.magnitude
    if math.isinf(policy.std):
      magnitude *= drawn
    elif policy.std:
      magnitude += policy.std * statistics.NormalDist().inv_cdf(max(drawn, _LEAST))
    return max(0.0, min(magnitude, policy.largest))

  def __call__(self, image: Image.Image, drawn: np.ndarray) -> Image.Image:
    """Returns an RGB image changed as `drawn` `[draws]` says."""
    for name, amount in self.plan(drawn):
      image = OPERATIONS[name](image, amount, self.moving)
    return image
