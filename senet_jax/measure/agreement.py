"""Compares the logits of a device with those that the CPU of the same machine computes."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from senet_jax import runtime
from senet_jax.errors import UserError
from senet_jax.measure import programs
from senet_jax.measure.cases import Bench
from senet_jax.measure.networks import Network
from senet_jax.models import CLASSIFICATION, model_info

IMAGES = 4
# Of float32 with products of full precision: the largest difference, as a share of the spread.
BOUND = 1e-3


def logits(bench: Bench, network: Network, dtypes: tuple[str, ...]) -> list[dict[str, Any]]:
  """Compares the logits of a network with random weights on `IMAGES` random images.

  The network runs in training mode, so that its activations have the sizes that they have in a run.
  On the CPU it is computed in float32 alone; on the device float32 products have full precision.

  Args:
    bench: whose first device is compared.
    network: to be compared.
    dtypes: of the computation on the device.

  Returns:
    For each dtype `network`, `dtype`, `max_difference` and `spread`, the standard deviation of the
    CPU's logits, and `relative`, the first over the second.

  Raises:
    UserError: JAX was told to leave the CPU out, or the network is no classifier.
  """
  if model_info(network.registered).task != CLASSIFICATION:
    raise UserError(f'--logits compares classifiers, and {network.name} is none; leave it out.')
  (case,) = bench.cases((network,), mode='inference', dtype='float32', batch_size=bench.mesh.size)
  device, cpu = bench.mesh.devices.flat[0], _cpu()
  rng = np.random.default_rng(0)
  size = case.config.data.image_size
  images = rng.standard_normal((IMAGES, size, size, 3), np.float32)
  variables = programs.made_up_variables(case.config, case.module)
  rngs = dict.fromkeys(('dropout', 'shake'), jax.random.key(0))

  def run(where: jax.Device, dtype: str) -> np.ndarray:
    case.config.model.dtype = dtype
    module = case.module

    def forward(variables, images):
      return module.apply(variables, images, train=True, mutable=['batch_stats'], rngs=rngs)[0]

    with jax.default_matmul_precision('float32'):
      return np.asarray(jax.jit(forward)(*jax.device_put((variables, images), where)))

  expected = run(cpu, 'float32')
  found = []
  for dtype in dtypes:
    difference = float(np.abs(run(device, dtype) - expected).max())
    spread = float(expected.std())
    found.append(
      {
        'network': network.label,
        'device': runtime.describe_devices(),
        'dtype': dtype,
        'max_difference': difference,
        'spread': spread,
        'relative': difference / spread,
      }
    )
  return found


def worst(rows: Sequence[dict[str, Any]]) -> float:
  """Returns the largest `relative` of the rows in float32; 0 if there are none."""
  return max((row['relative'] for row in rows if row['dtype'] == 'float32'), default=0.0)


def _cpu() -> jax.Device:
  try:
    return jax.devices('cpu')[0]
  except RuntimeError as error:
    options: Any = jax.config  # older versions of JAX do not declare its attributes
    raise UserError(
      f'--logits compares with the CPU, which JAX_PLATFORMS={options.jax_platforms} leaves out; '
      'add ,cpu to it or unset it.'
    ) from error
