"""A graph as a function of JAX, with the convolutions that suit each platform."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from senet_jax.export.graph import Graph, Node, pixels_in_windows
from senet_jax.layers import platform_conv


def function(graph: Graph) -> Callable[[jax.Array], dict[str, jax.Array]]:
  """Returns a function from images `[N, H, W, 3]` to the outputs of `graph`, by name."""
  nodes = graph.nodes()

  def run(images: jax.Array) -> dict[str, jax.Array]:
    results: dict[Node, jax.Array] = {graph.images: images}
    for node in nodes:
      if node is not graph.images:
        results[node] = _OPERATIONS[node.op](
          node, *(results[x] for x in node.inputs), *node.constants
        )
    return {name: results[node] for name, node in graph.outputs.items()}

  return run


def _conv(node: Node, x, kernel, bias):
  options = node.options
  of_images = len(node.shape) == 4
  convolve = platform_conv.conv_general_dilated if of_images else lax.conv_general_dilated
  y = convolve(
    x,
    jnp.asarray(kernel).astype(x.dtype),
    options['strides'],
    options['padding'],
    rhs_dilation=options['dilation'],
    dimension_numbers=('NHWC', 'HWIO', 'NHWC') if of_images else ('NHC', 'HIO', 'NHC'),
    feature_group_count=options['groups'],
  )
  return y + bias


def _max_pool(node: Node, x):
  return lax.reduce_window(x, -jnp.inf, lax.max, *_windows(node))


def _avg_pool(node: Node, x):
  whole = node.options['count_padding']
  pixels = np.prod(node.options['window']) if whole else pixels_in_windows(node)
  return lax.reduce_window(x, 0.0, lax.add, *_windows(node)) / np.asarray(pixels, np.float32)


def _windows(node: Node) -> tuple[Any, Any, Any]:
  options = node.options
  window, strides = ((1, *options[name], 1) for name in ('window', 'strides'))
  return window, strides, ((0, 0), *options['padding'], (0, 0))


def _reduced(function: Callable) -> Callable:
  def reduce(node: Node, x):
    return function(x, node.options['axes'], keepdims=len(node.shape) == x.ndim)

  return reduce


def _slice(node: Node, x):
  options = node.options
  parts = zip(options['starts'][1:], options['ends'][1:], options['steps'][1:], strict=True)
  for axis, (start, end, step) in enumerate(parts, start=1):
    x = lax.slice_in_dim(x, start, end, step, axis)
  return x


def _clip(node: Node, x):
  low, high = node.options['low'], node.options['high']
  x = x if low is None else jnp.maximum(x, low)
  return x if high is None else jnp.minimum(x, high)


_OPERATIONS: dict[str, Callable[..., jax.Array]] = {
  'add': lambda node, x, y: x + y,
  'affine': lambda node, x, scale, shift: x * scale + shift,
  'avg_pool': _avg_pool,
  'cast': lambda node, x: x.astype(node.dtype),
  'clip': _clip,
  'concat': lambda node, *xs: jnp.concatenate(xs, node.options['axis']),
  'conv': _conv,
  'dense': lambda node, x, kernel, bias: x @ jnp.asarray(kernel).astype(x.dtype) + bias,
  'max': _reduced(jnp.max),
  'max_pool': _max_pool,
  'mean': _reduced(jnp.mean),
  'mul': lambda node, x, y: x * y,
  'pad': lambda node, x: jnp.pad(x, node.options['padding'], constant_values=node.options['value']),
  'reshape': lambda node, x: x.reshape(x.shape[0], *node.shape[1:]),
  'sigmoid': lambda node, x: jax.nn.sigmoid(x),
  'slice': _slice,
  'softmax': lambda node, x: jax.nn.softmax(x),
  'tanh': lambda node, x: jnp.tanh(x),
  'transpose': lambda node, x: x.transpose(node.options['axes']),
}
