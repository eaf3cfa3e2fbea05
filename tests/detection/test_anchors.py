"""Anchors against the reference table of Detectron, and torchvision's rounding."""

import numpy as np
import pytest

from senet_jax.detection import anchors as anchor_lib

RATIOS = (0.5, 1.0, 2.0)
# x1, y1, x2, y2 at the first place of P2 to P6, as Detectron's generate_anchors has them.
DETECTRON = {
  (32, 4): [(-22, -10, 25, 13), (-14, -14, 17, 17), (-10, -22, 13, 25)],
  (64, 8): [(-40, -20, 47, 27), (-28, -28, 35, 35), (-20, -44, 27, 51)],
  (128, 16): [(-84, -40, 99, 55), (-56, -56, 71, 71), (-36, -80, 51, 95)],
  (256, 32): [(-164, -72, 195, 103), (-112, -112, 143, 143), (-76, -168, 107, 199)],
  (512, 64): [(-332, -152, 395, 215), (-224, -224, 287, 287), (-148, -328, 211, 391)],
}


@pytest.mark.parametrize(('size', 'stride'), DETECTRON)
def test_table_of_detectron(size, stride):
  cells = anchor_lib.cell_anchors(size, stride, RATIOS, 'detectron')
  np.testing.assert_array_equal(cells, DETECTRON[size, stride])


def test_torchvision_rounds_around_zero():
  cells = anchor_lib.cell_anchors(32, 4, RATIOS, 'torchvision')
  np.testing.assert_array_equal(cells, [(-23, -11, 23, 11), (-16, -16, 16, 16), (-11, -23, 11, 23)])


def test_detectron2_keeps_areas():
  cells = anchor_lib.cell_anchors(64, 8, RATIOS, 'detectron2').astype(np.float64)
  width, height = cells[:, 2] - cells[:, 0], cells[:, 3] - cells[:, 1]
  np.testing.assert_allclose(width * height, 64**2, rtol=1e-6)
  np.testing.assert_allclose(height / width, RATIOS, rtol=1e-6)


def test_places_go_row_by_row():
  found = anchor_lib.level_anchors((96, 64), (3, 2), 128, 32, RATIOS, 'detectron2')
  cells = anchor_lib.cell_anchors(128, 32, RATIOS, 'detectron2')
  expected = [cells + 32 * np.array([x, y, x, y]) for y in range(3) for x in range(2)]
  np.testing.assert_allclose(found, np.concatenate(expected), rtol=1e-6)


def test_torchvision_divides_the_image_by_the_level():
  # 224 pixels are three and a half places of P6; torchvision has four, 56 pixels apart.
  found = anchor_lib.level_anchors((224, 224), (4, 4), 512, 64, (1.0,), 'torchvision')
  np.testing.assert_array_equal(np.unique(found[:, 0]), np.arange(4) * 56 - 256)
  found = anchor_lib.level_anchors((224, 224), (4, 4), 512, 64, (1.0,), 'detectron2')
  np.testing.assert_array_equal(np.unique(found[:, 0]), np.arange(4) * 64 - 256)
