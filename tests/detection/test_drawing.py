"""Boxes, names and scores on photos: where they are and are not, on any size of photo."""

import numpy as np
import pytest
from PIL import Image

from senet_jax.detection import drawing
from senet_jax.detection.drawing import Marked
from senet_jax.reporting import look

GREY = (128, 128, 128)


def grey(width, height):
  return Image.new('RGB', (width, height), GREY)


def rgb(code):
  return tuple(bytes.fromhex(code.removeprefix('#')))


def changed(picture):
  """The pixels that are no longer grey, `[H, W]`."""
  return (np.asarray(picture) != GREY).any(-1)


def test_a_box_and_its_name():
  marked = Marked(np.array([[100, 200, 300, 400]]), [1], ['dog'], [0.876])
  photo = grey(640, 480)
  picture = drawing.draw(photo, marked)
  assert picture.size == photo.size
  assert not changed(photo).any()  # a copy
  for at in ((100, 300), (300, 300), (200, 400), (200, 200)):
    assert picture.getpixel(at) == rgb(look.COLOURS[1])
  touched = changed(picture)
  assert not touched[205:395, 105:295].any()  # nothing is written on the object
  assert touched[180:200, 101:150].any()  # but above it
  rows, columns = np.nonzero(touched)
  assert rows.max() == 400 and columns.max() == 300


def test_without_boxes_it_is_the_photo():
  marked = Marked(np.zeros((0, 4)), [], [], [])
  assert not changed(drawing.draw(grey(640, 480), marked)).any()


@pytest.mark.parametrize('size', [(40, 30), (3000, 2000), (20, 4000), (4000, 1), (1, 1)])
def test_any_size_of_photo(size):
  width, height = size
  marked = Marked(np.array([[0, 0, width, height]]), [0], ['fire hydrant'], [1.0])
  picture = drawing.draw(grey(*size), marked)
  assert changed(picture).any()
  assert max(picture.size) <= max(2000, *size)
  if max(size) < 4 * min(size):
    assert min(picture.size) >= 480
    share = drawing.label_font(picture.size).getlength('fire hydrant 1.00') / picture.width
    assert 0.1 < share < 0.5


@pytest.mark.parametrize(
  'box',
  [[-50, -50, 900, 900], [600, 440, 700, 600], [300, 200, 300, 200], [400, 300, 200, 100]],
)
def test_boxes_beyond_the_photo_or_without_area(box):
  picture = drawing.draw(grey(640, 480), Marked(np.array([box]), [0], ['cat'], [0.5]))
  assert picture.size == (640, 480)
  assert changed(picture).any()


def test_names_do_not_cover_each_other():
  """Twelve boxes that begin at the same place."""
  boxes = [[300, 240, 320 + 8 * i, 260 + 8 * i] for i in range(6)]
  taken = []
  for box in boxes:
    taken.append(drawing.free_place(tuple(box), (60, 14), (640, 480), taken))
  shared = [drawing.shared_area(a, b) for i, a in enumerate(taken) for b in taken[:i]]
  assert max(shared) == 0


def test_the_best_are_on_top():
  boxes = np.array([[100, 100, 300, 300]] * 2)
  for scores, label in (([0.9, 0.2], 0), ([0.2, 0.9], 1)):
    picture = drawing.draw(grey(640, 480), Marked(boxes, [0, 1], ['a', 'b'], scores))
    assert picture.getpixel((300, 200)) == rgb(look.COLOURS[label])


def test_beside_and_sheet():
  found = Marked(np.array([[10, 10, 300, 300]]), [0], ['cat'], [0.5])
  truth = Marked(np.array([[10, 10, 310, 310]]), [0], ['cat'])
  both = drawing.beside(grey(640, 480), found, truth)
  assert both.width > 1280 and both.height > 480
  assert truth.texts() == ['cat'] and found.texts() == ['cat 0.50']
  board = drawing.sheet([both, both.resize((650, 250)), both], columns=2)
  assert board.width == 2 * 650 + 8
