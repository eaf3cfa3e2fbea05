"""Squeeze-and-Excitation Networks in JAX."""

import os
import sys
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
  from senet_jax.export.agreement import Agreement
  from senet_jax.prediction import Detector, Predictor

if sys.version_info < (3, 11):  # noqa: UP036 pip sees to it, but not where a checkout is run
  print('senet_jax needs Python 3.11 or newer; this is', sys.version.split()[0], file=sys.stderr)
  raise SystemExit(2)

__version__ = '0.1.0'


@overload
def load(
  workdir: str | os.PathLike, checkpoint: str | int = ..., *, batch_size: int | None = ...,
  task: Literal['classification'] | None = ...,
) -> 'Predictor': ...  # fmt: skip
@overload
def load(
  workdir: str | os.PathLike, checkpoint: str | int = ..., *, batch_size: int | None = ...,
  task: Literal['detection'],
) -> 'Detector': ...  # fmt: skip
def load(
  workdir: str | os.PathLike,
  checkpoint: str | int = 'best',
  *,
  batch_size: int | None = None,
  task: str | None = None,
) -> 'Predictor | Detector':
  """A trained network for predictions, as of `senet_jax.prediction.load`.

  >>> network = senet_jax.load('runs/flowers')
  >>> network.top_k(['rose.jpg'], k=1)
  [[Prediction(name='rose', label=3, probability=0.98)]]
  >>> senet_jax.load('runs/coco', task='detection').detect(['street.jpg'])[0].names
  ('car', 'person')
  """
  # Here: whoever imports a part of the package must not wait for all of it.
  from senet_jax import prediction
  from senet_jax.errors import UserError

  try:
    given: Any = task  # each overload has its own
    return prediction.load(workdir, checkpoint, batch_size=batch_size, task=given)
  except UserError as error:  # which says it all, without what it came from
    raise error.with_traceback(None) from None


def list_pretrained() -> list[str]:
  """The names of the trained networks in the package, each of which `load` takes."""
  from senet_jax.interop import shipped

  return shipped.list_pretrained()


def export(
  network: str | os.PathLike, to: str | os.PathLike, format: str | None = None, **options: Any
) -> 'Agreement':
  """Writes a trained network as a file that other programs run, as of `senet_jax.export.exported`.

  >>> senet_jax.export('se_resnet20_cifar10', 'net.onnx', uint8=True, probabilities=True)
  """
  import importlib

  # From now on `senet_jax.export`, and the same function, which no type says of a module.
  module: Any = importlib.import_module('senet_jax.export')
  return module(network, to, format, **options)
