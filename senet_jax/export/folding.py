"""Rewrites a graph so that it computes the same in fewer passes over its maps.

Products and sums with a constant of each channel, which is what normalisation is in inference, go
into the weights and biases of the convolution or product in front of them; zeros around a map into
the padding of the convolution behind; what is left of them becomes one `affine`.
"""

import collections
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from senet_jax.export.graph import Graph, Node

_LINEAR = ('conv', 'dense')
# Says of an input of a node whether no other node has it.
_Only = Callable[[Node], bool]


def folded(graph: Graph) -> Graph:
  """Returns a graph of the same function, in float32."""
  for rule in (_padded, _scaled_before, _scaled_behind, _affine):
    graph = _rewritten(graph, rule)
  return _rewritten(graph, _rounded)


def rounded(graph: Graph, dtype: str) -> Graph:
  """Returns a graph whose weights of convolutions and products are of `dtype`.

  They become float32 again where they are used.
  """

  def rule(node: Node, only: _Only) -> Node:
    if node.op not in _LINEAR:
      return node
    kernel, bias = node.constants
    return node.replace(constants=(kernel.astype(jnp.dtype(dtype)), bias))

  return _rewritten(graph, rule)


def _rewritten(graph: Graph, rule: Callable[[Node, _Only], Node]) -> Graph:
  """Applies `rule` to all nodes, from the images on.

  Args:
    graph: not changed.
    rule: takes a node whose inputs are rewritten, and a function that says of one of them whether
      no other node has it; returns the node that takes its place.
  """
  nodes = graph.nodes()
  uses = collections.Counter(x for node in nodes for x in node.inputs)
  uses.update(graph.outputs.values())
  new: dict[Node, Node] = {}
  used: dict[Node, int] = {}

  for node in nodes:
    inputs = tuple(new[x] for x in node.inputs)
    node_now = node if inputs == node.inputs else node.replace(inputs=inputs)
    new[node] = rule(node_now, lambda x: used[x] == 1)
    used[new[node]] = uses[node]
  return Graph(new[graph.images], {name: new[node] for name, node in graph.outputs.items()})


def _by_channel(node: Node) -> np.ndarray | None:
  """Returns the constant of a node, `[C]`, if it has one number for a channel."""
  channels = node.shape[-1]
  if not node.constants or node.inputs[0].shape != node.shape:
    return None
  (constant,) = node.constants
  if constant.size > 1 and (constant.size, constant.shape[-1]) != (channels, channels):
    return None
  return np.broadcast_to(constant.reshape(-1), (channels,))


def _padded(node: Node, only: _Only) -> Node:
  """A convolution of a map with zeros around it."""
  before = node.inputs[0] if node.op == 'conv' else None
  if before is None or before.op != 'pad' or before.options['value']:
    return node
  first, *inner, last = before.options['padding']
  if any(first) or any(last):
    return node
  padding = tuple(
    (a + c, b + d) for (a, b), (c, d) in zip(inner, node.options['padding'], strict=True)
  )
  return node.replace(inputs=before.inputs, options={**node.options, 'padding': padding})


def _scaled_before(node: Node, only: _Only) -> Node:
  """A convolution without groups of a map times a constant of each channel."""
  before = node.inputs[0] if node.op in _LINEAR else None
  if before is None or before.op != 'mul' or not only(before):
    return node
  scale = _by_channel(before)
  if scale is None or node.options.get('groups', 1) > 1:
    return node
  kernel, *bias = node.constants
  return node.replace(inputs=before.inputs, constants=(kernel * scale[:, None], *bias))


def _scaled_behind(node: Node, only: _Only) -> Node:
  """A product or sum with a constant of each channel, behind a convolution."""
  before = node.inputs[0] if node.op in ('mul', 'add') else None
  if before is None or before.op not in _LINEAR or not only(before):
    return node
  constant = _by_channel(node)
  if constant is None:
    return node
  kernel, *bias = before.constants
  if node.op == 'mul':
    return before.replace(constants=(kernel * constant, *(b * constant for b in bias)))
  return before.replace(constants=(kernel, bias[0] + constant if bias else constant))


def _affine(node: Node, only: _Only) -> Node:
  """A product with and then a sum with a constant of each channel."""
  before = node.inputs[0] if node.op == 'add' else None
  if before is None or before.op != 'mul' or not only(before):
    return node
  scale, shift = _by_channel(before), _by_channel(node)
  if scale is None or shift is None:
    return node
  return node.replace(op='affine', inputs=before.inputs, constants=(scale, shift))


def _rounded(node: Node, only: _Only) -> Node:
  """Constants in float32, and a bias wherever there can be one."""
  constants = [x.astype(np.float32) for x in node.constants]
  if node.op in _LINEAR and len(constants) == 1:
    constants.append(np.zeros(node.shape[-1], np.float32))
  return node.replace(constants=tuple(constants))
