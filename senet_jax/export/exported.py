"""Makes files of trained networks, and keeps those that agree in their own runtimes."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from senet_jax import prediction
from senet_jax.config.defaults import MOST_PIXELS
from senet_jax.errors import UserError, one_of, shown
from senet_jax.export import agreement, card as cards, folding, formats, network as networks
from senet_jax.export.agreement import Agreement
from senet_jax.export.card import Card
from senet_jax.export.graph import Graph
from senet_jax.models import CLASSIFICATION
from senet_jax.prediction import Photo, Predictor
from senet_jax.runtime.commit import git_commit
from senet_jax.storage import files
from senet_jax.workdir import state, summary

ANY = 'any'
SUFFIXES = {'.onnx': 'onnx', '.stablehlo': 'stablehlo', '.tflite': 'tflite'}


def export(
  network: str | os.PathLike,
  to: str | os.PathLike,
  format: str | None = None,
  *,
  checkpoint: str | int = 'best',
  batch: int | str | None = None,
  size: int | None = None,
  uint8: bool = False,
  probabilities: bool = False,
  features: bool = False,
  dtype: str = 'float32',
  photos: Sequence[Photo] = (),
) -> Agreement:
  """Writes a trained network as a file that other programs run, checked in its own runtime.

  The file takes `images`, `[N, 3, S, S]` for ONNX and `[N, S, S, 3]` for the others, and gives
  `logits` `[N, K]`. It is kept only if it gives what the network gives.

  Args:
    network: the workdir of its run; or one of `list_pretrained()`, or `hf:OWNER/REPO[@REVISION]`.
    to: the file, a directory for `savedmodel`; nothing may be there.
    format: `stablehlo`, `onnx`, `savedmodel` or `tflite`; None: what the end of `to` says.
    checkpoint: `best`, `latest`, or a step.
    batch: images at once, or `any`; None: any, or one where the format has fixed shapes.
    size: side of the images, in pixels; None: that of the run.
    uint8: take raw RGB, 0 to 255, of the right size; otherwise normalised float32.
    probabilities: give `probabilities` instead of `logits`.
    features: give `features` `[N, C]`, too: what goes into the last layer.
    dtype: of the weights in the file; with `bfloat16` it is half as large, and all is computed in
      float32 from rounded weights.
    photos: to compare with; by default those that come with scikit-learn.

  Returns:
    How the file compares with the network.

  Raises:
    UserError: an option is wrong, a library is missing, the network cannot be read, or the file
      does not agree with it.
  """
  path = pathlib.Path(to)
  named = SUFFIXES.get(path.suffix)
  format = format or named
  if format is None:
    raise UserError(
      f'the format is missing, and {path.name} does not end in {" or ".join(SUFFIXES)}: give '
      f'format={" or ".join(formats.NAMES)}.'
    )
  module = formats.load(format)
  if named not in (None, format):
    raise UserError(f'{path} has the ending of {named}, and format={format}: change either.')
  one_of('dtype', dtype, cards.DTYPES)
  count = _batch(batch, format, module.ANY_BATCH)
  for there in (path,) if module.CARD_INSIDE else (path, cards.beside(path)):
    if there.exists():
      raise UserError(f'{there} is there already; choose another file.')
  if why := files.unwritable(path):
    raise UserError(f'{why}.')
  predictor = read(network, checkpoint, size)
  made = Card(
    format=format,
    network=str(network),
    model=predictor.config.model.name,
    step=predictor.step,
    params_sha256=state.params_sha256(predictor.variables),
    git_commit=git_commit() or '',
    versions=summary.versions() | formats.versions(module),
    layout=module.LAYOUT,
    uint8=uint8,
    batch=count,
    outputs=(cards.PROBABILITIES if probabilities else cards.LOGITS,
             *((cards.FEATURES,) if features else ())),
    dtype=dtype,
    preprocessing=predictor.preprocessing,
    class_names=predictor.class_names,
  )  # fmt: skip
  graph = _graph(made, predictor)
  with files.whole(path) as partial:
    module.write(folding.rounded(graph, dtype), partial, made)
    found = agreement.compare(module, partial, made, predictor, graph, photos)
    found.check(path)
  if not module.CARD_INSIDE:
    cards.write_beside(made, path)
  return found


def check(
  path: str | os.PathLike,
  network: str | os.PathLike | None = None,
  format: str | None = None,
  *,
  checkpoint: str | int | None = None,
  photos: Sequence[Photo] = (),
) -> Agreement:
  """Compares an exported file, however old, with the network that it was made of.

  Args:
    path: of the file, which is run: be sure of where it is from.
    network: as of `export`; None: the name that the file has of it.
    format: of the file; None: what it looks like.
    checkpoint: of the run; None: that of the file.
    photos: as of `export`.

  Raises:
    UserError: the file is damaged, of another format or of another network, or its card says of
      images and classes what is not so.
  """
  path = pathlib.Path(path)
  if format is not None:
    one_of('format', format, formats.NAMES)
  there = formats.of(path)
  if format not in (None, there):
    raise UserError(f'{path} is {there}, not {format}; give format={there} or leave it out.')
  module = formats.load(there)
  card = module.read_card(path)
  if card.format != there:
    raise UserError(f'{path} is {there}, but its card is of {card.format}; export it again.')
  name = network if network is not None else card.network
  size = card.preprocessing.image_size
  predictor = read(name, card.step if checkpoint is None else checkpoint, size)
  if state.params_sha256(predictor.variables) != card.params_sha256:
    raise UserError(
      f'{path} is of another network than {name}: a {card.model} with the weights '
      f'{card.params_sha256[:12]}…, step {card.step}; give the network that it was made of.'
    )
  _check_card(path, card, predictor, module.LAYOUT)
  graph = _graph(card, predictor)
  return agreement.compare(module, path, card, predictor, graph, photos)


def _check_card(path: pathlib.Path, card: Card, predictor: Predictor, layout: str) -> None:
  """Checks what others take from a card, and no comparison of outputs would notice."""
  says = {**dataclasses.asdict(card.preprocessing), 'layout': card.layout, 'model': card.model,
          'class_names': card.class_names}  # fmt: skip
  true = {**dataclasses.asdict(predictor.preprocessing), 'layout': layout,
          'model': predictor.config.model.name, 'class_names': predictor.class_names}  # fmt: skip
  for name, value in true.items():
    if says[name] != value:
      here, there = says[name], value
      if name == 'class_names' and len(here) == len(there):  # the first of maybe thousands
        at = next(i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b)
        name, here, there = f'class {at}', here[at], there[at]
      raise UserError(
        f'{path} says that {name} is {shown(here)}, and its network {shown(there)}; '
        'export it again.'
      )


def read(network: str | os.PathLike, checkpoint: str | int, size: int | None) -> Predictor:
  """Returns a network that computes in float32 and takes photos of three colours.

  Args:
    network: as of `export`.
    checkpoint: as of `export`.
    size: side of its images; None: that of the run.

  Raises:
    UserError: the network cannot be read, or the size is none.
  """
  found = prediction.load(network, checkpoint, batch_size=agreement.BATCH, task=CLASSIFICATION)
  plain = found.preprocessing
  side = plain.image_size if size is None else size
  if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= MOST_PIXELS:
    raise UserError(f'size={shown(side)} must be an integer from 1 to {MOST_PIXELS}.')
  plain = dataclasses.replace(
    plain,
    shape=(side, side, 3),
    image_size=side,
    resize=max(side, round(plain.resize * side / plain.shape[0])),
  )
  model = found.model.clone(dtype=jnp.dtype('float32'))
  return dataclasses.replace(found, model=model, preprocessing=plain)


def _graph(card: Card, predictor: Predictor) -> Graph:
  """Returns the graph that a file is made of, before its weights are rounded."""
  return networks.graph(
    predictor.model,
    jax.tree.map(np.asarray, predictor.variables),
    predictor.preprocessing,
    uint8=card.uint8,
    probabilities=cards.PROBABILITIES in card.outputs,
    features=cards.FEATURES in card.outputs,
  )


def _batch(given: int | str | None, format: str, any_batch: bool) -> int | None:
  """Returns the number of images, None for any."""
  if given is None:
    return None if any_batch else 1
  if given == ANY:
    if not any_batch:
      raise UserError(f'batch={ANY}: {format} has a fixed number of images; give batch=1 or more.')
    return None
  if isinstance(given, bool) or not isinstance(given, int) or given < 1:
    raise UserError(f'batch={given!r} must be an integer of at least 1, or {ANY}.')
  return given
