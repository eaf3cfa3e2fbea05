"""Statistics for networks whose normalisation was folded into their convolutions.

Networks of TensorFlow Lite, and others that were prepared for inference, have none: what is left of
their BN is a bias. Training would normalise by the statistics of a batch, and so compute another
function.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn, traverse_util
from jax.sharding import PartitionSpec

from senet_jax import runtime
from senet_jax.layers import BatchNorm
from senet_jax.runtime import DATA_AXIS
from senet_jax.training.task import Feeds


def is_folded(variables: dict[str, Any]) -> bool:
  """Returns whether all BN statistics of a network are those of one that has seen no image."""
  stats = traverse_util.flatten_dict(jax.device_get(dict(variables['batch_stats'])))
  means = [value for path, value in stats.items() if path[-1] == 'mean']
  variances = [value for path, value in stats.items() if path[-1] == 'var']
  constant = len(np.unique(np.concatenate(variances))) == 1 if variances else False
  return constant and not any(map(np.any, means))


def with_statistics(model: nn.Module, feeds: Feeds, variables: dict[str, Any]) -> dict[str, Any]:
  """Returns variables of the same function, normalised by the statistics of the first batch.

  Scale and bias of each BN undo what its new mean and variance do, so that inference computes what
  it did, and training starts from nearly that.

  Args:
    model: the network.
    feeds: of the run; the first batch of its training is read.
    variables: `params` and `batch_stats`.
  """

  def measured(variables, inputs):
    found = {}

    def record(call, args, kwargs, context):
      if isinstance(context.module, BatchNorm) and context.method_name == '__call__':
        x = args[0].astype(jnp.float32)
        mean = jax.lax.pmean(x.mean((0, 1, 2)), DATA_AXIS)
        var = jax.lax.pmean(jnp.square(x - mean).mean((0, 1, 2)), DATA_AXIS)
        found[context.module.path] = mean, var, context.module.bn.epsilon
      return call(*args, **kwargs)

    images = feeds.train.batch(inputs, jnp.int32(0))['images']
    with nn.intercept_methods(record):
      model.apply(variables, images, train=False)
    params, stats = (
      traverse_util.flatten_dict(dict(variables[name])) for name in ('params', 'batch_stats')
    )
    for path, (mean, var, epsilon) in found.items():
      slope = params[*path, 'scale'] / jnp.sqrt(stats[*path, 'var'] + epsilon)
      params[*path, 'bias'] += slope * (mean - stats[*path, 'mean'])
      params[*path, 'scale'] = slope * jnp.sqrt(var + epsilon)
      stats[*path, 'mean'], stats[*path, 'var'] = mean, var
    new = {'params': params, 'batch_stats': stats}
    return {name: traverse_util.unflatten_dict(leaves) for name, leaves in new.items()}

  whole = PartitionSpec()
  program = runtime.data_parallel(measured, feeds.mesh, (whole, feeds.train.input_spec), whole)
  return program(variables, feeds.train.inputs(0, 1)[0])
