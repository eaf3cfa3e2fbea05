"""A trained network, read back from its workdir."""

import dataclasses
import json
import pathlib
import shlex
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.detection.feeds import Normalize
from senet_jax.errors import UserError
from senet_jax.models import CLASSIFICATION
from senet_jax.storage import buckets, files
from senet_jax.storage.buckets import Path
from senet_jax.workdir import network
from senet_jax.workdir.checkpoints import Checkpoints
from senet_jax.workdir.objective import OF_TASK, Objective
from senet_jax.workdir.run_progress import RunProgress
from senet_jax.workdir.state import TrainState

_CLASSES = 'classes.json'
# More than any data set has, and few enough to make names of.
_MOST_CLASSES = 10_000_000


@dataclasses.dataclass(frozen=True)
class Saved:
  """A network with the variables of a checkpoint.

  Attributes:
    config: of the run.
    model: the network.
    variables: `params` and `batch_stats`, the averaged ones if the run averaged them.
    step: of the checkpoint.
    class_names: of label 0, 1, ...; None if the data had none.
  """

  config: ConfigDict
  model: nn.Module
  variables: dict[str, Any]
  step: int
  class_names: tuple[str, ...] | None

  def evaluation_config(self, data_dir: str | None, batch_size: int | None) -> ConfigDict:
    """Returns a copy of the configuration for an evaluation.

    Args:
      data_dir: where the data is; None: as in the run.
      batch_size: images at once over all devices; None: as in the run.

    Raises:
      UserError: the configuration has a mistake.
    """
    config = self.config.copy_and_resolve_references()
    config.data.dir = data_dir or config.data.dir
    if batch_size is not None:
      config.eval.batch_size = batch_size
    config_lib.check(config)
    return config


def write_classes(workdir: Path, num_classes: int, names: tuple[str, ...] | None) -> None:
  """Keeps what only the data tells: the number of outputs and the names of the classes."""
  files.write_json(workdir / _CLASSES, {'num_classes': num_classes, 'names': names})


def read_classes(workdir: Path) -> tuple[int | None, tuple[str, ...] | None]:
  """Returns what `write_classes` kept; `(None, None)` for a run of a version that kept nothing.

  Raises:
    UserError: the file holds something else.
  """
  path = workdir / _CLASSES
  try:
    kept = _read_json(path)
  except FileNotFoundError:
    return None, None
  match kept:
    case {'num_classes': int(num_classes)} if not 0 < num_classes <= _MOST_CLASSES:
      pass
    case {'num_classes': int(num_classes), 'names': [*names]} if all(
      isinstance(name, str) for name in names
    ):
      return num_classes, tuple(names) or None
    case {'num_classes': int(num_classes), 'names': None}:
      return num_classes, None
  raise UserError(
    f'{path} does not hold the number of classes and their names; the command that made the run '
    'writes it anew.'
  )


def _read_json(path: Path) -> Any:
  """Returns what a JSON file of a workdir holds.

  Raises:
    UserError: it is not JSON, or cannot be read.
  """
  try:
    return json.loads(path.read_bytes())
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is not JSON: {error}.') from error
  except (FileNotFoundError, NotADirectoryError):
    raise
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}.') from error


def read_config(workdir: Path) -> ConfigDict:
  """Returns the configuration of the run in `workdir`.

  Raises:
    UserError: there is none, or it is not one of this version.
  """
  path = workdir / 'config.json'
  try:
    return config_lib.from_dict(_read_json(path))
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UserError(f'{workdir} holds no run: there is no {path.name} in it.') from error


def write(
  workdir: str | pathlib.Path,
  config: ConfigDict,
  variables: dict[str, Any],
  num_classes: int,
  class_names: tuple[str, ...] | None,
  origin: dict[str, str],
) -> None:
  """Writes what a run would leave that was stopped before its first step; whole or not at all.

  Args:
    workdir: a new directory.
    config: of the network, and of runs like it.
    variables: `params` and `batch_stats`.
    num_classes: outputs of the last layer.
    class_names: of label 0, 1, …; None if they are not known.
    origin: how the weights came to be: `{'converted_from': …}`. No run has such an identity, so
      that none goes on from here; they start with `config.init_from`.
  """
  # No run goes on from here, so there is nothing of an optimizer.
  state = TrainState(step=np.zeros((), np.int32), opt_state=(), **variables)
  identity = {**config.to_dict(), 'dataset': origin}
  with files.whole(pathlib.Path(workdir).expanduser().absolute()) as partial:
    files.write_json(partial / 'config.json', config.to_dict())
    write_classes(partial, num_classes, class_names)
    with Checkpoints(partial) as checkpoints:
      checkpoints.save(state, RunProgress(identity), metrics=None)


def how_to_use(config: ConfigDict, path: pathlib.Path) -> list[str]:
  """Returns lines on how to go on from a new workdir, or on what a file of weights leaves out."""
  detects = network.task_of(config) != CLASSIFICATION
  if path.is_dir() and detects:
    there, new = shlex.quote(str(path)), shlex.quote(f'{path}_new')
    trunk = config.model.name.removesuffix('_fpn').replace('faster_rcnn_', '')  # se_r50
    config_file = f'configs/coco_faster_rcnn_{trunk}.py'
    return [
      f'predict: python -m senet_jax.tools.predict --workdir={there} PHOTOS --output=FOLDER',
      f'fine-tune: python -m senet_jax.main --config={config_file} --workdir={new} '
      f'--config.data.dir=FOLDER --config.init_from={there} '
      '--config.new_head=True',
    ]
  if path.is_dir():
    there, new = shlex.quote(str(path)), shlex.quote(f'{path}_photos')
    return [
      f'predict: python -m senet_jax.tools.predict --workdir={there} PHOTOS',
      'fine-tune: python -m senet_jax.main --config=configs/finetune_image_folder.py '
      f'--workdir={new} --config.data.dir=PHOTOS --config.init_from={there} --config.new_head=True',
    ]
  images = Normalize.create(config) if detects else evaluation_transform(config)
  return [f'images: (RGB, 0 to 255, minus {images.mean}) / {images.std}']


def load(
  workdir: str | Path,
  checkpoint: str,
  mesh: Mesh,
  objective: Objective | None = None,
  task: str | None = CLASSIFICATION,
) -> Saved:
  """Reads a checkpoint of a run; changes nothing in its workdir.

  Args:
    workdir: of the run.
    checkpoint: `best` (when it was evaluated; the latest if none was), `latest`, or a step.
    mesh: the devices that get the variables.
    objective: says which is the best; None: that of the task.
    task: what the network must be for; None: anything.

  Raises:
    UserError: no run, no such checkpoint, or a damaged one, or a network of another task.
  """
  workdir = buckets.absolute(workdir)
  with buckets.access(workdir):
    config = read_config(workdir)
  check_task(config, task, str(workdir))
  num_classes, class_names = read_classes(workdir)
  model = network.build_model(config, num_classes)
  if not (workdir / 'checkpoints').is_dir():
    raise UserError(f'{workdir} has no checkpoint yet.')
  best = objective or OF_TASK[network.task_of(config)]
  with Checkpoints(workdir, objective=best, read_only=True) as checkpoints:
    step = _choose(checkpoints, checkpoint, workdir)
    variables = checkpoints.read(step).state.eval_variables
  _check_variables(config, variables, network.variable_shapes(config, model), workdir, step)
  return Saved(config, model, runtime.put_everywhere(variables, mesh), step, class_names)


def check_task(config: ConfigDict, task: str | None, where: str) -> None:
  """Checks what the network of a configuration is for.

  Args:
    config: of the network.
    task: what it must be for; None: anything.
    where: it is from.

  Raises:
    UserError: it is for another task.
  """
  found = network.task_of(config)
  if task not in (None, found):
    raise UserError(
      f'{where} holds {config.model.name}, a network for {found}, and this is for {task}: give '
      'a run of such a network.'
    )


def _check_variables(
  config: ConfigDict, found: dict[str, Any], expected: dict[str, Any], workdir: Path, step: int
) -> None:
  """Checks that a checkpoint holds the variables of the network, in their shapes and dtypes."""
  kinds = []
  for tree in (found, expected):
    leaves = jax.tree.leaves_with_path(tree)
    kinds.append({jax.tree_util.keystr(path): (x.shape, str(x.dtype)) for path, x in leaves})
  differing = sorted(path for path, _ in kinds[0].items() ^ kinds[1].items())
  if differing:
    raise UserError(
      f'checkpoint {step} in {workdir} is damaged: {differing[0]} is not as in the '
      f'{config.model.name} of its config.json.'
    )


def _choose(checkpoints: Checkpoints, checkpoint: str, workdir: Path) -> int:
  steps = checkpoints.steps()
  if checkpoint in ('best', 'latest'):
    step = checkpoints.best() if checkpoint == 'best' else None
    step = checkpoints.latest() if step is None else step
    if step is None:
      raise UserError(f'{workdir} has no checkpoint yet.')
    return step
  if checkpoint not in map(str, steps):
    raise UserError(f'{workdir} has no checkpoint {checkpoint!r}; give best, latest or of {steps}.')
  return int(checkpoint)
