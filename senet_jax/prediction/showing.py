"""Predictions for photos: printed as they come, and written to files."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from senet_jax.data.photos import UnreadableImage
from senet_jax.detection import drawing
from senet_jax.errors import UserError
from senet_jax.prediction.classifier import Predictor
from senet_jax.prediction.detector import Detections
from senet_jax.prediction.photo import opened_photo
from senet_jax.reporting import tables
from senet_jax.storage import files

SUFFIXES = JSON, CSV = '.json', '.csv'
# In a folder of pictures.
_DETECTIONS = 'detections.json'
_QUALITY = 92  # of a JPEG
_NO_MORE_THAN = 80  # letters of the name of a picture

Row = dict[str, Any]


def show(
  paths: list[str],
  results: Iterable[Any],
  lines: Callable[[Any], Iterable[str]],
  row: Callable[[str, Any], Row],
) -> list[Row]:
  """Prints what a network says of each photo while it comes.

  Args:
    paths: of the photos.
    results: of `stream`, for each of them.
    lines: of a result, for people.
    row: of a path and a result, for a file.

  Returns:
    A row for each photo, with its `path`, and `error` if it is unreadable.
  """
  from rich.console import Console
  from rich.progress import Progress

  class Quiet(Console):
    """A console that leaves a pipe without a reader to `cli.run`."""

    def on_broken_pipe(self) -> None:
      raise

  console = Quiet(soft_wrap=True, highlight=False, markup=False, emoji=False, force_jupyter=False)
  rows: list[Row] = []
  terminal = sys.stdout.isatty()
  # What goes to stderr stays there, unless it is the same terminal.
  with Progress(
    console=console,
    disable=not terminal,
    transient=True,
    redirect_stdout=False,
    redirect_stderr=terminal and sys.stderr.isatty(),
  ) as progress:
    tracked = progress.track(results, total=len(paths), description='photos')
    for path, result in zip(paths, tracked, strict=True):
      text = os.fsencode(path).decode(errors='replace')  # a name need not be text
      try:
        if isinstance(result, UnreadableImage):
          raise result
        found = row(path, result)
      except UnreadableImage as error:  # it may also be gone when it is drawn
        print(f'senet_jax: {text} is unreadable: {error}.', file=sys.stderr)
        rows.append({'path': text, 'error': str(error)})
        continue
      console.print('\n'.join([text, *lines(result)]))
      rows.append({'path': text, **found})
  return rows


def classes(predictor: Predictor, paths: list[str], top_k: int) -> list[Row]:
  """Names what photos show; see `show`."""

  def lines(probabilities: np.ndarray) -> list[str]:
    best = predictor.best(probabilities, top_k)
    return [f'  {100 * p.probability:6.2f} %  {p.name}' for p in best]

  def row(path: str, probabilities: np.ndarray) -> Row:
    best = predictor.best(probabilities, top_k)
    return {'predictions': [dataclasses.asdict(p) for p in best]}

  return show(paths, predictor.stream(paths), lines, row)


def write_classes(rows: list[Row], to: pathlib.Path) -> None:
  """Writes the rows of `classes` as JSON or CSV, as the name says."""
  if to.suffix == JSON:
    return files.write_json(to, rows)
  cells = (
    [row['path'], rank, p['label'], p['name'], p['probability']]
    for row in rows
    for rank, p in enumerate(row.get('predictions', ()), start=1)
  )
  files.write_text(to, tables.csv_text(('path', 'rank', 'label', 'name', 'probability'), cells))


def object_lines(found: Detections) -> list[str]:
  """Returns a line for each object, with its score, name, and box in whole pixels."""
  lines = [
    f'  {100 * score:6.2f} %  {name}  at {" ".join(f"{x:.0f}" for x in box)}'
    for name, score, box in zip(found.names, found.scores, found.boxes, strict=True)
  ]
  return lines or ['  nothing']


def object_row(found: Detections) -> Row:
  """Returns the objects of a photo for a file."""
  height, width = found.size
  objects = [
    {
      'name': name,
      'label': int(label),
      'score': round(float(score), 6),
      'box': [round(x, 2) for x in box],
    }
    for name, label, score, box in zip(
      found.names, found.labels, found.scores, found.boxes.tolist(), strict=True
    )
  ]
  return {'width': width, 'height': height, 'detections': objects}


def write_objects(rows: list[Row], to: pathlib.Path) -> None:
  """Writes rows of `object_row` as JSON or CSV, as the name says, or into a folder of pictures."""
  if to.suffix != CSV:
    return files.write_json(to if to.suffix == JSON else to / _DETECTIONS, rows)
  cells = (
    [row['path'], rank, d['label'], d['name'], d['score'], *d['box']]
    for row in rows
    for rank, d in enumerate(row.get('detections', ()), start=1)
  )
  columns = ('path', 'rank', 'label', 'name', 'score', 'x1', 'y1', 'x2', 'y2')
  files.write_text(to, tables.csv_text(columns, cells))


class Pictures:
  """Writes photos with the boxes of their objects into a folder."""

  def __init__(self, folder: pathlib.Path, photos: list[str]):
    """Takes the folder, which is made when there is a picture.

    Args:
      folder: of the pictures.
      photos: that they are made of.

    Raises:
      UserError: the folder holds some of them, which pictures could replace; or is a file.
    """
    if folder.is_file():
      raise UserError(f'--output={folder} is a file; give a folder, or a name in {JSON} or {CSV}.')
    here = folder.resolve()
    if any(pathlib.Path(photo).resolve().parent == here for photo in photos):
      raise UserError(
        f'--output={folder} holds photos that are read, which pictures of the same name would '
        'replace; give another folder.'
      )
    self._folder, self._taken = folder, set[str]()

  def write(self, path: str, found: Detections) -> str:
    """Draws the objects on a photo; returns the name of the picture."""
    with opened_photo(path) as photo:
      labels, scores = found.labels.tolist(), found.scores.tolist()
      picture = drawing.draw(photo, drawing.Marked(found.boxes, labels, found.names, scores))
    name = self._name(path)
    with files.whole(self._folder / name) as partial:
      picture.save(partial, 'JPEG', quality=_QUALITY)
    return name

  def _name(self, path: str) -> str:
    text = os.fsencode(pathlib.PurePath(path).stem).decode(errors='replace')
    stem = text[:_NO_MORE_THAN]
    name, number = f'{stem}.jpg', 1
    while name.lower() in self._taken:
      number += 1
      name = f'{stem}_{number}.jpg'
    self._taken.add(name.lower())
    return name


def objects(detector, paths: list[str], threshold: float, pictures: Pictures | None) -> list[Row]:
  """Finds objects on photos, and draws them with `pictures`; see `show`."""

  def row(path: str, found: Detections) -> Row:
    drawn = {'picture': pictures.write(path, found)} if pictures else {}
    return object_row(found) | drawn

  return show(paths, detector.stream(paths, threshold), object_lines, row)
