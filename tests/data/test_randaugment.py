"""RandAugment: the laws of its draws, its text, and the stream that does it."""

import math

import numpy as np
import pytest
from PIL import Image

from senet_jax.config.randaugment import Policy
from senet_jax.data import draws, randaugment
from senet_jax.data.randaugment import OPERATIONS, Moving, RandAugment
from senet_jax.errors import UserError
from tests.helpers.photos import small_photo

MOVING = Moving((124, 116, 104), Image.Resampling.BICUBIC)
ENHANCED = ('ColorIncreasing', 'ContrastIncreasing', 'BrightnessIncreasing', 'SharpnessIncreasing')


def planned(text: str, count: int) -> list[list[tuple[str, float]]]:
  change = RandAugment(Policy.parse(text), MOVING)
  keys = np.stack([np.arange(count), np.zeros(count, int)], 1)
  return [change.plan(row) for row in draws.uniform(keys, change.draws)]


def test_operations_and_magnitudes_of_the_recipes():
  """Two of fifteen, each with probability 1/2; 7 on average, spread by 0.5; either sign."""
  plans = planned('rand-m7-mstd0.5-inc1', 20_000)
  counts = np.bincount([len(plan) for plan in plans])
  np.testing.assert_allclose(counts / 20_000, [0.25, 0.5, 0.25], atol=0.015)
  done = [step for plan in plans for step in plan]
  names, amounts = np.array([n for n, _ in done]), np.array([a for _, a in done])
  assert set(names) == set(OPERATIONS) and len(OPERATIONS) == 15
  shares = [np.mean(names == name) for name in OPERATIONS]
  np.testing.assert_allclose(shares, 1 / 15, atol=0.008)
  assert np.abs(amounts).mean() == pytest.approx(0.7, abs=0.002)
  assert np.abs(amounts).std() == pytest.approx(0.05, abs=0.002)
  for name in OPERATIONS:
    negative = (amounts[names == name] < 0).mean()
    signed = name in (*ENHANCED, 'Rotate', 'ShearX', 'ShearY', 'TranslateXRel', 'TranslateYRel')
    assert negative == pytest.approx(0.5 if signed else 0, abs=0.05)


def test_other_policies():
  uniform = [abs(a) for plan in planned('rand-m8-mstd101-n3-p1-inc1', 3000) for _, a in plan]
  assert len(uniform) == 9000
  np.testing.assert_allclose(np.quantile(uniform, [0, 0.5, 1]), [0, 0.4, 0.8], atol=0.02)
  capped = [abs(a) for plan in planned('rand-m7-mstd9-mmax8-inc1', 2000) for _, a in plan]
  assert max(capped) == 0.8 and min(capped) == 0
  assert Policy.parse('rand-inc1') == Policy() and math.isinf(Policy.parse('rand-mstd200-inc1').std)


@pytest.mark.parametrize(
  'text',
  ['rand', 'rand-m7-mstd0.5', 'rand-m7-inc0', 'rand-m7-inc1-m8', 'rand-x3-inc1', 'augmix-m7',
   'rand-m7-n0-inc1', 'rand-n1.5-inc1', 'rand-p2-inc1', 'rand-mmax20-inc1', '', 'rand--inc1',
   'rand-m-inc1', 'rand-m-7-inc1', 'rand-m٣-inc1', 'rand-m1e9-inc1'],
)  # fmt: skip
def test_a_text_that_is_none(text):
  with pytest.raises(
    UserError, match=r'config\.data\.randaugment=.*rand-m7-mstd0\.5-inc1|n must'
  ) as e:
    Policy.parse(text)
  assert '\n' not in str(e.value)


def test_an_image_depends_on_its_key_alone():
  image = Image.fromarray(small_photo(0, 40, 40))
  change = RandAugment(Policy.parse('rand-m7-mstd0.5-p1-inc1'), MOVING)
  drawn = draws.uniform(np.array([[1, 2], [3, 4]]), change.draws)
  first, again, other = (np.asarray(change(image, drawn[i])) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert first.shape == (40, 40, 3) and (first != other).any()


def test_by_definition():
  """What needs no library but NumPy to say, pixel by pixel."""
  image = small_photo(1, 24, 24)
  pixels = image.astype(int)

  def done(name: str, amount: float) -> np.ndarray:
    return np.asarray(OPERATIONS[name](Image.fromarray(image), amount, MOVING)).astype(int)

  np.testing.assert_array_equal(done('Invert', 0.7), 255 - pixels)
  np.testing.assert_array_equal(done('PosterizeIncreasing', 0.7), pixels & 0b11000000)
  assert not done('PosterizeIncreasing', 1.0).any()
  threshold = 256 - int(0.7 * 256)
  solarized = np.where(pixels < threshold, pixels, 255 - pixels)
  np.testing.assert_array_equal(done('SolarizeIncreasing', 0.7), solarized)
  added = np.where(pixels < 128, np.minimum(pixels + 77, 255), pixels)
  np.testing.assert_array_equal(done('SolarizeAdd', 0.7), added)
  brighter = np.clip(pixels * 1.63, 0, 255)
  assert np.abs(done('BrightnessIncreasing', 0.7) - brighter).max() <= 1
  moved = np.full_like(pixels, MOVING.fill)
  moved[:, :16] = pixels[:, 8:]
  np.testing.assert_array_equal(done('TranslateXRel', 8 / 24 / 0.45), moved)
  assert randaugment.MOST == 10
