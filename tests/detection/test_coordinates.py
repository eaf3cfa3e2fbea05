"""Boxes on their way from a photo to the network and back."""

import numpy as np
import pytest

from senet_jax.detection import coordinates

SIZE, RESIZED = np.array([100, 200]), np.array([150, 300])
BOX = np.array([[20.0, 10, 60, 90]])


@pytest.mark.parametrize(
  ('flip', 'offset', 'expected'),
  [
    (False, 0, [30, 15, 90, 135]),
    (True, 0, [210, 15, 270, 135]),
    # Columns 20 to 59 of 200, which Detectron scales; mirrored they are 140 to 179.
    (False, 1, [30, 15, 88.5, 133.5]),
    (True, 1, [210, 15, 268.5, 133.5]),
  ],
)
def test_a_box_follows_its_photo(flip, offset, expected):
  found = coordinates.to_network(BOX, SIZE, RESIZED, flip, offset)
  np.testing.assert_allclose(found, [expected])
  if not flip:
    scale = coordinates.scales(SIZE[None], RESIZED[None])[0]
    np.testing.assert_allclose(coordinates.to_photo(found, scale, offset), BOX, rtol=1e-6)


def test_sides_have_their_own_scale():
  found = coordinates.to_network(BOX, SIZE, np.array([50, 400]))
  np.testing.assert_allclose(found, [[40, 5, 120, 45]])
  scale = coordinates.scales(SIZE[None], np.array([[50, 400]]))[0]
  np.testing.assert_allclose(scale, [0.5, 2])
  np.testing.assert_allclose(coordinates.to_photo(found, scale), BOX)


@pytest.mark.parametrize('flip', [False, True])
def test_what_is_outside_is_cut_off(flip):
  boxes = np.array([[-0.5, -0.5, 200.5, 100.5], [200.2, 5, 200.7, 9]])
  whole, nothing = coordinates.to_network(boxes, SIZE, RESIZED, flip)
  np.testing.assert_allclose(whole, [0, 0, 300, 150])
  assert nothing[2] <= nothing[0]
