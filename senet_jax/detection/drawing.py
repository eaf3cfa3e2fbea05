"""Boxes on photos, with names and scores, readable on photos of any size."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from senet_jax.reporting import look

# Photos with a smaller side are enlarged, or a name would be as wide as they are; strips less.
_SMALLEST_SIDE, _LONGEST = 480, 2000
# Of the shorter side: the height of letters, at least so many pixels, and the width of lines.
_LETTERS, _FEWEST_PIXELS, _LINE = 1 / 40, 12, 1 / 250
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
# Luminance from which on black letters are easier to read than white ones.
_BRIGHT = 140
_FOUND, _TRUE = 'found', 'annotated'

Place = tuple[float, float, float, float]


@dataclasses.dataclass(frozen=True)
class Marked:
  """Boxes of a photo.

  Attributes:
    boxes: `[D, 4]`, x1 y1 x2 y2 in pixels of the photo.
    labels: `[D]`, of which each has a colour.
    names: of each box.
    scores: of each box; None: they are annotations.
  """

  boxes: np.ndarray
  labels: Sequence[int]
  names: Sequence[str]
  scores: Sequence[float] | None = None

  def texts(self) -> list[str]:
    """Returns what is written at each box."""
    if self.scores is None:
      return list(self.names)
    return [f'{n} {score:.2f}' for n, score in zip(self.names, self.scores, strict=True)]


def draw(photo: Image.Image, marked: Marked) -> Image.Image:
  """Returns a copy of a photo in RGB, enlarged if it is small, with boxes; the best are on top."""
  scale = max(min(_SMALLEST_SIDE / min(photo.size), _LONGEST / max(photo.size)), 1)
  size = (round(photo.width * scale), round(photo.height * scale))
  picture = photo.convert('RGB').resize(size, Image.Resampling.BICUBIC)
  pen = ImageDraw.Draw(picture)
  width = max(2, round(min(size) * _LINE))
  order = list(range(len(marked.boxes)))
  if marked.scores is not None:
    order = np.argsort(marked.scores, kind='stable').tolist()
  boxes = np.asarray(marked.boxes, float).reshape(-1, 4) * scale
  for i in order:
    pen.rectangle(_inside(boxes[i], size), outline=_colour(marked.labels[i]), width=width)
  _write_all(pen, size, boxes, marked, order)
  return picture


def beside(photo: Image.Image, found: Marked, truth: Marked) -> Image.Image:
  """Returns what was found and what was annotated on two copies of a photo, side by side."""
  pictures = [draw(photo, found), draw(photo, truth)]
  width, height = pictures[0].size
  font = label_font((width, height))
  gap = round(font.getbbox('Ag')[3])
  board = Image.new('RGB', (2 * width + gap, height + 2 * gap), _WHITE)
  pen = ImageDraw.Draw(board)
  for i, (picture, title) in enumerate(zip(pictures, (_FOUND, _TRUE), strict=True)):
    left = i * (width + gap)
    board.paste(picture, (left, 2 * gap))
    pen.text((left + gap // 2, gap // 2), title, fill=_BLACK, font=font)
  return board


def sheet(pictures: Sequence[Image.Image], columns: int = 2, gap: int = 8) -> Image.Image:
  """Returns pictures in rows, each of the width of the narrowest."""
  width = min(picture.width for picture in pictures)
  scaled = [p.resize((width, round(p.height * width / p.width))) for p in pictures]
  rows = [scaled[i : i + columns] for i in range(0, len(scaled), columns)]
  heights = [max(picture.height for picture in row) for row in rows]
  columns = min(columns, len(scaled))
  size = (columns * (width + gap) - gap, sum(heights) + gap * (len(rows) - 1))
  board, top = Image.new('RGB', size, _WHITE), 0
  for row, height in zip(rows, heights, strict=True):
    for i, picture in enumerate(row):
      board.paste(picture, (i * (width + gap), top))
    top += height + gap
  return board


def _colour(label: int) -> tuple[int, int, int]:
  code = look.COLOURS[label % len(look.COLOURS)]
  return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)


def label_font(size: tuple[int, int]) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
  """Returns the font for names on a picture of `size`, its width and height."""
  return ImageFont.load_default(max(_FEWEST_PIXELS, min(size) * _LETTERS))


def _inside(box: np.ndarray, size: tuple[int, int]) -> Place:
  """Returns a box whose lines are all to be seen, and which has no end before its beginning."""
  x1, x2 = np.clip([box[0], max(box[0], box[2])], 0, size[0] - 1)
  y1, y2 = np.clip([box[1], max(box[1], box[3])], 0, size[1] - 1)
  return x1, y1, x2, y2


def _write_all(
  pen, size: tuple[int, int], boxes: np.ndarray, marked: Marked, order: list[int]
) -> None:
  """Writes texts at their boxes, those of the best first, where no other text is if possible."""
  font, texts = label_font(size), marked.texts()
  taken: list[Place] = []
  for i in reversed(order):
    left, top, right, bottom = pen.textbbox((0, 0), texts[i], font=font)
    pad = max(1, round((bottom - top) / 6))
    extent = (right - left + 2 * pad, bottom - top + 2 * pad)
    place = free_place(_inside(boxes[i], size), extent, size, taken)
    taken.append(place)
    colour = _colour(marked.labels[i])
    pen.rectangle(place, fill=colour)
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > _BRIGHT
    at = (place[0] + pad - left, place[1] + pad - top)
    pen.text(at, texts[i], fill=_BLACK if bright else _WHITE, font=font)


def free_place(
  box: Place, extent: tuple[float, float], size: tuple[int, int], taken: list[Place]
) -> Place:
  """Returns where a text of a width and height is written: above its box, or else near its corners.

  All of it is within the picture; the first place that is not taken, or the one that hides least.
  """
  (x1, y1, x2, y2), (width, height) = box, extent
  corners = [(x1, y1 - height), (x1, y1), (x2 - width, y1 - height), (x2 - width, y1)]
  corners += [(x1, y2 - height), (x1, y2), (x2 - width, y2 - height), (x2 - width, y2)]
  # Lines further down and up, for many boxes at the same place.
  corners += [(x1, y1 + k * height) for k in (1, 2, 3, -2, -3, -4)]
  places = []
  for left, top in corners:
    left = min(max(left, 0), max(size[0] - 1 - width, 0))
    top = min(max(top, 0), max(size[1] - 1 - height, 0))
    places.append((left, top, left + width, top + height))
  return min(places, key=lambda place: sum(shared_area(place, other) for other in taken))


def shared_area(a: Place, b: Place) -> float:
  """Returns the area that two places share."""
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return max(width, 0) * max(height, 0)
