"""The graph of a trained network, as it is exported."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from senet_jax.data.preprocessing import Transform
from senet_jax.errors import UserError
from senet_jax.export import folding, graph as graphs
from senet_jax.export.graph import Graph, Node
from senet_jax.layers import HEAD


def plain(model: nn.Module) -> nn.Module:
  """Returns a network of the same variables and function, in float32 and with SE written out.

  The squeeze from the statistics of BN saves a pass in training; in a file whose BN is part of the
  convolution it would be one operation more.
  """
  changes: dict[str, Any] = {'dtype': jnp.dtype('float32')}
  if model.se is not None:
    changes['se'] = dataclasses.replace(model.se, fused=False)
  return model.clone(**changes)


def graph(
  model: nn.Module,
  variables: dict[str, Any],
  preprocessing: Transform,
  *,
  uint8: bool = False,
  probabilities: bool = False,
  features: bool = False,
) -> Graph:
  """Returns the graph of a network in inference, its BN folded.

  Args:
    model: the network.
    variables: `params` and `batch_stats`.
    preprocessing: of its images, `[S, S, 3]`.
    uint8: take raw images; otherwise normalised ones.
    probabilities: give these instead of logits.
    features: give what goes into the last layer, too.

  Raises:
    UserError: the network cannot take images of this size, or has an operation without a form.
  """
  model = plain(model)

  def run(variables: dict[str, Any], images: jax.Array) -> dict[str, jax.Array]:
    found: list[jax.Array] = []

    def keep(method, args, options, context):
      if context.method_name == '__call__' and context.module.path == (HEAD,):
        found.append(args[0])
      return method(*args, **options)

    inputs = preprocessing.to_input(images) if uint8 else images
    with nn.intercept_methods(keep):
      logits: Any = model.apply(variables, inputs, train=False)
    return {'logits': logits, 'features': found[-1]} if features else {'logits': logits}

  shape, dtype = preprocessing.shape, 'uint8' if uint8 else 'float32'
  _check_size(model, variables, shape)
  traced = graphs.trace(run, variables, shape, dtype)
  if any(0 in node.shape for node in traced.nodes()):
    raise _wrong_size(shape)
  if probabilities:
    logits = traced.outputs['logits']
    outputs = {'probabilities': Node('softmax', (logits,), logits.shape), **traced.outputs}
    del outputs['logits']
    traced = Graph(traced.images, outputs)
  return folding.folded(traced)


def _check_size(model: nn.Module, variables: dict[str, Any], shape: tuple[int, ...]) -> None:
  images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  try:
    jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, images)
  except UserError as error:  # to which JAX adds lines of its own
    raise UserError(str(error).partition('\n')[0]) from error
  except (TypeError, ValueError, ZeroDivisionError) as error:
    # Of JAX and Flax, about a shape somewhere inside the network.
    raise _wrong_size(shape) from error


def _wrong_size(shape: tuple[int, ...]) -> UserError:
  return UserError(
    f'size={shape[0]}: the network cannot take images of {shape[0]} x {shape[1]} pixels; give a '
    'larger one, or leave size out.'
  )
