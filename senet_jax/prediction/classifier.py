"""Classes that photos show, as a trained network sees them."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from PIL import Image

from senet_jax.data import class_names, photos
from senet_jax.data.photos import UnreadableImage
from senet_jax.data.preprocessing import Transform
from senet_jax.errors import UserError, at_least, one_of
from senet_jax.layers import HEAD, excitations
from senet_jax.prediction.network import TrainedNetwork
from senet_jax.prediction.photo import Photo, opened_photo, several


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
class Predictor(TrainedNetwork):
  """A trained classifier that takes photos; see `TrainedNetwork`.

  Attributes:
    preprocessing: what an image goes through, as in an evaluation of the run.
  """

  preprocessing: Transform

  def probabilities(self, images: Sequence[Photo] | np.ndarray | Photo) -> np.ndarray:
    """Returns the probability of each class for each image.

    Args:
      images: paths, contents of files, Pillow images and arrays, mixed, of any sizes; uint8
        `[N, H, W, 3]`; or one of the first three alone.

    Returns:
      `[N, K]` float32.

    Raises:
      UserError: an image is not readable or no image; the message names it.
    """
    return self._rows(images, self._program('probabilities'), len(self.class_names))

  def logits(self, images: Sequence[Photo] | np.ndarray | Photo) -> np.ndarray:
    """Returns what goes into the softmax, `[N, K]` float32; as of `probabilities`."""
    return self._rows(images, self._program('logits'), len(self.class_names))

  def features(
    self, images: Sequence[Photo] | np.ndarray | Photo, stage: str | None = None
  ) -> np.ndarray:
    """Returns the features of each image, a vector that the network makes of it.

    Args:
      images: as of `probabilities`.
      stage: `stage4`, …: the means over the map that comes out of it; None: what goes into the last
        layer.

    Returns:
      `[N, C]` float32.

    Raises:
      UserError: as of `probabilities`, or the network has no such stage.
    """
    program = self._program(HEAD if stage is None else _last_of(stage, self.variables['params']))
    shape = np.zeros((self.batch_size, *self.preprocessing.shape), np.uint8)
    width = jax.eval_shape(program, self.variables, shape).shape[-1]
    return self._rows(images, program, width)

  def _rows(
    self, images: Sequence[Photo] | np.ndarray | Photo, program: Callable, width: int
  ) -> np.ndarray:
    """Returns the results of `program` for all images, `[N, width]`."""
    images = several(images)
    rows = self._all(images, functools.partial(self._run, program))
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)

  def top_k(
    self, images: Sequence[Photo] | np.ndarray | Photo, k: int = 5
  ) -> list[list[Prediction]]:
    """Returns the `k` most probable classes for each image, the best first; all if there are fewer.

    Args:
      images: as of `probabilities`.
      k: at least 1.

    Raises:
      UserError: as of `probabilities`, or `k` is too small.
    """
    return [self.best(row, k) for row in self.probabilities(images)]

  def best(self, probabilities: np.ndarray, k: int) -> list[Prediction]:
    """Returns the `k` most probable classes of one image, given `[K]`."""
    at_least('k', k, 1)
    labels = np.argsort(-probabilities, kind='stable')[:k]
    return [
      Prediction(class_names.readable(self.class_names[i]), int(i), float(probabilities[i]))
      for i in labels
    ]

  def stream(self, images: Iterable[Photo]) -> Iterator[np.ndarray | UnreadableImage]:
    """Takes one image after another, any number, with two batches of them in memory.

    Threads read the next batch while the network is busy with one.

    Returns:
      For each image, when it is its turn, its probabilities, `[K]` float32, or why it cannot be
      read.
    """
    return self._stream(images, functools.partial(self._run, self._program('probabilities')))

  def read(self, image: Photo) -> np.ndarray:
    """Returns an image as the device takes it, uint8 `[H, W, C]` of `preprocessing.shape`.

    Raises:
      UnreadableImage: it is none, damaged, or too large.
    """
    plain = self.preprocessing
    height, width, channels = plain.shape
    with opened_photo(image) as rgb:
      crop = photos.central_crop(
        rgb, plain.resize, (height, width), plain.keep_aspect, plain.interpolation
      )
    if channels == 1:
      crop = np.asarray(Image.fromarray(crop).convert('L'))[..., None]
    return crop

  def _run(self, program: Callable, crops: list[np.ndarray]) -> np.ndarray:
    """Returns the results of `program` for what `read` returned, at most `batch_size`."""
    images = np.zeros((self.batch_size, *self.preprocessing.shape), np.uint8)
    images[: len(crops)] = crops
    rows = np.asarray(program(self.variables, self._put(images)))[: len(crops)]
    self.check_finite(np.isfinite(rows))
    return rows

  @functools.cached_property
  def _program(self) -> Callable[[str], Callable]:
    """Compiles `(variables, images) -> rows` for `probabilities`, `logits`, or from a module."""

    def compiled(output: str) -> Callable:
      return self._compiled(functools.partial(_rows_of, output, self.model, self.preprocessing))

    return functools.cache(compiled)


def gates(
  network: Predictor, images: Sequence[Photo] | np.ndarray | Photo
) -> dict[str, np.ndarray]:
  """Returns the gates of all SE blocks for each image, by the paper's names in network order.

  Args:
    network: has SE blocks.
    images: as of `Predictor.probabilities`.

  Returns:
    `{'SE_2_1': [N, C], …}` float32; for NoSqueeze the means over the pixels.

  Raises:
    UserError: as of `Predictor.probabilities`, or there is no SE block.
  """

  def sown(variables: dict, pixels: jax.Array) -> dict[str, jax.Array]:
    x = network.preprocessing.to_input(pixels)
    _, state = network.model.apply(variables, x, train=False, mutable=['intermediates'])
    found = excitations(state.get('intermediates', {}))
    return {name: gate.reshape(len(x), -1, gate.shape[-1]).mean(1) for name, gate in found.items()}

  one = jax.ShapeDtypeStruct((1, *network.preprocessing.shape), jnp.uint8)
  widths = {k: gate.shape[-1] for k, gate in jax.eval_shape(sown, network.variables, one).items()}
  if not widths:
    raise UserError(f'{network.config.model.name} has no SE blocks; use a network that has.')
  program = network._compiled(lambda v, x: jnp.concatenate(list(sown(v, x).values()), -1))
  rows = network._rows(images, program, sum(widths.values()))
  parts = np.split(rows, np.cumsum(list(widths.values()))[:-1], axis=1)
  return dict(zip(widths, parts, strict=True))


def _last_of(stage: str, modules: Iterable[str]) -> str:
  """Returns the name of the last of the `modules` of a stage."""
  modules = [name for name in modules if name.startswith('stage')]
  one_of('stage', stage, sorted({name.partition('_')[0] for name in modules}))
  number = {name: int((re.findall(r'_block(\d+)', name) or [0])[0]) for name in modules}
  return max((n for n in modules if n.startswith(f'{stage}_')), key=number.__getitem__)


def _rows_of(
  output: str, model: nn.Module, preprocessing: Transform, variables: dict, images: jax.Array
) -> jax.Array:
  """Returns `probabilities`, `logits`, or the features of a module, `[N, C]` float32.

  Those of the last layer are its inputs, those of another module what comes out of it.
  """
  found: list[jax.Array] = []

  def keep(method, args, options, context):
    out = method(*args, **options)
    module = context.module
    if module.scope and module.path == (output,) and context.method_name == '__call__':
      found.append(args[0] if output == HEAD else out)
    return out

  with nn.intercept_methods(keep):
    logits: Any = model.apply(variables, preprocessing.to_input(images), train=False)
  if output in ('logits', 'probabilities'):
    return logits if output == 'logits' else jax.nn.softmax(logits)
  x = found[-1].astype(jnp.float32)
  return x.mean((1, 2)) if x.ndim == 4 else x
