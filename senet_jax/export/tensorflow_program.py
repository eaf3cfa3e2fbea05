"""A graph as a function of TensorFlow, whose maps have their channels last, too."""

from collections.abc import Callable
from typing import Any

import numpy as np

from senet_jax import runtime
from senet_jax.export.graph import Graph, Node, pixels_in_windows


def function(graph: Graph, batch: int | None) -> Any:
  """Returns a `tf.function` from `images` to the outputs of `graph`, by name."""
  tf = runtime.import_tensorflow()
  spec = tf.TensorSpec((batch, *graph.images.shape[1:]), graph.images.dtype, 'images')

  @tf.function(input_signature=[spec], autograph=False)
  def run(images):
    results = {graph.images: images}
    for node in graph.nodes():
      if node is not graph.images:
        given = (*(results[x] for x in node.inputs), *node.constants)
        results[node] = _OPERATIONS[node.op](tf, node, *given)
    return {name: tf.identity(results[node], name) for name, node in graph.outputs.items()}

  return run


def _weight(tf: Any, kernel: np.ndarray) -> Any:
  return kernel if kernel.dtype == np.float32 else tf.cast(tf.constant(kernel), tf.float32)


def _conv(tf, node: Node, x, kernel, bias):
  options = node.options
  if len(node.shape) == 3:
    x = tf.pad(x, ((0, 0), *options['padding'], (0, 0)))
    y = tf.nn.conv1d(x, _weight(tf, kernel), options['strides'][0], 'VALID')
    return y + bias
  *_, inputs, outputs = kernel.shape
  padding = [[0, 0], *map(list, options['padding']), [0, 0]]
  if options['groups'] == node.inputs[0].shape[-1] and inputs == 1:
    window, channels = kernel.shape[:2], options['groups']
    kernel = kernel.reshape(*window, channels, outputs // channels)
    same = set(options['padding']) == {(1, 1)} and {*window, *options['strides']} == {3, 1}
    strides = [1, *options['strides'], 1]
    y = tf.nn.depthwise_conv2d(
      x, _weight(tf, kernel), strides, 'SAME' if same else padding, dilations=options['dilation']
    )
  else:
    y = tf.nn.conv2d(x, _weight(tf, kernel), options['strides'], padding,
                     dilations=options['dilation'])  # fmt: skip
  return tf.nn.bias_add(y, bias)


def _dense(tf, node: Node, x, kernel, bias):
  return (
    tf.tensordot(x, _weight(tf, kernel), 1) + bias
    if len(node.shape) > 2
    else (tf.matmul(x, _weight(tf, kernel)) + bias)
  )


def _max_pool(tf, node: Node, x):
  options = node.options
  if np.any(options['padding']):  # TensorFlow Lite pools without padding of its own
    x = tf.pad(x, ((0, 0), *options['padding'], (0, 0)), constant_values=x.dtype.min)
  return tf.nn.max_pool2d(x, options['window'], options['strides'], 'VALID')


def _avg_pool(tf, node: Node, x):
  options = node.options
  x = tf.pad(x, ((0, 0), *options['padding'], (0, 0)))
  y = tf.nn.avg_pool2d(x, options['window'], options['strides'], 'VALID')
  if options['count_padding'] or not np.any(options['padding']):
    return y
  return y * (np.prod(options['window']) / pixels_in_windows(node)).astype(np.float32)


def _reduced(name: str) -> Callable:
  def reduce(tf, node: Node, x):
    keep = len(node.shape) == len(node.inputs[0].shape)
    return getattr(tf, name)(x, node.options['axes'], keepdims=keep)

  return reduce


def _slice(tf, node: Node, x):
  options = node.options
  parts = zip(options['starts'][1:], options['ends'][1:], options['steps'][1:], strict=True)
  return x[(slice(None), *(slice(*part) for part in parts))]


def _clip(tf, node: Node, x):
  low, high = node.options['low'], node.options['high']
  if low == 0.0 and high in (None, 6.0):
    return tf.nn.relu6(x) if high else tf.nn.relu(x)
  x = x if low is None else tf.maximum(x, low)
  return x if high is None else tf.minimum(x, high)


def _pad(tf, node: Node, x):
  return tf.pad(x, node.options['padding'], constant_values=node.options['value'])


_OPERATIONS: dict[str, Callable[..., Any]] = {
  'add': lambda tf, node, x, y: x + y,
  'affine': lambda tf, node, x, scale, shift: x * scale + shift,
  'avg_pool': _avg_pool,
  'cast': lambda tf, node, x: tf.cast(x, node.dtype),
  'clip': _clip,
  'concat': lambda tf, node, *xs: tf.concat(xs, node.options['axis']),
  'conv': _conv,
  'dense': _dense,
  'max': _reduced('reduce_max'),
  'max_pool': _max_pool,
  'mean': _reduced('reduce_mean'),
  'mul': lambda tf, node, x, y: x * y,
  'pad': _pad,
  'reshape': lambda tf, node, x: tf.reshape(x, (-1, *node.shape[1:])),
  'sigmoid': lambda tf, node, x: tf.sigmoid(x),
  'slice': _slice,
  'softmax': lambda tf, node, x: tf.nn.softmax(x),
  'tanh': lambda tf, node, x: tf.tanh(x),
  'transpose': lambda tf, node, x: tf.transpose(x, node.options['axes']),
}
