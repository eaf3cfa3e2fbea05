"""The errors of a trained classifier, or of several as an ensemble, on a split of a data set."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from senet_jax import runtime
from senet_jax.evaluation import classes, competition, exclusion, outcomes as outcomes_lib
from senet_jax.evaluation.ensemble import Ensemble
from senet_jax.evaluation.evaluate import evaluate_each
from senet_jax.evaluation.outcomes import Outcomes
from senet_jax.workdir import networks


@dataclasses.dataclass(frozen=True)
class Crops:
  """The crops of an image whose probabilities are averaged.

  Attributes:
    count: 1, the middle, or 10: corners and middle, and their mirror images.
    size: side in pixels; None: that of the run.
    scales: the shorter side of the resized image, one or several; empty: the network's own.
  """

  count: int = 1
  size: int | None = None
  scales: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Results:
  """The errors of a classifier, or of an ensemble, on a split.

  Attributes:
    row: the networks, the data and the errors, for a JSON file.
    outcomes: of the images.
    names: of the classes.
    crops: of an image, in words; empty for a single one.
  """

  row: dict[str, Any]
  outcomes: Outcomes
  names: Sequence[str]
  crops: str

  def lines(self) -> list[str]:
    """Returns the results as text."""
    row = self.row
    members = row.get('members') or [row]
    of = ' + '.join(f'{member["model"]}, step {member["step"]}' for member in members)
    without = f', {row["left_out"]} left out' if row['left_out'] else ''
    head = (
      f'{of}, on {row["dataset"]} {row["split"]}: {row["examples"]} images{without}{self.crops}'
    )
    errors = [
      f'  {name:11} {value:8.4f}{" %" if name.endswith("error") else ""}'
      for name, value in row.items()
      if name == 'loss' or name.endswith('_error')
    ]
    return [head, *errors]

  def write_per_class(self, path: pathlib.Path) -> None:
    """Writes the error of each class, see `evaluation.outcomes`."""
    outcomes_lib.write_per_class(path, self.outcomes, self.names)

  def write_confusion(self, path: pathlib.Path) -> None:
    """Writes images by class and prediction, see `evaluation.outcomes`."""
    outcomes_lib.write_confusion(path, self.outcomes, self.names)


def judge(
  pairs: Sequence[tuple[Any, str]],
  crops: Crops,
  *,
  split: str | None = None,
  data_dir: str | None = None,
  batch_size: int | None = None,
  exclude: pathlib.Path | None = None,
  top_k: Sequence[int] | None = None,
) -> Results:
  """Evaluates one network, or several as an ensemble.

  Args:
    pairs: a workdir, or another name of a network, and the checkpoint, of each network.
    crops: of an image.
    split: of the data; None: the evaluation split of the first run.
    data_dir: where the data is; None: as in the first run.
    batch_size: crops at once over all devices; None: as in the first run.
    exclude: a file with the images to leave out.
    top_k: the errors to report; None: the usual ones.

  Raises:
    UserError: a network or the data is not usable, or they do not go together.
  """
  left_out = exclusion.read_list(exclude) if exclude else ()
  mesh = runtime.data_mesh()
  runs = [networks.load(workdir, checkpoint, mesh) for workdir, checkpoint in pairs]
  outputs = [
    classes.Outputs(workdir, run.model.num_classes, run.class_names, run.config.data.name)
    for run, (workdir, _) in zip(runs, pairs, strict=True)
  ]
  classes.check_same(outputs)
  config = runs[0].evaluation_config(data_dir, batch_size)
  split = split or config.data.eval_split
  config.model.num_classes = outputs[0].count
  transform = competition.choose_crops(
    [run.config for run in runs], crops.size, crops.scales, crops.count == 10
  )
  feed, excluded = competition.open_feed(config, split, mesh, transform, left_out)
  order, names = classes.known(outputs).order(feed.split.class_names, config.data.name)
  ensemble = Ensemble(tuple(run.model for run in runs), order)
  results, outcomes = evaluate_each(ensemble, tuple(run.variables for run in runs), feed, mesh)
  members = [
    {'model': run.config.model.name, 'workdir': str(workdir), 'step': run.step}
    for run, (workdir, _) in zip(runs, pairs, strict=True)
  ]
  made = transform.crops
  row = {
    **(members[0] if len(members) == 1 else {'members': members}),
    'dataset': config.data.name,
    'split': split,
    'examples': len(outcomes),
    'left_out': excluded,
    'size': made.size,
    'scales': made.scales,
    'crops': crops.count,
    'device': runtime.describe_devices(),
    'loss': results['loss'],
    **outcomes.top_k_errors(top_k, outputs[0].count),
  }
  several = f', {len(made)} crops of each: {made.describe()}' if len(made) > 1 else ''
  return Results(row, outcomes, names, several)
