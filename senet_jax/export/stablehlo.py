"""Files of StableHLO, as `jax.export` writes them: one program for CPU, CUDA and TPU."""

import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np

from senet_jax.errors import UserError
from senet_jax.export import card as cards, program
from senet_jax.export.card import Card
from senet_jax.export.formats import Call
from senet_jax.export.graph import Graph

LAYOUT = 'NHWC'
ANY_BATCH = True
CARD_INSIDE = False
LIBRARIES = ('flatbuffers',)
_PLATFORMS = ('cpu', 'cuda', 'tpu')
_MINUTES = 10
# A program of its own, as somebody else would write it.
_RUN = """
import sys
import jax
import numpy as np
exported = jax.export.deserialize(bytearray(open(sys.argv[1], 'rb').read()))
batches = np.load(sys.argv[2])
results = {}
for key in batches:
  for name, result in exported.call(batches[key]).items():
    results[key + '/' + name] = np.asarray(result)
assert 'senet_jax' not in sys.modules
np.savez(sys.argv[3], **results)
"""


def write(graph: Graph, path: pathlib.Path, card: Card) -> None:
  """Writes a graph."""
  from jax import export

  size = card.batch or export.symbolic_shape('N')[0]
  images = jax.ShapeDtypeStruct((size, *graph.images.shape[1:]), graph.images.dtype)
  exported = export.export(jax.jit(program.function(graph)), platforms=_PLATFORMS)(images)
  path.write_bytes(exported.serialize())


def is_one(path: pathlib.Path) -> bool:
  """Returns whether the module that is inside begins as MLIR's bytecode does."""
  if not path.is_file():
    return False
  with path.open('rb') as file:
    return b'ML\xefR' in file.read(2**20)


def read_card(path: pathlib.Path) -> Card:
  """Returns the card beside a file."""
  return cards.read_json(cards.beside(path), path)


def opened(path: pathlib.Path) -> Call:
  """Opens a file in JAX."""
  from jax import export

  exported = export.deserialize(bytearray(path.read_bytes()))
  call = jax.jit(exported.call)
  return lambda images: jax.device_get(call(images))


def run(path: pathlib.Path, batches: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
  """Runs the file on batches of images in a fresh process, which knows JAX alone."""
  with tempfile.TemporaryDirectory() as scratch:
    given, results = (pathlib.Path(scratch, name) for name in ('images.npz', 'results.npz'))
    np.savez(given, *batches)
    done = subprocess.run(
      [sys.executable, '-c', _RUN, str(path.absolute()), str(given), str(results)],
      cwd=scratch,
      env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'JAX_TRACEBACK_FILTERING': 'off'},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      errors='replace',
      timeout=60 * _MINUTES,
      check=False,
    )
    if done.returncode:
      last = (done.stdout.strip().splitlines() or ['no message'])[-1]
      raise UserError(f'{path} does not run in JAX: {last[:200]}')
    found: list[dict[str, np.ndarray]] = [{} for _ in batches]
    with np.load(results) as arrays:
      for key in arrays:
        batch, name = key.split('/')
        found[int(batch.removeprefix('arr_'))][name] = arrays[key]
  return found
