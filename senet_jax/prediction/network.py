"""The base of trained networks that take photos: batches filled up, and threads that read ahead."""

import abc
import concurrent.futures
import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.data.photos import UnreadableImage
from senet_jax.errors import UserError
from senet_jax.prediction.photo import Photo

SHARES = PartitionSpec(runtime.DATA_AXIS)
# From the images that were read, in their order, to what the network makes of each.
Run = Callable[[list], Iterable]


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedNetwork(abc.ABC):
  """A trained network that takes photos.

  Attributes:
    config: of its run.
    model: the network.
    variables: `params` and `batch_stats`, on all devices.
    step: of its checkpoint.
    class_names: of label 0, 1, ... `K - 1`; `class 0` where they are not known.
    batch_size: images that run at once, over all devices. Each batch is filled up to it, so that
      the network is compiled only once for images of a shape.
    mesh: the devices.
  """

  config: ConfigDict = dataclasses.field(repr=False)
  model: nn.Module = dataclasses.field(repr=False)
  variables: dict[str, Any] = dataclasses.field(repr=False)
  step: int
  class_names: tuple[str, ...] = dataclasses.field(repr=False)
  batch_size: int
  mesh: Mesh = dataclasses.field(repr=False)

  @abc.abstractmethod
  def read(self, image: Photo) -> Any:
    """Returns an image as the network takes it; several threads read at once.

    Raises:
      UnreadableImage: it is none, damaged, or too large.
    """

  def read_all(self, images: Sequence[Photo]) -> list:
    """Returns what `read` makes of each image.

    Raises:
      UserError: an image cannot be read; the message names it.
    """
    return self._all(images, lambda read: read)

  def _all(self, images: Sequence[Photo], run: Run, ahead: int = 1) -> list:
    """Returns what `_stream` yields.

    Raises:
      UserError: an image cannot be read; the message names it.
    """
    found: list = []
    for image, result in zip(images, self._stream(images, run, ahead), strict=True):
      if isinstance(result, UnreadableImage):
        name = f'image {len(found)}'
        if isinstance(image, str | os.PathLike):
          name = str(image)
          if not os.path.exists(image):
            raise UserError(f'there is no file {name}; check the path.') from result
        raise UserError(f'{name} is unreadable: {result}; leave it out.') from result
      found.append(result)
    return found

  def _stream(self, images: Iterable[Photo], run: Run, ahead: int = 1) -> Iterator[Any]:
    """Yields for each image what `run` makes of it, or the `UnreadableImage` that it is.

    Threads read the next images while the network is busy with some.

    Args:
      images: any number.
      run: see `Run`; is given what `read` returns.
      ahead: batches that are read at once.
    """
    images = iter(images)
    with concurrent.futures.ThreadPoolExecutor() as pool:
      some: list[Future] = []
      while chunk := list(itertools.islice(images, ahead * self.batch_size)):
        following = [pool.submit(self.read, image) for image in chunk]
        yield from _results(some, run)
        some = following
      yield from _results(some, run)

  def check_finite(self, finite: np.ndarray) -> None:
    """Checks which of the network's outputs are finite.

    Raises:
      UserError: one is NaN or infinity.
    """
    if not finite.all():
      raise UserError(
        f'the network outputs NaN or infinity at step {self.step}; use another checkpoint.'
      )

  def _put(self, tree: Any) -> Any:
    """Returns arrays of a batch with each device's share on it."""
    return jax.device_put(tree, NamedSharding(self.mesh, SHARES))

  def _compiled(self, function: Callable) -> Callable:
    """Compiles `(variables, batch) -> results` of which each device has its share."""
    return runtime.data_parallel(function, self.mesh, (PartitionSpec(), SHARES), SHARES)


def _results(some: list[Future], run: Run) -> Iterator[Any]:
  """Yields what `run` makes of the images that could be read, or why one could not."""
  found: dict[int, Any] = {}
  for i, future in enumerate(some):
    try:
      found[i] = future.result()
    except UnreadableImage as error:
      found[i] = error
  readable = [i for i, image in found.items() if not isinstance(image, UnreadableImage)]
  if readable:
    results = run([found[i] for i in readable])
    found |= dict(zip(readable, results, strict=True))
  yield from found.values()
