"""Numbers of independent code (torch, torchvision, timm, Keras) that tests compare ours with.

A test gives its `golden` fixture a function that makes them with the live library. `make test`
reads what is committed in `tests/golden/numbers` and needs no such library; `make test-interop`
calls the functions and fails where the library disagrees with that; `--write-golden` writes it:

  python -m pytest -n 0 --live --write-golden tests/models/test_models_plain.py
"""

import importlib.metadata
import json
import pathlib
import platform
from collections.abc import Callable, Mapping

import numpy as np

from tests.helpers import paths

FOLDER = paths.TESTS / 'golden' / 'numbers'
# Of a large array as many elements are kept, evenly spaced, beside its root mean square.
KEPT = 40
# What two versions or machines may differ by, relative to the largest magnitude of the array.
AGREEMENT = 1e-5
LIBRARIES = ('torch', 'torchvision', 'timm', 'tensorflow', 'keras')


def _sample(array: np.ndarray) -> np.ndarray:
  flat = np.asarray(array, np.float64).ravel()
  if flat.size <= KEPT:
    return flat
  return flat[np.linspace(0, flat.size - 1, KEPT).round().astype(int)]


def _rms(array: np.ndarray) -> float:
  return float(np.sqrt(np.mean(np.square(np.asarray(array, np.float64)))))


class Number:
  """What is kept of one array of the independent code.

  Attributes:
    shape: of the array.
    values: the elements that are kept.
    rms: root mean square of all elements.
    scale: largest magnitude.
    spread: the most that the elements of one place differ by along the first axis (images).
  """

  def __init__(self, shape: tuple[int, ...], kept: np.ndarray):
    self.shape, self.values = shape, kept[:-3]
    self.rms, self.scale, self.spread = (float(x) for x in kept[-3:])

  def error(self, actual: np.ndarray) -> float:
    """The largest difference of `actual` from what is kept, its root mean square included."""
    assert np.shape(actual) == self.shape, (np.shape(actual), self.shape)
    largest = np.abs(_sample(actual) - self.values).max()
    return max(float(largest), abs(_rms(actual) - self.rms))

  def check(self, actual: np.ndarray, tolerance: float, what: str = '', spread: bool = False):
    """Asserts that `actual` is near, relative to the largest magnitude or to `spread`."""
    scale = self.spread if spread else self.scale
    assert scale > 0, what
    error = self.error(actual) / scale
    assert error < tolerance, f'{what}: {error:.1e}'


def _kept(array: np.ndarray) -> np.ndarray:
  """What `Number` keeps of an array."""
  array = np.asarray(array, np.float64)
  spread = np.ptp(array, axis=0).max() if array.ndim else 0.0
  return np.asarray([*_sample(array), _rms(array), np.abs(array).max(), spread])


class Verified(Exception):
  """The live library gives what is committed."""


class Golden:
  """The numbers of one test."""

  def __init__(self, module: str, test: str, live: bool, write: bool):
    self.path: pathlib.Path = FOLDER / f'{module}.npz'
    self.test, self.live, self.write = test, live, write

  def __call__(self, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, Number]:
    """Returns what is committed of the arrays that `make` makes with the live library."""
    if self.live:
      arrays = {name: np.asarray(array) for name, array in make().items()}
      shapes = {name: array.shape for name, array in arrays.items()}
      made = {name: _kept(array) for name, array in arrays.items()}
      if self.write:
        self._put('numbers', shapes, made, np.float32)
      self._compare(shapes, made)
      if not self.write:
        raise Verified
    return {name: Number(shape, kept) for name, (shape, kept) in self._get('numbers').items()}

  def arrays(self, make: Callable[[], Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns arrays that are part of a test's input, as float32 of the float16 that is committed.

    They are made only when golden numbers are written: statistics of BN, for example, with which
    the activations of a deep network of random weights neither vanish nor explode.
    """
    if self.write:
      made = {name: np.asarray(array) for name, array in make().items()}
      self._put('inputs', {name: a.shape for name, a in made.items()}, made, np.float16)
    found = self._get('inputs')
    return {name: kept.reshape(shape).astype(np.float32) for name, (shape, kept) in found.items()}

  def _compare(self, shapes: Mapping, made: Mapping[str, np.ndarray]) -> None:
    committed = self._get('numbers')
    assert made.keys() == committed.keys(), made.keys() ^ committed.keys()
    for name, (shape, kept) in committed.items():
      assert shapes[name] == shape, (name, shapes[name], shape)
      error = np.abs(made[name] - kept).max() / max(kept[-2], 1e-30)
      assert error < AGREEMENT, f'{name}: the live library differs from what is committed, {error}'

  def _get(self, kind: str) -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    with np.load(self.path, allow_pickle=False) as file:
      index = json.loads(str(file[f'{self.test}|{kind}']))
      ends = np.cumsum([length for _, _, length in index])[:-1]
      parts = np.split(file[f'{self.test}|{kind}_values'].astype(np.float64), ends)
    return {name: (tuple(shape), p) for (name, shape, _), p in zip(index, parts, strict=True)}

  def _put(self, kind: str, shapes: Mapping, arrays: Mapping[str, np.ndarray], dtype) -> None:
    kept = {}
    if self.path.exists():
      with np.load(self.path, allow_pickle=False) as file:
        kept = {key: file[key] for key in file.files}
    index = [(name, shapes[name], array.size) for name, array in arrays.items()]
    kept[f'{self.test}|{kind}'] = np.asarray(json.dumps(index))
    values = np.concatenate([array.ravel() for array in arrays.values()])
    kept[f'{self.test}|{kind}_values'] = values.astype(dtype)
    kept[f'{self.test}|made'] = np.asarray(_made())
    self.path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(self.path, **dict(sorted(kept.items())))


def _made() -> str:
  """The command and the versions that made the numbers; their seeds are in the tests."""
  versions = {'python': platform.python_version(), 'numpy': np.__version__}
  for library in LIBRARIES:
    try:
      versions[library] = importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
      continue
  return json.dumps({'command': 'make golden', 'versions': versions, 'seeds': 'in the tests'})
