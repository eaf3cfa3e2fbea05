"""The average precision of a trained detector on a split of its data, or of another's."""

import dataclasses
import os
import pathlib
from typing import Any

from senet_jax import runtime
from senet_jax.detection import average_precision, confusion, evaluate, figures
from senet_jax.detection.annotations import Annotations
from senet_jax.detection.average_precision import Precision
from senet_jax.detection.feeds import DetectionEvalFeed
from senet_jax.errors import UserError
from senet_jax.reporting import tables
from senet_jax.storage import files
from senet_jax.workdir import networks

# The results in words; `row` has them by name.
_LABELS = {
  'ap': 'AP, IoU 0.5 to 0.95', 'ap50': 'AP, IoU 0.5', 'ap75': 'AP, IoU 0.75',
  'ap_small': 'AP, small objects', 'ap_medium': 'AP, medium objects',
  'ap_large': 'AP, large objects', 'ar_1': 'AR, 1 detection', 'ar_10': 'AR, 10 detections',
  'ar_100': 'AR, 100 detections',
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Results:
  """How good a detector is on a split.

  Attributes:
    row: the network, the data and the results, for a JSON file.
    precision: the results, those of each class, and the curves.
    detections: rows of COCO's results.
    annotations: of the split.
  """

  row: dict[str, Any]
  precision: Precision
  detections: list[dict[str, Any]]
  annotations: Annotations

  def lines(self) -> list[str]:
    """Returns the results as text."""
    row = self.row
    head = f'{row["model"]}, step {row["step"]}, on {row["dataset"]} {row["split"]}'
    results = [f'  {label:21} {row[name]:6.2f} %' for name, label in _LABELS.items() if name in row]
    return [f'{head}: {row["examples"]} photos, {len(self.detections)} detections', *results]

  def write_per_class(self, path: pathlib.Path) -> None:
    """Writes AP and name of each class that has objects as CSV, the worst first."""
    found = sorted(self.precision.per_class.items(), key=lambda item: item[1])
    rows = [[name, f'{value:.2f}'] for name, value in found]
    files.write_text(path, tables.csv_text(('class', 'AP, %'), rows))

  def draw(self, folder: pathlib.Path) -> None:
    """Draws precision over recall, and which classes are taken for which, as PNGs."""
    title = f'{self.row["model"]}, {self.row["dataset"]} {self.row["split"]}'
    figures.plot_precision_recall(self.precision.precision, folder / 'precision.png', title)
    counts = confusion.confusion(self.annotations, self.detections)
    figures.plot_confusion(counts, self.annotations.class_names, folder / 'confusion.png', title)


def judge(
  workdir: str | os.PathLike,
  checkpoint: str = 'best',
  *,
  split: str | None = None,
  data_dir: str | None = None,
  batch_size: int | None = None,
) -> Results:
  """Evaluates a detector; see `senet_jax.detection.average_precision`.

  Args:
    workdir: of the run, or another name of a network.
    checkpoint: of the run, `best`, `latest` or a step.
    split: of the data; None: the run's evaluation split.
    data_dir: where the data is; None: as in the run.
    batch_size: photos at once over all devices; None: as in the run.

  Raises:
    UserError: there is no such detector or data, or the classes of the two differ.
  """
  average_precision.check_installed()
  mesh = runtime.data_mesh()
  run = networks.load(workdir, checkpoint, mesh, task='detection')
  config = run.evaluation_config(data_dir, batch_size)
  split = split or config.data.eval_split
  feed = DetectionEvalFeed.create(config, split, mesh)
  annotations = feed.split.annotations
  # Weights of others may have more outputs behind those of the data; see `interop.names`.
  if run.class_names and annotations.class_names != run.class_names[: len(annotations.class_names)]:
    raise UserError(
      f'the {len(run.class_names)} classes of {workdir} are not the {len(annotations.class_names)} '
      f'of {feed.split.where}; give data with the same.'
    )
  detector: Any = run.model
  program = evaluate.eval_program(run.model, feed, mesh)
  found = evaluate.detect(program, run.variables, feed, annotations, detector.options.box_offset)
  assert found is not None  # nothing interrupts it
  precision = average_precision.judge(annotations, found)
  row = {
    'model': config.model.name,
    'workdir': str(workdir),
    'step': run.step,
    'dataset': config.data.name,
    'split': split,
    'examples': feed.split.num_examples,
    'shorter_side': config.data.shorter_side,
    'longer_side': config.data.longer_side,
    'device': runtime.describe_devices(),
    **precision.results,
    'per_class': precision.per_class,
  }
  return Results(row, precision, found, annotations)
