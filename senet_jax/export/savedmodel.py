"""TensorFlow's SavedModel, a directory: for TensorFlow Serving, TensorFlow.js and others."""

import pathlib

import numpy as np

from senet_jax import runtime
from senet_jax.export import card as cards, formats, tensorflow_program
from senet_jax.export.card import Card
from senet_jax.export.formats import Call
from senet_jax.export.graph import Graph
from senet_jax.storage import files

LAYOUT = 'NHWC'
ANY_BATCH = True
CARD_INSIDE = True
LIBRARIES = ('tensorflow',)
_SIGNATURE = 'serving_default'
_CARD = pathlib.Path('assets.extra', 'senet_jax.json')


def write(graph: Graph, path: pathlib.Path, card: Card) -> None:
  """Writes a graph into the directory `path`."""
  tf = runtime.import_tensorflow()
  module = tf.Module()
  module.run = tensorflow_program.function(graph, card.batch)
  tf.saved_model.save(module, str(path), {_SIGNATURE: module.run})
  files.write_json(path / _CARD, card.to_dict())


def is_one(path: pathlib.Path) -> bool:
  """Returns whether `path` is a directory with a model in it."""
  return (path / 'saved_model.pb').is_file()


def read_card(path: pathlib.Path) -> Card:
  """Returns the card in a directory."""
  return cards.read_json(path / _CARD, path)


def opened(path: pathlib.Path) -> Call:
  """Opens a model in TensorFlow."""
  tf = runtime.import_tensorflow()
  errors = (OSError, RuntimeError, KeyError, TypeError, ValueError, tf.errors.OpError)
  with formats.runnable(path, errors):
    signature = tf.saved_model.load(str(path)).signatures[_SIGNATURE]

  def call(images: np.ndarray) -> dict[str, np.ndarray]:
    with formats.runnable(path, errors):
      results = signature(images=tf.constant(images))
    return {name: x.numpy() for name, x in results.items()}

  return call


def run(path: pathlib.Path, batches: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
  """Runs the model in TensorFlow."""
  return list(map(opened(path), batches))
