"""The graph of the layers that a block computes.

The graph is read from the operations that JAX traces, not from the code of a module or the names in
it: a pooling is where values are summed over a map, an SE block's scaling is where a map is
multiplied by something else that depends on the input. Names of modules only label the operations
that use their variables. So a block that is put together wrongly has another graph.
"""

import collections
import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.extend import core

from senet_jax import errors

_CALLS = (
  'jit',
  'pjit',
  'closed_call',
  'remat2',
  'checkpoint',
  'custom_jvp_call',
  'custom_vjp_call',
)
# They change how a value is kept, not the value.
_SAME_VALUE = (
  'convert_element_type',
  'broadcast_in_dim',
  'squeeze',
  'copy',
  'stop_gradient',
  'optimization_barrier',
)
_KINDS = {'add_any': 'add', 'mul': 'scale', 'logistic': 'sigmoid', 'concatenate': 'concat'}


@dataclasses.dataclass(frozen=True)
class Node:
  """A layer, or what it does with several inputs.

  Attributes:
    kind: `input`, `conv`, `BN`, `ReLU`, `FC` (fully connected), `sigmoid`, `scale` (a product of
      two values), `add`, `concat`, `global avg pooling`, … or else the name that JAX has for
      the operation.
    shape: of the output, usually `[N, H, W, C]`.
    inputs: places of the nodes it reads, in the graph; variables are none.
    detail: window, stride and groups, such as `3x3/2`; or the number in an operation with one.
    module: whose variables it uses, such as `se/fc1`; of several, the first.
  """

  kind: str
  shape: tuple[int, ...]
  inputs: tuple[int, ...] = ()
  detail: str = ''
  module: str = ''

  @property
  def label(self) -> str:
    """Kind and detail."""
    return f'{self.kind} {self.detail}'.rstrip()


# In the order of computation: the first is the input, the last what the block returns.
Graph = list[Node]


@dataclasses.dataclass(frozen=True)
class _Constant:
  """A value that does not depend on the input.

  Attributes:
    value: the number that it is, if it is known.
    variables: those it is computed from, each as collection and module.
  """

  value: float | None = None
  variables: frozenset[tuple[str, str]] = frozenset()


class _Reached(Exception):
  """Ends the tracing of a network at the block that is looked for."""


def block_of(
  network: nn.Module, name: str, image_size: int
) -> tuple[nn.Module, jax.ShapeDtypeStruct]:
  """Returns a block of a network, as the network makes it.

  Args:
    network: a model of the registry.
    name: of the block, such as `stage3_block2`.
    image_size: side of the network's images, in pixels.

  Returns:
    The block by itself, and its input `[1, H, W, C]`.

  Raises:
    UserError: the network has no such block.
  """
  found = {}

  def look(call, args, kwargs, context):
    if context.method_name == '__call__' and len(context.module.path) == 1:
      alone = context.module.clone(parent=None, name=None)
      found[context.module.name] = alone, jax.ShapeDtypeStruct(args[0].shape, args[0].dtype)
      if name in found:
        raise _Reached
    return call(*args, **kwargs)

  images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
  with nn.intercept_methods(look), contextlib.suppress(_Reached):
    jax.eval_shape(lambda images: network.init(jax.random.key(0), images, train=False), images)
  errors.one_of('block', name, found)
  return found[name]


def graph_of(block: nn.Module, x: jax.ShapeDtypeStruct) -> Graph:
  """Returns the graph of what `block(x, train=False)` computes.

  SE that is fused with the BN in front of it takes its squeeze from numbers inside that BN; to see
  the layers of such a block, give it an `SEConfig` with `fused=False`.

  Args:
    block: a module that returns one array.
    x: its input `[N, H, W, C]`.
  """
  variables = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, False), x)
  closed = jax.make_jaxpr(lambda variables, x: block.apply(variables, x, False))(variables, x)
  nodes = [Node('input', x.shape)]
  constants = [_variable(path) for path, _ in jax.tree.flatten_with_path(variables)[0]]
  (last,) = _run(closed, [*constants, 0], nodes)
  if isinstance(last, _Constant):
    raise ValueError('the output does not depend on the input')
  return contracted(_needed(nodes, last), _one_layer)


def _variable(path: tuple) -> _Constant:
  collection, *modules, _ = (entry.key for entry in path)
  return _Constant(variables=frozenset({(collection, '/'.join(modules))}))


def _run(closed: Any, arguments: Sequence[int | _Constant], nodes: Graph) -> list[int | _Constant]:
  """Appends what a jaxpr computes to `nodes`; the values are places in it, or constants."""
  jaxpr = closed.jaxpr
  values = dict(zip(jaxpr.invars, arguments, strict=True))
  values |= {
    var: _constant(const) for var, const in zip(jaxpr.constvars, closed.consts, strict=True)
  }

  def read(atom):
    return _constant(atom.val) if isinstance(atom, core.Literal) else values[atom]

  for eqn in jaxpr.eqns:
    operands = [read(atom) for atom in eqn.invars]
    values |= zip(eqn.outvars, _apply(eqn, operands, nodes), strict=True)
  return [read(atom) for atom in jaxpr.outvars]


def _constant(value: Any) -> _Constant:
  return _Constant(float(value) if np.ndim(value) == 0 and np.isrealobj(value) else None)


def _apply(eqn: Any, operands: list[int | _Constant], nodes: Graph) -> list[int | _Constant]:
  """Returns the results of one equation."""
  name = eqn.primitive.name
  data = [v for v in operands if isinstance(v, int)]
  if not data:
    constants = [v for v in operands if isinstance(v, _Constant)]
    keeps = name in _SAME_VALUE and len(operands) == 1
    union = frozenset().union(*(v.variables for v in constants))
    return [_Constant(constants[0].value if keeps else None, union)] * len(eqn.outvars)
  if name in _CALLS:
    inner = eqn.params.get('jaxpr') or eqn.params['call_jaxpr']
    return _run(inner, operands, nodes)
  if name == 'cond' and None in (eqn.params.get('branches_platforms') or ()):
    # The forms for single platforms compute the same; this is the one for all others.
    chosen = eqn.params['branches_platforms'].index(None)
    return _run(eqn.params['branches'][chosen], operands[1:], nodes)
  if name in _SAME_VALUE or (name == 'reshape' and _squeezed(*_shapes(eqn, 0))):
    return operands
  nodes.append(_node(eqn, operands, data))
  return [len(nodes) - 1] * len(eqn.outvars)


def _shapes(eqn: Any, i: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Returns the shapes of operand `i` and of the result."""
  return eqn.invars[i].aval.shape, eqn.outvars[0].aval.shape


def _squeezed(*shapes: Iterable[int]) -> bool:
  """Returns True if the shapes differ in axes of size 1 only."""
  return len({tuple(size for size in shape if size > 1) for shape in shapes}) == 1


def _node(eqn: Any, operands: list[int | _Constant], data: list[int]) -> Node:
  """Returns the node of one equation that reads `data`."""
  name, params = eqn.primitive.name, eqn.params
  constants = [v for v in operands if isinstance(v, _Constant)]
  variables = frozenset().union(*(c.variables for c in constants))
  value = constants[0].value if len(constants) == 1 else None
  kind, detail = _KINDS.get(name, name), ''
  if name == 'conv_general_dilated' and len(data) == 1:
    kind, detail = 'conv', _convolution(eqn)
  elif name == 'dot_general' and variables:
    kind = 'FC'
  elif name in ('add', 'sub', 'mul', 'div') and len(data) == 1:
    # Of BN, a bias, or the count of a mean; which of them `_one_layer` sees from its neighbour.
    kind = 'BN' if any(collection == 'batch_stats' for collection, _ in variables) else name
    detail = '' if value is None else f'{value:g}'
  elif name == 'max' and value == 0:
    kind = 'ReLU'
  elif name in ('reduce_sum', 'reduce_max') and _is_spatial(eqn):
    kind = 'global max pooling' if name == 'reduce_max' else 'sum'
    detail = '' if name == 'reduce_max' else f'{math.prod(eqn.invars[0].aval.shape[1:3]):g}'
  elif name in ('reduce_window_sum', 'reduce_window_max'):
    kind = 'max pooling' if name.endswith('max') else 'window sum'
    detail = _window(params['window_dimensions'][1:3], params['window_strides'][1:3])
  module = min((module for _, module in variables), default='')
  return Node(kind, eqn.outvars[0].aval.shape, tuple(dict.fromkeys(data)), detail, module)


def _is_spatial(eqn: Any) -> bool:
  return eqn.invars[0].aval.ndim == 4 and tuple(eqn.params['axes']) == (1, 2)


def _window(window: Sequence[int], strides: Sequence[int]) -> str:
  return 'x'.join(map(str, window)) + (f'/{strides[0]}' if strides[0] > 1 else '')


def _convolution(eqn: Any) -> str:
  _, _, *axes = eqn.params['dimension_numbers'].rhs_spec
  kernel, groups = eqn.invars[1].aval.shape, eqn.params['feature_group_count']
  window = _window([kernel[axis] for axis in axes], eqn.params['window_strides'])
  return window + (f', {groups} groups' if groups > 1 else '')


def _needed(nodes: Graph, last: int) -> Graph:
  """Returns the input and all that the node at `last` depends on, with that node at the end."""
  keep, todo = {0}, [last]
  while todo:
    place = todo.pop()
    if place not in keep:
      keep.add(place)
      todo += nodes[place].inputs
  return _picked(nodes, sorted(keep), {place: place for place in keep})


def _picked(nodes: Sequence[Node], places: list[int], stands_for: dict[int, int]) -> Graph:
  """Returns the nodes at `places`, with their inputs replaced as `stands_for` says."""
  new = {place: i for i, place in enumerate(places)}
  return [
    dataclasses.replace(nodes[place], inputs=tuple(new[stands_for[i]] for i in nodes[place].inputs))
    for place in places
  ]


def contracted(graph: Graph, rule: Callable[[Node, Node], Node | None]) -> Graph:
  """Returns the graph with chains of nodes merged.

  Args:
    graph: what to contract.
    rule: gives the node that two become, or None; it is asked where the second reads the first only
      and is alone in reading it, and the node's inputs do not matter.
  """
  readers = collections.Counter(i for node in graph for i in node.inputs)
  nodes, stands_for, gone = list(graph), {}, set()
  for place, node in enumerate(graph):
    stands_for[place] = place
    if len(node.inputs) == 1 and readers[node.inputs[0]] == 1:
      before = stands_for[node.inputs[0]]
      if merged := rule(nodes[before], node):
        nodes[before] = dataclasses.replace(merged, inputs=nodes[before].inputs)
        stands_for[place] = before
        gone.add(place)
  return _picked(nodes, [i for i in range(len(nodes)) if i not in gone], stands_for)


def _one_layer(first: Node, second: Node) -> Node | None:
  """Returns the layer that two operations make: a mean, or two with variables of one module."""
  if (first.kind, second.kind) == ('sum', 'div') and first.detail == second.detail:
    return Node('global avg pooling', first.shape)
  if (first.kind, second.kind) == ('window sum', 'div') and not second.module:
    return Node('avg pooling', second.shape, detail=first.detail)
  if first.module and first.module == second.module and second.kind in ('BN', 'add'):
    return dataclasses.replace(first, shape=second.shape)
  return None


def formula(graph: Graph) -> str:
  """Returns what the block computes from `x` as a formula, such as `add(bn1(conv1(x)), x)`.

  A function is called by its module, or by its kind where it has no variables; the terms of a sum
  are sorted.
  """
  terms: list[str] = []
  for node in graph:
    inputs = [terms[i] for i in node.inputs]
    inputs = sorted(inputs) if node.kind == 'add' else inputs
    terms.append(f'{node.module or node.label}({", ".join(inputs)})' if inputs else 'x')
  return terms[-1]


def description(graph: Graph) -> str:
  """Returns a line for each node: its number, kind, shape and module, and what it reads."""
  return '\n'.join(
    f'{i} {node.label} {"x".join(map(str, node.shape[1:]))} '
    + f'[{node.module}] < {" ".join(map(str, node.inputs))}'
    for i, node in enumerate(graph)
  )
