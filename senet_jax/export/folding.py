"""Rewrites a graph so that it computes the same in fewer passes over its maps.

Products and sums with a constant of each channel, which is what normalisation is in inference, go
into the weights and biases of the convolution or product in front of them; zeros around a map into
the padding of the convolution behind; what is left of them becomes one `affine`.
"""

import collections
from collections.abc import Callable

import numpy as np

from senet_jax.export.graph import Graph, Node, Value

_LINEAR = ('conv', 'dense')


def folded(graph: Graph) -> Graph:
  """Returns a graph of the same function, in float32."""
  for rule in (_padded, _scaled_before, _scaled_behind, _affine):
    graph = _rewritten(graph, rule)
  return _rewritten(graph, _rounded)


def rounded(graph: Graph, dtype: np.dtype) -> Graph:
  """Returns a graph whose weights of convolutions and products are of `dtype`.

  They become float32 again where they are used.
  """

  def rule(node: Node, only: Callable[[Value], bool]) -> Node:
    if node.op not in _LINEAR:
      return node
    x, kernel, *bias = node.inputs
    return node.replace(inputs=(x, kernel.astype(dtype), *bias))

  return _rewritten(graph, rule)


def _rewritten(graph: Graph, rule: Callable[[Node, Callable[[Value], bool]], Node]) -> Graph:
  """Applies `rule` to all nodes, from the images on.

  Args:
    graph: not changed.
    rule: takes a node whose inputs are rewritten, and a function that says of one of them whether
      no other node has it; returns the node that takes its place.
  """
  nodes = graph.nodes()
  uses = collections.Counter(x for node in nodes for x in node.inputs if isinstance(x, Node))
  uses.update(graph.outputs.values())
  new: dict[Node, Node] = {}
  used: dict[Node, int] = {}

  def only(x: Value) -> bool:
    return isinstance(x, Node) and used.get(x) == 1

  for node in nodes:
    inputs = tuple(new.get(x, x) if isinstance(x, Node) else x for x in node.inputs)
    same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
    new[node] = rule(node if same else node.replace(inputs=inputs), only)
    used[new[node]] = uses[node]
  return Graph(new[graph.images], {name: new[node] for name, node in graph.outputs.items()})


def _by_channel(node: Node) -> np.ndarray | None:
  """Returns the constant of a node, `[C]`, if it has one number for a channel."""
  constant, channels = node.inputs[-1], node.shape[-1]
  if not isinstance(constant, np.ndarray) or node.inputs[0].shape != node.shape:
    return None
  if constant.size > 1 and (constant.size, constant.shape[-1]) != (channels, channels):
    return None
  return np.broadcast_to(constant.reshape(-1), (channels,))


def _padded(node: Node, only) -> Node:
  """A convolution of a map with zeros around it."""
  before = node.inputs[0] if node.op == 'conv' else None
  if not isinstance(before, Node) or before.op != 'pad' or before.options['value']:
    return node
  first, *inner, last = before.options['padding']
  if any(first) or any(last):
    return node
  padding = tuple(
    (a + c, b + d) for (a, b), (c, d) in zip(inner, node.options['padding'], strict=True)
  )
  inputs = (before.inputs[0], *node.inputs[1:])
  return node.replace(inputs=inputs, options={**node.options, 'padding': padding})


def _scaled_before(node: Node, only) -> Node:
  """A convolution without groups of a map times a constant of each channel."""
  before = node.inputs[0] if node.op in _LINEAR else None
  if not only(before) or before.op != 'mul' or node.options.get('groups', 1) > 1:
    return node
  scale = _by_channel(before)
  if scale is None:
    return node
  _, kernel, *bias = node.inputs
  return node.replace(inputs=(before.inputs[0], kernel * scale[:, None], *bias))


def _scaled_behind(node: Node, only) -> Node:
  """A product or sum with a constant of each channel, behind a convolution."""
  if node.op not in ('mul', 'add') or not only(node.inputs[0]):
    return node
  before, constant = node.inputs[0], _by_channel(node)
  if before.op not in _LINEAR or constant is None:
    return node
  x, kernel, *bias = before.inputs
  if node.op == 'mul':
    return before.replace(inputs=(x, kernel * constant, *(b * constant for b in bias)))
  return before.replace(inputs=(x, kernel, bias[0] + constant if bias else constant))


def _affine(node: Node, only) -> Node:
  """A product with and then a sum with a constant of each channel."""
  if node.op != 'add' or not only(node.inputs[0]) or node.inputs[0].op != 'mul':
    return node
  scale, shift = _by_channel(node.inputs[0]), _by_channel(node)
  if scale is None or shift is None:
    return node
  return node.replace(op='affine', inputs=(node.inputs[0].inputs[0], scale, shift))


def _rounded(node: Node, only) -> Node:
  """Constants in float32, and a bias wherever there can be one."""
  inputs = [x if isinstance(x, Node) else np.asarray(x, np.float32) for x in node.inputs]
  if node.op in _LINEAR and len(inputs) == 2:
    inputs.append(np.zeros(node.shape[-1], np.float32))
  return node.replace(inputs=tuple(inputs))
