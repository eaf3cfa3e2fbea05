"""Random images and weights for comparisons with other frameworks, by NumPy alone."""

import zlib
from collections.abc import Mapping

import jax
import numpy as np
from flax import traverse_util


def random_variables(
  shapes: Mapping,
  seed: int = 0,
  statistics: Mapping[str, np.ndarray] | None = None,
  norm_bias: float = 0.0,
) -> dict:
  """Returns variables none of which is zero or one, float32.

  Args:
    shapes: tree of `params` and `batch_stats` that has the wanted shapes.
    seed: of the numbers; each leaf has its own by its path.
    statistics: by `path/of/bn/mean` and `path/of/bn/var`, in place of random ones.
    norm_bias: mean of the biases of BN.
  """
  variables = {}
  flat = traverse_util.flatten_dict(dict(shapes))
  for path, leaf in flat.items():
    rng = np.random.default_rng([seed, zlib.crc32('/'.join(path).encode())])
    kind, where = path[-1], '/'.join(path[1:])
    if kind == 'kernel':
      value = rng.standard_normal(leaf.shape) * (2 / np.prod(leaf.shape[:-1])) ** 0.5
    elif statistics is not None and where in statistics:
      value = statistics[where]
    elif kind in ('scale', 'var'):
      value = rng.uniform(0.5, 1.5, leaf.shape)
    else:
      of_norm = kind == 'bias' and (*path[:-1], 'scale') in flat
      value = rng.normal(norm_bias if of_norm else 0, 0.3, leaf.shape)
    variables[path] = np.asarray(value, np.float32).reshape(leaf.shape)
  return traverse_util.unflatten_dict(variables)


def random_images(n: int, height: int, width: int, seed: int = 1) -> np.ndarray:
  """Returns images `[n, height, width, 3]` that differ in brightness, contrast and colour."""
  rng = np.random.default_rng(seed)
  coarse = rng.standard_normal((n, -(-height // 8), -(-width // 8), 3))
  coarse = coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width]
  fine = rng.standard_normal((n, height, width, 3))
  contrast, colour = rng.uniform(0.3, 1.5, (n, 1, 1, 1)), rng.standard_normal((n, 1, 1, 3))
  return (contrast * (coarse + 0.3 * fine) + colour).astype(np.float32)


def shapes_of(model, images: np.ndarray, train: bool = False) -> dict:
  """Returns the shapes of the variables of `model`; nothing is computed."""
  return jax.eval_shape(lambda key: model.init(key, images, train=train), jax.random.key(0))
