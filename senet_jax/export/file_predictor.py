"""Predictions of an ONNX file in one of its runtimes, as those of a network in JAX."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from scipy.special import softmax

from senet_jax import runtime
from senet_jax.errors import UserError, at_least
from senet_jax.export import backends, formats
from senet_jax.export.backends import Call
from senet_jax.export.card import FEATURES, LOGITS, PROBABILITIES, Card
from senet_jax.prediction import Photo, Predictor


@dataclasses.dataclass(frozen=True, eq=False)
class FilePredictor(Predictor):
  """An exported file that takes photos; it has no variables and no module.

  Attributes:
    card: of the file.
    call: runs it.
  """

  card: Card = dataclasses.field(repr=False, kw_only=True)
  call: Call = dataclasses.field(repr=False, kw_only=True)

  def features(
    self, images: Sequence[Photo] | np.ndarray | Photo, stage: str | None = None
  ) -> np.ndarray:
    """Returns the features of each image, as of `Predictor`.

    Raises:
      UserError: the file does not give them; those of a stage no file gives.
    """
    if stage is not None:
      raise UserError(f'stage={stage!r}: a file has no stages; give the workdir of the run.')
    blank = np.zeros((self.batch_size, *self.preprocessing.shape), np.uint8)
    program = self._named(FEATURES)
    return self._rows(images, program, program(None, blank).shape[-1])

  @property
  def _program(self) -> Callable[[str], Callable]:
    return self._named

  def _named(self, name: str) -> Callable:
    if name == PROBABILITIES and name not in self.card.outputs:
      return lambda _, images: softmax(self._outputs(images)[LOGITS], axis=-1)
    if name not in self.card.outputs:
      option = 'with --features' if name == FEATURES else 'without --probabilities'
      raise UserError(
        f'the file gives {", ".join(self.card.outputs)}, and no {name}; export it {option}.'
      )
    return lambda _, images: self._outputs(images)[name]

  def check(self, path: pathlib.Path) -> None:
    """Runs the file on black images, and compares the shapes of its outputs with its card.

    Raises:
      UserError: they differ; the message names the file `path`.
    """
    images, classes = self.card.batch or 1, len(self.class_names)
    results = self._outputs(np.zeros((images, *self.preprocessing.shape), np.uint8))
    for name in self.card.outputs:
      shape = results[name].shape if name in results else ()
      if len(shape) != 2 or shape[0] != images or (name != FEATURES and shape[1] != classes):
        raise UserError(
          f'{path} gives {name} of the shape {list(shape)} for {images} images, and its card names '
          f'{classes} classes; export it again.'
        )

  def _outputs(self, images) -> dict[str, np.ndarray]:
    x = np.asarray(images)
    if not self.card.uint8:
      x = np.asarray(self.preprocessing.to_input(jnp.asarray(x)))
    return self.call(formats.in_layout(x, self.card.layout))


def load(path: str | os.PathLike, backend: str, *, batch_size: int = 32) -> FilePredictor:
  """Reads a file that `senet export --format=onnx` wrote.

  Args:
    path: of the file.
    backend: `onnxruntime` or `openvino`.
    batch_size: images that run at once, where the file takes any number.

  Raises:
    UserError: it is of another format or damaged, or gives something else than its card says; the
      runtime is not installed; or `batch_size` is below 1.
  """
  at_least('batch_size', batch_size, 1)
  path = pathlib.Path(path)
  call = backends.checked(backend)
  there = formats.of(path)
  if there != 'onnx':
    raise UserError(
      f'{backend} runs ONNX files, and {path} is {there}; export it with --format=onnx.'
    )
  card = formats.load(there).read_card(path)
  found = FilePredictor(
    config=ConfigDict(),
    model=nn.Module(),
    variables={},
    step=card.step,
    class_names=card.class_names,
    preprocessing=card.preprocessing,
    batch_size=card.batch or batch_size,
    mesh=runtime.data_mesh(1),
    card=card,
    call=call(path),
  )
  found.check(path)
  return found
