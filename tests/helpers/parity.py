"""Our networks against an independent definition of each with the same weights.

The definitions, in torch, are needed only to make the golden numbers; `make` returns such a twin
(`tests/helpers/torch_twin.py`).
"""

import functools
import importlib
from collections.abc import Callable

import jax
import numpy as np
from flax import linen as nn, traverse_util

from senet_jax.layers import BatchNorm
from tests.helpers.golden import Golden, Number
from tests.helpers.models import first_class, one_pass
from tests.helpers.weights import random_variables, shapes_of

LEAVES = (nn.Conv, nn.Dense, BatchNorm)


def twin(name: str, *args, **options) -> Callable:
  """Returns what makes a twin; `name` is that of a function of `tests/helpers/twins`."""
  module, function = name.split('.')

  def make():
    return getattr(importlib.import_module(f'tests.helpers.twins.{module}'), function)(
      *args, **options
    )

  return make


def paths_of(model: nn.Module, images: np.ndarray, train: bool) -> list[tuple[str, ...]]:
  """Returns the paths of the layers with weights in the order of their calls."""
  paths = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, LEAVES) and context.method_name == '__call__':
      paths.append(context.module.path)
    return call(*args, **kwargs)

  shapes = shapes_of(model, images, train)
  with nn.intercept_methods(record):
    apply = functools.partial(model.apply, train=train, mutable=['batch_stats'])
    jax.eval_shape(apply, shapes, images)
  return paths


def near(actual, expected, tolerance: float, what: str) -> None:
  """Asserts that they differ by less than a share of what `expected` differs by among images."""
  actual, expected = np.asarray(actual), np.asarray(expected)
  assert actual.shape == expected.shape, what
  spread = np.ptp(expected, axis=0).max()
  assert spread > 0.01 * np.abs(expected).max(), what
  error = np.abs(actual - expected).max() / spread
  assert error < tolerance, f'{what}: {error:.1e}'


def weights_for(
  golden: Golden,
  model: nn.Module,
  images: np.ndarray,
  make: Callable,
  calibrated: bool,
  train=False,
) -> dict:
  """Returns random variables; `calibrated` ones have statistics near those of `images`.

  With other statistics the images would look alike to a deep network, and with half of its units
  off rounding would be more than 1e-4 of what they differ by: most are on.
  """
  shapes = shapes_of(model, images, train)
  if not calibrated:
    return random_variables(shapes)
  draw = functools.partial(random_variables, shapes, norm_bias=1.0)
  return draw(statistics=golden.arrays(lambda: make().statistics(draw(), images)))


def compare_evaluation(
  golden: Golden,
  model: nn.Module,
  images: np.ndarray,
  make: Callable,
  tolerance: float = 1e-4,
  calibrated: bool = False,
) -> int:
  """Compares logits and the activations at the twin's points; returns how many."""
  variables = weights_for(golden, model, images, make, calibrated)
  expected = golden(lambda: make().outputs(variables, images))

  @jax.jit
  def run(variables, images):
    logits, new = model.apply(
      variables,
      images,
      train=False,
      capture_intermediates=lambda m, call: call == '__call__' and '/'.join(m.path) in expected,
      mutable=['intermediates'],
    )
    found = traverse_util.flatten_dict(new['intermediates'], sep='/')
    return {p: found[f'{p}/__call__'][0] for p in expected if p != 'logits'} | {'logits': logits}

  actual = run(variables, images)
  assert actual['logits'].dtype == np.float32
  for name, number in expected.items():
    number.check(actual[name], tolerance, name, spread=True)
  assert expected['logits'].spread > 0.01 * expected['logits'].scale
  return len(expected)


def compare_training(
  golden: Golden,
  model: nn.Module,
  images: np.ndarray,
  make: Callable,
  calibrated: bool = False,
) -> tuple[dict[str, Number], dict[str, jax.Array]]:
  """Compares loss and logits of a training pass; returns the gradients, expected and ours."""
  variables = weights_for(golden, model, images, make, calibrated, train=True)
  expected = golden(lambda: make().training(variables, images, first_class))
  rngs = {'shake': jax.random.key(0)}
  loss, heads, _, gradients = one_pass(model, variables, images, rngs=rngs)
  actual = traverse_util.flatten_dict({'params': gradients}, sep='/')
  expected.pop('loss').check(loss, 1e-4, 'loss')
  for name, head in zip(('logits', 'aux_logits'), heads, strict=False):
    expected.pop(name).check(head, 1e-4, name, spread=True)
  assert expected.keys() == actual.keys()
  return expected, actual


def check_gradients(
  expected: dict[str, Number], actual: dict[str, jax.Array], tolerance: float = 1e-3
) -> None:
  """Checks each gradient, but for a bias in front of a BN, which has none but rounding."""
  largest = max(number.scale for number in expected.values())
  for path, number in expected.items():
    if number.scale == 0:  # of what a ReLU has switched off
      assert not np.any(actual[path]), path
    elif number.scale < 1e-9 * largest:
      assert path.endswith('bias') and np.abs(actual[path]).max() < 1e-4 * largest, path
    else:
      number.check(actual[path], tolerance, path)
