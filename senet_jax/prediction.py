"""Predictions of a trained network, for photos in files and images in memory."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from PIL import Image

from senet_jax import runtime
from senet_jax.data import class_names, photos
from senet_jax.data.photos import UnreadableImage
from senet_jax.data.preprocessing import Transform, evaluation_transform
from senet_jax.errors import UserError
from senet_jax.workdir import saved

# A path, an opened image, or an array: uint8 [H, W, 3], or [H, W, 1] or [H, W] in grey.
Photo = str | os.PathLike | Image.Image | np.ndarray


@dataclasses.dataclass(frozen=True)
class Prediction:
  """One class that an image may show.

  Attributes:
    name: of the class, for people.
    label: its number.
    probability: 0 to 1.
  """

  name: str
  label: int
  probability: float


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """A trained network that takes photos.

  Attributes:
    config: of its run.
    model: the network.
    variables: `params` and `batch_stats`, on all devices.
    step: of its checkpoint.
    class_names: of label 0, 1, ... `K - 1`; `class 0` where they are not known.
    preprocessing: what an image goes through, as in an evaluation of the run.
    batch_size: images that run at once, over all devices. Each batch is filled up to it, so that
      the network is compiled only once.
    mesh: the devices.
  """

  config: ConfigDict = dataclasses.field(repr=False)
  model: nn.Module = dataclasses.field(repr=False)
  variables: dict[str, Any] = dataclasses.field(repr=False)
  step: int
  class_names: tuple[str, ...] = dataclasses.field(repr=False)
  preprocessing: Transform
  batch_size: int
  mesh: Mesh = dataclasses.field(repr=False)

  def probabilities(self, images: Sequence[Photo] | np.ndarray) -> np.ndarray:
    """The probability of each class for each image.

    Args:
      images: paths, Pillow images and arrays, mixed, of any sizes; or uint8 `[N, H, W, 3]`.

    Returns:
      `[N, K]` float32.

    Raises:
      UserError: an image is not readable or no image; the message names it.
    """
    images = _several(images)
    rows = np.zeros((len(images), len(self.class_names)), np.float32)
    for i, row in enumerate(self.stream(images)):
      if isinstance(row, UnreadableImage):
        name = images[i] if isinstance(images[i], str | os.PathLike) else f'image {i}'
        raise UserError(f'{name} is unreadable: {row}; leave it out.') from row
      rows[i] = row
    return rows

  def top_k(self, images: Sequence[Photo] | np.ndarray, k: int = 5) -> list[list[Prediction]]:
    """The `k` most probable classes for each image, or all if there are fewer; the first is best.

    Args:
      images: as of `probabilities`.
      k: at least 1.

    Raises:
      UserError: as of `probabilities`, or `k` is too small.
    """
    return [self.best(row, k) for row in self.probabilities(images)]

  def best(self, probabilities: np.ndarray, k: int) -> list[Prediction]:
    """The `k` most probable classes of one image, given `[K]`."""
    if k < 1:
      raise UserError(f'k={k} must be at least 1.')
    labels = np.argsort(-probabilities, kind='stable')[:k]
    return [
      Prediction(class_names.readable(self.class_names[i]), int(i), float(probabilities[i]))
      for i in labels
    ]

  def stream(self, images: Iterable[Photo]) -> Iterator[np.ndarray | UnreadableImage]:
    """Takes one image after another, any number, with two batches of them in memory.

    Threads read the next batch while the network is busy with one.

    Yields:
      For each image its probabilities, `[K]` float32, or why it cannot be read.
    """
    images = iter(images)
    with concurrent.futures.ThreadPoolExecutor() as pool:
      batch: list[Future] = []
      while chunk := list(itertools.islice(images, self.batch_size)):
        following = [pool.submit(self._read, image) for image in chunk]
        yield from self._run(batch)
        batch = following
      yield from self._run(batch)

  def _read(self, image: Photo) -> np.ndarray | UnreadableImage:
    """Returns an image as the device takes it, uint8 `[H, W, C]`."""
    plain = self.preprocessing
    height, width, channels = plain.shape
    try:
      with _opened_rgb(image) as rgb:
        crop = photos.central_crop(rgb, plain.resize, (height, width), plain.keep_aspect)
    except UnreadableImage as error:
      return error
    if channels == 1:
      crop = np.asarray(Image.fromarray(crop).convert('L'))[..., None]
    return crop

  def _run(self, batch: list[Future]) -> Iterator[np.ndarray | UnreadableImage]:
    """What `stream` yields for the images that `_read` reads, at most `batch_size`."""
    if not batch:
      return
    images = np.zeros((self.batch_size, *self.preprocessing.shape), np.uint8)
    errors = {}
    for i, future in enumerate(batch):
      result = future.result()
      if isinstance(result, UnreadableImage):
        errors[i] = result
      else:
        images[i] = result
    images = jax.device_put(images, NamedSharding(self.mesh, PartitionSpec(runtime.DATA_AXIS)))
    rows = np.asarray(self._program(self.variables, images))
    if not np.isfinite(rows).all():
      raise UserError(f'the network of step {self.step} gives no numbers; use another checkpoint.')
    yield from (errors.get(i, rows[i]) for i in range(len(batch)))

  @functools.cached_property
  def _program(self) -> Callable:
    """Compiles `(variables, images) -> probabilities`."""

    def predict(variables: dict, images: jax.Array) -> jax.Array:
      logits = self.model.apply(variables, self.preprocessing.to_input(images), train=False)
      return jax.nn.softmax(logits)

    shares = PartitionSpec(runtime.DATA_AXIS)
    return runtime.data_parallel(predict, self.mesh, (PartitionSpec(), shares), shares)


def load(
  workdir: str | os.PathLike, checkpoint: str | int = 'best', *, batch_size: int = 32
) -> Predictor:
  """Reads a trained network from the workdir of its run, onto all devices.

  Args:
    workdir: of the run.
    checkpoint: `best` (lowest top-1 error when it was evaluated), `latest`, or a step.
    batch_size: images that run at once; rounded up to fill the devices.

  Raises:
    UserError: no run, no such checkpoint, a damaged one, or a batch of none.
  """
  if batch_size < 1:
    raise UserError(f'batch_size={batch_size} must be at least 1.')
  mesh = runtime.data_mesh()
  run = saved.load(workdir, str(checkpoint), mesh)
  # A configuration may give the network more outputs than its data has classes, or fewer.
  names = (run.class_names or ())[: run.model.num_classes]
  unnamed = range(len(names), run.model.num_classes)
  return Predictor(
    config=run.config,
    model=run.model,
    variables=run.variables,
    step=run.step,
    class_names=(*names, *(f'class {i}' for i in unnamed)),
    preprocessing=evaluation_transform(run.config),
    batch_size=runtime.fill_devices(batch_size, mesh.size),
    mesh=mesh,
  )


def _several(images: Sequence[Photo] | np.ndarray) -> Sequence[Photo]:
  """Checks that these are several images: a text or one image has parts too."""
  if isinstance(images, str | os.PathLike | Image.Image):
    raise UserError(f'images={images!r} is one image; give a list: [{images!r}].')
  shape = getattr(images, 'shape', None)
  if shape is not None and len(shape) != 4:
    raise UserError(f'images are of shape {shape}; give [N, H, W, 3] or a list of images.')
  return list(images)


@contextlib.contextmanager
def _opened_rgb(image: Photo) -> Iterator[Image.Image]:
  if isinstance(image, str | os.PathLike):
    try:
      data = pathlib.Path(image).read_bytes()
    except OSError as error:
      raise UnreadableImage(error.strerror) from error
    with photos.opened_rgb(data) as rgb:
      yield rgb
    return
  if isinstance(image, Image.Image):
    yield photos.to_rgb(image)
    return
  array = np.asarray(image)
  grey = array.ndim == 2 or array.shape[2:] == (1,)
  if array.dtype != np.uint8 or not array.size or not (grey or array.shape[2:] == (3,)):
    raise UserError(
      f'an image is {array.dtype} {list(array.shape)}; give uint8 [H, W, 3], 0 to 255, or a path.'
    )
  yield photos.to_rgb(Image.fromarray(array.reshape(array.shape[:2]) if grey else array))
