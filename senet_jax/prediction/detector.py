"""Objects on photos, as a trained detector sees them."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from PIL import Image

from senet_jax.data import class_names
from senet_jax.data.photos import UnreadableImage
from senet_jax.detection import buckets, coordinates, inference
from senet_jax.detection.feeds import Normalize
from senet_jax.errors import UserError
from senet_jax.prediction.network import TrainedNetwork
from senet_jax.prediction.photo import Photo, opened_photo, several

# Batches that are read at once, so that photos of one shape come together.
_AHEAD = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
  """The objects on a photo, the most certain first.

  Attributes:
    boxes: x1, y1, x2, y2 in pixels of the upright photo, float32 `[D, 4]`.
    scores: 0 to 1, float32 `[D]`.
    labels: numbers of the classes, int32 `[D]`.
    names: of the classes, for people.
    size: height and width of the photo.
  """

  boxes: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]
  size: tuple[int, int]

  def __len__(self) -> int:
    return len(self.scores)


@dataclasses.dataclass(frozen=True, eq=False)
class Resized:
  """A photo as a detector sees it, without padding.

  Attributes:
    pixels: uint8 `[h, w, 3]`.
    size: height and width of the upright photo.
  """

  pixels: np.ndarray
  size: tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Detector(TrainedNetwork):
  """A trained detector that takes photos; see `TrainedNetwork`.

  A photo is resized as in an evaluation of the run and padded to one of a few shapes, of which each
  is compiled when a photo needs it.

  Attributes:
    normalize: what the pixels go through.
    sides: the shorter side of a resized photo, and the longer one at most.
  """

  normalize: Normalize
  sides: tuple[int, int]

  def detect(
    self, images: Sequence[Photo] | np.ndarray | Photo, threshold: float = 0.5
  ) -> list[Detections]:
    """Finds objects.

    Args:
      images: paths, contents of files, Pillow images and arrays, mixed, of any sizes; uint8
        `[N, H, W, 3]`; or one of the first three alone.
      threshold: the least score. The network itself gives none below its own, usually 0.05.

    Returns:
      What is on each photo.

    Raises:
      UserError: an image is not readable or no image, and the message names it; or the threshold is
        none.
    """
    return self._all(several(images), self._run_above(threshold), _AHEAD)

  def stream(
    self, images: Iterable[Photo], threshold: float = 0.5
  ) -> Iterator[Detections | UnreadableImage]:
    """Takes one image after another, any number, with a few batches of them in memory.

    Threads read the next images while the network is busy with some.

    Returns:
      For each image, when it is its turn, what is on it, or why it cannot be read.
    """
    return self._stream(images, self._run_above(threshold), _AHEAD)

  def read(self, image: Photo) -> Resized:
    """Returns a photo as the network sees it, without padding.

    Raises:
      UnreadableImage: it is none, damaged, or too large.
    """
    with opened_photo(image) as rgb:
      size = (rgb.height, rgb.width)
      height, width = buckets.resized(np.array([size]), *self.sides)[0].tolist()
      return Resized(np.asarray(rgb.resize((width, height), Image.Resampling.BILINEAR)), size)

  def _run_above(self, threshold: float) -> Callable[[list[Resized]], list[Detections]]:
    if not 0 <= threshold <= 1:
      raise UserError(f'threshold={threshold} must be from 0 to 1.')
    return functools.partial(self._run, threshold)

  def _run(self, threshold: float, photos: list[Resized]) -> list[Detections]:
    """Finds objects on photos, those of a padded shape together."""
    shapes = buckets.shapes(*self.sides)
    shape_of = buckets.assign(np.array([p.pixels.shape[:2] for p in photos]), shapes)
    found: dict[int, Detections] = {}
    for shape in np.unique(shape_of):
      places = np.flatnonzero(shape_of == shape).tolist()
      for first in range(0, len(places), self.batch_size):
        some = places[first : first + self.batch_size]
        results = self._batch([photos[i] for i in some], shapes[shape], threshold)
        found |= dict(zip(some, results, strict=True))
    return [found[i] for i in range(len(photos))]

  def _batch(
    self, photos: list[Resized], shape: tuple[int, int], threshold: float
  ) -> Iterator[Detections]:
    """Yields the objects on at most `batch_size` photos that fit into `shape`."""
    images = np.zeros((self.batch_size, *shape, 3), np.uint8)
    sizes = np.ones((self.batch_size, 2), np.int32)
    for i, photo in enumerate(photos):
      height, width = sizes[i] = photo.pixels.shape[:2]
      images[i, :height, :width] = photo.pixels
    batch = self._put({'images': images, 'sizes': sizes})
    found = jax.device_get(self._program(self.variables, batch))
    self.check_finite(found['finite'][: len(photos)])
    for i, photo in enumerate(photos):
      rows = {name: array[i] for name, array in found.items()}
      yield self._detections(rows, photo, threshold)

  def _detections(
    self, found: dict[str, np.ndarray], photo: Resized, threshold: float
  ) -> Detections:
    """Returns what the network found on a photo, in the photo's pixels and above the threshold."""
    keep = found['valid'] & (found['scores'] >= threshold)
    scale = coordinates.scales(np.array(photo.size), np.array(photo.pixels.shape[:2]))
    offset = self.model.options.box_offset
    boxes = coordinates.to_photo(found['boxes'][keep], scale, offset)
    height, width = photo.size
    labels = found['classes'][keep]
    return Detections(
      boxes=np.clip(boxes, 0, (width, height, width, height)).astype(np.float32),
      scores=found['scores'][keep],
      labels=labels,
      names=tuple(class_names.readable(self.class_names[label]) for label in labels),
      size=photo.size,
    )

  @functools.cached_property
  def _program(self) -> Callable:
    """Compiles `(variables, images and sizes) -> detections`, as of `inference.detect`."""

    def run(variables: dict, batch: dict[str, jax.Array]):
      images = self.normalize.to_input(batch['images'], batch['sizes'])
      return inference.detect(self.model, variables, images, batch['sizes'])

    return self._compiled(run)
