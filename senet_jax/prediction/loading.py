"""Trained networks from the workdirs of their runs, the package, or the Hugging Face hub."""

import os

from senet_jax import runtime
from senet_jax.data import class_names
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.prediction.classifier import Predictor
from senet_jax.workdir import networks


def load(
  workdir: str | os.PathLike, checkpoint: str | int = 'best', *, batch_size: int = 32
) -> Predictor:
  """Reads a trained network from the workdir of its run, onto all devices.

  Args:
    workdir: of the run; or one of `senet_jax.list_pretrained()`, or `hf:OWNER/REPO[@REVISION]`.
    checkpoint: `best` (lowest top-1 error when it was evaluated), `latest`, or a step.
    batch_size: images that run at once; rounded up to fill the devices.

  Raises:
    UserError: no run, no such checkpoint, a damaged one, or a batch of none.
  """
  if batch_size < 1:
    raise UserError(f'batch_size={batch_size} must be at least 1.')
  mesh = runtime.data_mesh()
  run = networks.load(workdir, str(checkpoint), mesh)
  return Predictor(
    config=run.config,
    model=run.model,
    variables=run.variables,
    step=run.step,
    class_names=tuple(class_names.complete(run.class_names, run.model.num_classes)),
    preprocessing=evaluation_transform(run.config),
    batch_size=runtime.fill_devices(batch_size, mesh.size),
    mesh=mesh,
  )
