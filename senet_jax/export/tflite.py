"""TensorFlow Lite files for phones and small devices, run by LiteRT."""

import importlib.util
import pathlib
from typing import Any

import numpy as np

from senet_jax import runtime
from senet_jax.export import card as cards, formats, tensorflow_program
from senet_jax.export.card import Card
from senet_jax.export.formats import Call
from senet_jax.export.graph import Graph

LAYOUT = 'NHWC'
# Its converter would, but accelerators of phones take none but fixed shapes.
ANY_BATCH = False
CARD_INSIDE = False
LIBRARIES = ('tensorflow',)


def write(graph: Graph, path: pathlib.Path, card: Card) -> None:
  """Writes a graph."""
  tf = runtime.import_tensorflow()
  module = tf.Module()
  module.run = tensorflow_program.function(graph, card.batch)
  concrete = module.run.get_concrete_function()
  converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
  path.write_bytes(converter.convert())


def is_one(path: pathlib.Path) -> bool:
  """Returns whether a file has the mark of TensorFlow Lite."""
  if not path.is_file():
    return False
  with path.open('rb') as file:
    return file.read(8)[4:] == b'TFL3'


def read_card(path: pathlib.Path) -> Card:
  """Returns the card beside a file."""
  return cards.read_json(cards.beside(path), path)


def opened(path: pathlib.Path) -> Call:
  """Opens a file in LiteRT, or in the interpreter that TensorFlow has of it."""
  errors = (RuntimeError, ValueError)
  with formats.runnable(path, errors):
    runner = _interpreter(str(path)).get_signature_runner()

  def call(images: np.ndarray) -> dict[str, np.ndarray]:
    with formats.runnable(path, errors):
      return runner(images=images)

  return call


def run(path: pathlib.Path, batches: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
  """Runs the file as `opened` opens it."""
  return list(map(opened(path), batches))


def _interpreter(path: str) -> Any:
  if importlib.util.find_spec('ai_edge_litert'):
    from ai_edge_litert.interpreter import Interpreter
  else:
    Interpreter = runtime.import_tensorflow().lite.Interpreter
  return Interpreter(path, num_threads=runtime.usable_cores())
