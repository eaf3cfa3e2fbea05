"""Trained networks from the workdirs of their runs, the package, or the Hugging Face hub."""

import os
from typing import Any, Literal, overload

from senet_jax import runtime
from senet_jax.data import class_names
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.detection.feeds import Normalize
from senet_jax.errors import at_least
from senet_jax.models import CLASSIFICATION
from senet_jax.prediction.classifier import Predictor
from senet_jax.prediction.detector import Detector
from senet_jax.workdir import network, networks
from senet_jax.workdir.saved import Saved

# Images at once, unless something else is asked for. Those of a detector are large.
_BATCH_SIZE, _OF_DETECTORS = 32, 1


# What a network is for, no type can tell; who needs the type of a detector names the task.
@overload
def load(
  workdir: str | os.PathLike, checkpoint: str | int = ..., *, batch_size: int | None = ...,
  task: Literal['classification'] | None = ...,
) -> Predictor: ...  # fmt: skip
@overload
def load(
  workdir: str | os.PathLike, checkpoint: str | int = ..., *, batch_size: int | None = ...,
  task: Literal['detection'],
) -> Detector: ...  # fmt: skip
def load(
  workdir: str | os.PathLike,
  checkpoint: str | int = 'best',
  *,
  batch_size: int | None = None,
  task: str | None = None,
) -> Predictor | Detector:
  """Reads a trained network from the workdir of its run, onto all devices.

  Args:
    workdir: of the run; or one of `senet_jax.list_pretrained()`, or `hf:OWNER/REPO[@REVISION]`.
    checkpoint: `best` (lowest top-1 error, or highest average precision, when it was evaluated),
      `latest`, or a step.
    batch_size: images that run at once; rounded up to fill the devices. None: 32, of a detector as
      many as there are devices.
    task: what the network must be for, `classification` or `detection`; None: either.

  Returns:
    A `Predictor` of a classifier, a `Detector` of a detector.

  Raises:
    UserError: no run, no such checkpoint, a damaged one, a network of another task, or a batch size
      below 1.
  """
  if batch_size is not None:
    at_least('batch_size', batch_size, 1)
  mesh = runtime.data_mesh()
  run = networks.load(workdir, str(checkpoint), mesh, task=task)
  classifies = network.task_of(run.config) == CLASSIFICATION
  usual = _BATCH_SIZE if classifies else _OF_DETECTORS
  common = {
    'config': run.config,
    'model': run.model,
    'variables': run.variables,
    'step': run.step,
    'class_names': _class_names(run),
    'batch_size': runtime.fill_devices(batch_size or usual, mesh.size),
    'mesh': mesh,
  }
  if classifies:
    return Predictor(**common, preprocessing=evaluation_transform(run.config))
  sides = (run.config.data.shorter_side, run.config.data.longer_side)
  return Detector(**common, normalize=Normalize.create(run.config), sides=sides)


def _class_names(run: Saved) -> tuple[str, ...]:
  model: Any = run.model
  return tuple(class_names.complete(run.class_names, model.num_classes))
