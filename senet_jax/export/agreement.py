"""Compares an exported file with the network that it was made of, on photos."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from senet_jax.errors import UserError
from senet_jax.export import folding, program
from senet_jax.export.card import FEATURES, LOGITS, PROBABILITIES, Card
from senet_jax.export.formats import Format
from senet_jax.export.graph import Graph
from senet_jax.prediction import Photo, Predictor

# The largest difference, as a share of the spread of the network's own outputs.
BOUND = 1e-4
# Images at once, where a file takes any number: beside one alone.
BATCH = 7


@dataclasses.dataclass(frozen=True)
class Agreement:
  """The comparison of an exported file with its network.

  Attributes:
    rows: for each batch size and output: `batch`, `output`, `max_difference`, `spread` (the
      standard deviation of what the network gives) and `relative`, the first over the second. With
      rounded weights that is against the graph of the same rounded weights. Then `unrounded` is the
      difference of the graph before rounding from the network, `from_float32` that of the file
      from the network, both relative, and `same_top1` the share of photos with the same best class.
    photos: that were compared.
  """

  rows: list[dict[str, Any]]
  photos: int

  @property
  def worst(self) -> float:
    """The largest `relative` or `unrounded`; NaN if one is."""
    compared = ('relative', 'unrounded')
    return float(np.max([row[name] for row in self.rows for name in compared if name in row]))

  def check(self, path: pathlib.Path) -> None:
    """Raises UserError if the file does not agree with the network."""
    if not self.worst <= BOUND:  # nor if it is no number
      raise UserError(
        f'{path} differs from the network by {self.worst:.1e} of the spread of its outputs, more '
        f'than {BOUND:.0e}: it is not used. Please report this.'
      )


def compare(
  module: Format,
  path: pathlib.Path,
  card: Card,
  predictor: Predictor,
  graph: Graph,
  photos: Sequence[Photo] = (),
) -> Agreement:
  """Runs a file on photos in its own runtime, and the network beside it.

  Args:
    module: the format.
    path: of the file.
    card: of the file.
    predictor: the network, in float32.
    graph: that the file is made of, before its weights are rounded.
    photos: any; by default those that come with scikit-learn.
  """
  size = card.batch or BATCH
  chosen: list[Photo] = [*photos] or [*sample_photos()]
  batches = [[chosen[i % len(chosen)] for i in range(start, start + size)]
             for start in range(0, len(chosen), size)]  # fmt: skip
  if card.batch is None:
    batches.insert(0, chosen[:1])
  raw = [np.stack(predictor.read_all(batch)) for batch in batches]
  given = (
    raw if card.uint8 else [np.asarray(card.preprocessing.to_input(jnp.asarray(x))) for x in raw]
  )
  results = module.run(path, given)
  # Of accelerators, too, whose convolutions are of fewer digits by default.
  with jax.default_matmul_precision('float32'):
    network = [_outputs(predictor, card, batch) for batch in batches]
    graphs = [graph, folding.rounded(graph, card.dtype)] if card.dtype != 'float32' else []
    calls = [jax.jit(program.function(some)) for some in graphs]
    of_graphs = [[jax.device_get(call(x)) for x in given] for call in calls]
  rows = []
  for length in sorted({len(x) for x in raw}):
    here = [i for i, x in enumerate(raw) if len(x) == length]
    for name in card.outputs:
      parts = [[of[i].get(name) for i in here] for of in (results, network, *of_graphs)]
      rows.append({'batch': length, 'output': name, **_row(path, name, parts)})
  return Agreement(rows, len(chosen))


def _row(path: pathlib.Path, name: str, parts: Sequence[Any]) -> dict[str, Any]:
  """Returns the numbers of one output of the file, the network, and the graph if it is rounded.

  Args:
    path: of the file.
    name: of the output.
    parts: for each of these three, the graph before rounding and behind it, what each batch gives.
  """
  for given, wanted in zip(*parts[:2], strict=True):
    if np.shape(given) != np.shape(wanted):
      raise UserError(
        f'{path} gives {name} of the shape {list(np.shape(given))}, and the network '
        f'{list(np.shape(wanted))}; export it again.'
      )
  given, network, *graphs = map(np.concatenate, parts)
  spread = float(network.std())
  wanted = graphs[-1] if graphs else network
  difference = float(np.abs(given - wanted).max())
  found = {'max_difference': difference, 'spread': spread, 'relative': _over(difference, spread)}
  if graphs:
    found['unrounded'] = _over(float(np.abs(graphs[0] - network).max()), spread)
    found['from_float32'] = _over(float(np.abs(given - network).max()), spread)
    if name != FEATURES:
      found['same_top1'] = float(np.mean(given.argmax(-1) == network.argmax(-1)))
  return found


def _over(difference: float, spread: float) -> float:
  """Returns a difference relative to a spread, which outputs that are all equal do not have."""
  if spread == 0:
    return 0.0 if difference == 0 else float('inf')
  return difference / spread


def _outputs(predictor: Predictor, card: Card, photos: Sequence[Photo]) -> dict[str, np.ndarray]:
  """Returns what the network gives for photos."""
  calls = {
    LOGITS: predictor.logits,
    PROBABILITIES: predictor.probabilities,
    FEATURES: predictor.features,
  }
  return {name: calls[name](photos) for name in card.outputs}


def sample_photos() -> list[Image.Image]:
  """Returns real photos: those that scikit-learn has, and parts of them."""
  from sklearn.datasets import load_sample_image

  found = []
  for name in ('china.jpg', 'flower.jpg'):
    photo = Image.fromarray(load_sample_image(name))
    width, height = photo.size
    boxes = [(0, 0, width, height), (0, 0, height, height), (width - height, 0, width, height)]
    found += [photo.crop(box) for box in boxes]
  return [*found, photo.crop((width // 3, height // 4, 2 * width // 3, 3 * height // 4))]
