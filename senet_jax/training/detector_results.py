"""The average precision of a trained detector on a split of its data, or of another's."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.detection import average_precision, confusion, detections, evaluate, figures, sources
from senet_jax.detection.annotations import Annotations
from senet_jax.detection.average_precision import Precision
from senet_jax.detection.feeds import DetectionEvalFeed
from senet_jax.detection.sources import Source
from senet_jax.errors import UserError
from senet_jax.models import DETECTION
from senet_jax.reporting import tables
from senet_jax.storage import files
from senet_jax.workdir import networks, saved

# The results in words; `row` has them by name.
_LABELS = {
  'ap': 'AP, IoU 0.5 to 0.95', 'ap50': 'AP, IoU 0.5', 'ap75': 'AP, IoU 0.75',
  'ap_small': 'AP, small objects', 'ap_medium': 'AP, medium objects',
  'ap_large': 'AP, large objects', 'ar_1': 'AR, 1 detection', 'ar_10': 'AR, 10 detections',
  'ar_100': 'AR, 100 detections',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Results:
  """The average precision of a detector on a split.

  Attributes:
    row: the network, the data and the results, for a JSON file.
    precision: the results, those of each class, and the curves; None: no object is annotated.
    detections: rows of COCO's results.
    annotations: of the split.
  """

  row: dict[str, Any]
  precision: Precision | None
  detections: list[dict[str, Any]]
  annotations: Annotations

  def lines(self) -> list[str]:
    """Returns the results as text."""
    row = self.row
    head = f'{row["model"]}, step {row["step"]}' if 'step' in row else row['results']
    head = f'{head}, on {row["dataset"]} {row["split"]}'
    results = [f'  {label:21} {row[name]:6.2f} %' for name, label in _LABELS.items() if name in row]
    lines = [f'{head}: {row["examples"]} photos, {len(self.detections)} detections']
    if row.get('unreadable'):
      lines.append(f'  {row["unreadable"]} photos could not be read; their objects count as missed')
    return [*lines, *(results or ['  no object is annotated: there is nothing to judge by'])]

  def write_per_class(self, path: pathlib.Path) -> None:
    """Writes AP and name of each class that has objects as CSV, the worst first."""
    found = sorted(self._judged().per_class.items(), key=lambda item: item[1])
    rows = [[name, f'{value:.2f}'] for name, value in found]
    files.write_text(path, tables.csv_text(('class', 'AP, %'), rows))

  def draw(self, folder: pathlib.Path) -> None:
    """Draws precision over recall, and which classes are taken for which, as PNGs."""
    row = self.row
    title = f'{row.get("model") or row["results"]}, {row["dataset"]} {row["split"]}'
    figures.plot_precision_recall(self._judged().precision, folder / 'precision.png', title)
    counts = confusion.confusion(self.annotations, self.detections)
    figures.plot_confusion(counts, self.annotations.class_names, folder / 'confusion.png', title)

  def _judged(self) -> Precision:
    if self.precision is None:
      raise UserError(
        f'no object is annotated in {self.row["split"]}: write --detections alone, or give data '
        'with annotations.'
      )
    return self.precision


def judge(
  workdir: str | os.PathLike,
  checkpoint: str = 'best',
  *,
  split: str | None = None,
  data_dir: str | None = None,
  batch_size: int | None = None,
  write_to: pathlib.Path | None = None,
) -> Results:
  """Evaluates a detector; see `senet_jax.detection.average_precision`.

  Args:
    workdir: of the run, or another name of a network.
    checkpoint: of the run, `best`, `latest` or a step.
    split: of the data; None: the run's evaluation split.
    data_dir: where the data is; None: as in the run.
    batch_size: photos at once over all devices; None: as in the run.
    write_to: gets the detections as JSON, before they are judged; None: nothing does.

  Raises:
    UserError: there is no such detector or data, the classes of the two differ, or the network
      outputs NaN or infinity.
  """
  average_precision.check_installed()
  mesh = runtime.data_mesh()
  run = networks.load(workdir, checkpoint, mesh, task=DETECTION)
  config = run.evaluation_config(data_dir, batch_size)
  split = split or config.data.eval_split
  feed = DetectionEvalFeed.create(config, split, mesh)
  annotations = feed.split.annotations
  detector: Any = run.model
  _check_classes(str(workdir), detector.num_classes, run.class_names, feed.split)
  program = evaluate.eval_program(run.model, feed, mesh)
  found = evaluate.detect(program, run.variables, feed, annotations, detector.options.box_offset)
  assert found is not None  # nothing interrupts it
  if not found.finite:
    raise UserError(
      f'{workdir} outputs NaN or infinity at step {run.step}; use another checkpoint.'
    )
  if write_to:  # before anything else can fail
    detections.write(write_to, found.rows)
  known = {
    'model': config.model.name,
    'workdir': str(workdir),
    'step': run.step,
    'unreadable': found.unreadable,
    'shorter_side': config.data.shorter_side,
    'longer_side': config.data.longer_side,
    'device': runtime.describe_devices(),
  }
  return _results(known, config, split, annotations, found.rows, must=write_to is None)


def judge_file(
  path: pathlib.Path,
  *,
  workdir: str | os.PathLike | None = None,
  split: str | None = None,
  data_dir: str | None = None,
) -> Results:
  """Evaluates detections that are there as a JSON of COCO's results, of this or another program.

  Args:
    path: of the JSON.
    workdir: of a run whose data they are of, or another name of a detector; None: the files of
      COCO.
    split: of the data; None: the run's evaluation split, or `validation`.
    data_dir: where the data is; None: as in the run.

  Raises:
    UserError: there are no such detections or data, or they are not of the data.
  """
  average_precision.check_installed()
  if workdir is None:
    config = config_lib.default()
    config.data.name, config.data.eval_split = sources.FILES, 'validation'
  else:
    config = networks.read_config(workdir)
    saved.check_task(config, DETECTION, str(workdir))
  config.data.dir = data_dir or config.data.dir
  split = split or config.data.eval_split
  annotations = sources.open_source(config, split).annotations
  found = detections.read(path, annotations)
  return _results({'results': str(path)}, config, split, annotations, found)


def _results(
  known: dict[str, Any],
  config: ConfigDict,
  split: str,
  annotations: Annotations,
  found: list[dict[str, Any]],
  must: bool = True,
) -> Results:
  """Returns the results of detections.

  Args:
    known: begins the row.
    config: of the data.
    split: of it.
    annotations: of the split.
    found: rows of COCO's results.
    must: whether it is an error if no object is annotated.
  """
  row = {**known, 'dataset': config.data.name, 'split': split, 'examples': len(annotations)}
  if not must and not annotations.has_objects:
    return Results(row, None, found, annotations)
  precision = average_precision.judge(annotations, found)
  row |= {**precision.results, 'per_class': precision.per_class}
  return Results(row, precision, found, annotations)


def _check_classes(
  network: str, num_classes: int, names: Sequence[str] | None, split: Source
) -> None:
  """Checks that the classes of a network are those of the data, by name where it has names.

  Raises:
    UserError: they are not; the message has the first difference.
  """
  there = split.class_names
  if not names:
    if num_classes == len(there):
      return
    difference = 'it has no names to tell which'
  else:
    # Weights of others may have more outputs behind those of the data; see `interop.names`.
    pairs = itertools.zip_longest(names[: len(there)], there, fillvalue='(none)')
    unequal = [(i, *pair) for i, pair in enumerate(pairs) if pair[0] != pair[1]]
    if not unequal:
      return
    place, ours, theirs = unequal[0]
    difference = f'class {place} is {ours!r} in it and {theirs!r} there'
  raise UserError(
    f'the {num_classes} classes of {network} are not the {len(there)} of {split.where} '
    f'({difference}); give data with the same.'
  )
