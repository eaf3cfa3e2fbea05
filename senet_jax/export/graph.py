"""A network's inference as a graph of a dozen plain operations, read from its own program.

JAX traces the network on one image; what follows from the variables alone is computed, and what is
left becomes nodes. Derivatives, choices by platform and the way in which an operation was called
are gone. All formats are made of this graph.

Every map and vector in it has the batch for its first axis: the size 1 of the trace stands for any.
Channels are last, as in JAX. Constants are NumPy arrays.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from senet_jax.errors import UserError
from senet_jax.layers import plain_derivatives

# A product with a constant that differs from 1 by no more is left out: 49 · (1 / 49).
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
  """An operation and its result.

  Attributes:
    op: `input`, `conv`, `dense`, `add`, `mul`, `affine`, `clip`, `sigmoid`, `tanh`, `softmax`,
      `max_pool`, `avg_pool`, `mean`, `max`, `concat`, `pad`, `slice`, `reshape`, `transpose` or
      `cast`.
    inputs: the maps and vectors that it takes.
    constants: what it takes behind them: kernel and bias, scale and shift, one factor.
    shape: of the result for one image.
    dtype: of the result, a name.
    options: of the operation.
    scope: the modules that it is in, `stage2_block1/conv1`.
  """

  op: str
  inputs: tuple['Node', ...]
  shape: tuple[int, ...]
  dtype: str = 'float32'
  constants: tuple[np.ndarray, ...] = ()
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  scope: str = ''

  def replace(self, **changes) -> 'Node':
    """Returns the node with other fields."""
    return dataclasses.replace(self, **changes)


Value = Node | np.ndarray


@dataclasses.dataclass(frozen=True)
class Graph:
  """Operations from `images` to the outputs.

  Attributes:
    images: the node `input`.
    outputs: by name.
  """

  images: Node
  outputs: dict[str, Node]

  def nodes(self) -> list[Node]:
    """Returns all nodes that an output needs, each behind its inputs."""
    found: dict[Node, None] = {self.images: None}
    stack = [(node, False) for node in reversed(self.outputs.values())]
    while stack:
      node, ready = stack.pop()
      if node in found:
        continue
      if ready:
        found[node] = None
        continue
      stack.append((node, True))
      stack += [(x, False) for x in reversed(node.inputs)]
    return list(found)


def trace(
  function: Callable[..., Mapping[str, jax.Array]],
  variables: Mapping[str, Any],
  shape: Sequence[int],
  dtype: str,
) -> Graph:
  """Returns the graph of a function of variables and images.

  Args:
    function: takes the variables and images `[N, *shape]`; returns arrays `[N, …]` by name. Of the
      images no one is mixed with another.
    variables: a tree of arrays.
    shape: `(H, W, C)` of the images.
    dtype: of the images.

  Raises:
    UserError: the network has an operation that is not among those of `Node`.
  """
  leaves, tree = jax.tree.flatten(variables)
  images = jax.ShapeDtypeStruct((1, *shape), dtype)
  names: list[str] = []

  def flat(leaves, images):
    outputs = function(jax.tree.unflatten(tree, leaves), images)
    names[:] = outputs
    return tuple(outputs.values())

  with plain_derivatives():
    closed = jax.make_jaxpr(flat)([jax.typeof(x) for x in leaves], images)
  node = Node('input', (), images.shape, np.dtype(dtype).name)
  constants = [np.asarray(x) for x in leaves]
  results: Any = _Reader().run(closed.jaxpr, closed.consts, [*constants, node], '')
  return Graph(node, dict(zip(names, results, strict=True)))


class _Reader:
  """Turns the equations of a program into nodes, and computes those of constants."""

  def run(
    self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Value], scope: str
  ) -> list[Value]:
    """Returns the results of `jaxpr` for `args`."""
    env: dict[Any, Value] = {}
    env.update(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
    env.update(zip(jaxpr.invars, args, strict=True))

    def value(atom: Any) -> Value:
      return np.asarray(atom.val) if isinstance(atom, core.Literal) else env[atom]

    for eqn in jaxpr.eqns:
      inner = '/'.join(filter(None, (scope, str(eqn.source_info.name_stack))))
      results = self._equation(eqn, [value(v) for v in eqn.invars], inner)
      env.update(zip(eqn.outvars, results, strict=True))
    return [value(v) for v in jaxpr.outvars]

  def _equation(self, eqn: Any, args: list[Value], scope: str) -> list[Value]:
    name, params = eqn.primitive.name, eqn.params
    if name == 'platform_index':
      # A program for any platform.
      return [np.asarray([p is None for p in params['platforms']].index(True), np.int32)]
    if name == 'cond':
      index, *args = args
      assert isinstance(index, np.ndarray)  # of the platform, see above
      called = params['branches'][int(index)]
    else:
      called = params.get('jaxpr', params.get('call_jaxpr'))
    if called is not None:
      return self.run(called.jaxpr, called.consts, args, scope)
    if name in _IDENTITIES:
      return args
    constants = [x for x in args if isinstance(x, np.ndarray)]
    if len(constants) == len(args):
      return [*_constants(eqn, constants)]
    if name not in _READERS:
      raise UserError(f'{scope}: {name} has no form in exported files.')
    (out,) = eqn.outvars
    node = _READERS[name](args, params, out.aval.shape)
    if not node.scope:
      node = node.replace(scope=scope)
    if node.shape != out.aval.shape or node.shape[:1] != (1,):
      raise UserError(f'{scope}: {name} loses the axis of the batch.')
    return [node]


_IDENTITIES = ('stop_gradient', 'optimization_barrier', 'copy', 'copy_p')


def _double(function: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
  """Returns a function that computes in float64, to be rounded once, where JAX has floats."""

  def compute(*args):
    wide = (x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x for x in args)
    return function(*wide)

  return compute


_NUMPY: dict[str, Callable[..., np.ndarray]] = {
  'add': _double(np.add),
  'sub': _double(np.subtract),
  'mul': _double(np.multiply),
  'div': _double(np.divide),
  'neg': np.negative,
  'rsqrt': _double(lambda x: 1 / np.sqrt(x)),
}


def _constants(eqn: Any, args: list[np.ndarray]) -> list[np.ndarray]:
  """Returns the results of an equation of constants."""
  name, params = eqn.primitive.name, eqn.params
  if name in _NUMPY:
    return [_NUMPY[name](*args)]
  if name in ('reshape', 'squeeze'):
    return [args[0].reshape(eqn.outvars[0].aval.shape)]
  if name == 'broadcast_in_dim':
    return [_broadcast(args[0], params['broadcast_dimensions'], params['shape'])]
  with jax.ensure_compile_time_eval():
    given = [jnp.asarray(x, v.aval.dtype) for x, v in zip(args, eqn.invars, strict=True)]
    results = eqn.primitive.bind(*given, **params)
  return list(map(np.asarray, results if eqn.primitive.multiple_results else [results]))


def _broadcast(x: np.ndarray, axes: Sequence[int], shape: Sequence[int]) -> np.ndarray:
  aligned = [1] * len(shape)
  for axis, size in zip(axes, x.shape, strict=True):
    aligned[axis] = size
  return np.broadcast_to(x.reshape(aligned), shape)


# --- one primitive of JAX, one function -----------------------------------------------------------


def _mul(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, y = args if isinstance(args[0], Node) else reversed(args)
  assert isinstance(x, Node)  # or both were constants
  return _times(x, y, shape) if isinstance(y, np.ndarray) else Node('mul', (x, y), shape)


def _times(x: Node, constant: np.ndarray, shape: tuple[int, ...]) -> Node:
  """Returns `x` times a constant; of several only one is left, and none if it is 1."""
  if x.op == 'mul' and x.constants:
    return _times(x.inputs[0], x.constants[0] * constant, shape)
  if x.op == 'avg_pool' and x.options['count_padding'] and _is_by_pixels(x, constant):
    return x.replace(options={**x.options, 'count_padding': False})
  if x.shape == shape and np.all(np.abs(constant - 1) < _ROUNDING):
    return x
  return Node('mul', (x,), shape, constants=(_smallest(constant),))


def _smallest(constant: np.ndarray) -> np.ndarray:
  """Returns a scalar for an array that has the same number everywhere."""
  if constant.size and constant.ndim and np.all(constant == constant.flat[0]):
    return np.asarray(constant.flat[0])
  return constant


def _is_by_pixels(pool: Node, constant: np.ndarray) -> bool:
  """Returns whether a factor makes averages over windows those over pixels of the image alone."""
  pixels = pixels_in_windows(pool)
  whole = np.prod(pool.options['window'])
  return bool((pixels < whole).any() and np.allclose(constant * pixels, whole, rtol=1e-6, atol=0))


def pixels_in_windows(pool: Node) -> np.ndarray:
  """Returns how many pixels of the image are in each window of an `avg_pool`, `[1, H, W, 1]`."""
  counts = []
  for size, window, stride, (front, _), outputs in zip(
    pool.inputs[0].shape[1:3],
    pool.options['window'],
    pool.options['strides'],
    pool.options['padding'],
    pool.shape[1:3],
    strict=True,
  ):
    first = np.arange(outputs) * stride - front
    counts.append(np.minimum(first + window, size) - np.maximum(first, 0))
  return np.multiply.outer(*counts).astype(np.float64)[None, :, :, None]


def _add(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, y = args if isinstance(args[0], Node) else reversed(args)
  assert isinstance(x, Node)  # or both were constants
  if isinstance(y, np.ndarray):
    return Node('add', (x,), shape, constants=(_smallest(y),))
  return Node('add', (x, y), shape)


def _sub(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, y = args
  minus = -y if isinstance(y, np.ndarray) else _times(y, np.asarray(-1.0), y.shape)
  return _add((x, minus), params, shape)


def _div(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, y = _map_and_constant(args)
  return _times(x, 1 / y.astype(np.float64), shape)


def _max(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, bound = _with_scalar(args)
  return Node('clip', (x,), shape, options={'low': bound, 'high': None})


def _min(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, bound = _with_scalar(args)
  low = None
  if x.op == 'clip' and x.options['high'] is None:
    x, low = x.inputs[0], x.options['low']
  return Node('clip', (x,), shape, options={'low': low, 'high': bound})


def _with_scalar(args: Sequence[Value]) -> tuple[Node, float]:
  x, y = args if isinstance(args[0], Node) else reversed(args)
  if isinstance(x, Node) and isinstance(y, np.ndarray) and np.all(y == y.flat[0]):
    return x, float(y.flat[0])
  raise UserError('the larger or smaller of two maps has no form in exported files.')


def _map_and_constant(args: Sequence[Value]) -> tuple[Node, np.ndarray]:
  x, constant = args
  if isinstance(x, Node) and isinstance(constant, np.ndarray):
    return x, constant
  raise UserError(
    'a constant where a map is wanted, or the other way round, has no form in exported files.'
  )


def _map(args: Sequence[Value]) -> Node:
  (x,) = args
  assert isinstance(x, Node)
  return x


def _conv(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, kernel = _map_and_constant(args)
  spatial = len(shape) - 2
  lhs, rhs, out = params['dimension_numbers']
  last = (0, spatial + 1, *range(1, spatial + 1))
  plain = params['batch_group_count'] == 1 and set(params['lhs_dilation']) == {1}
  if lhs != last or out != last or rhs != (spatial + 1, spatial, *range(spatial)) or not plain:
    raise UserError('this kind of convolution has no form in exported files.')
  options = {
    'strides': tuple(params['window_strides']),
    'padding': tuple(map(tuple, params['padding'])),
    'dilation': tuple(params['rhs_dilation']),
    'groups': params['feature_group_count'],
  }
  return Node('conv', (x,), shape, constants=(kernel,), options=options)


def _dense(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, kernel = _map_and_constant(args)
  axes = [list(axes) for pair in params['dimension_numbers'] for axes in pair]
  if axes != [[len(x.shape) - 1], [0], [], []] or kernel.ndim != 2:
    raise UserError('this kind of product has no form in exported files.')
  return Node('dense', (x,), shape, constants=(kernel,))


def _reduce_sum(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x = _map(args)
  count = np.prod([x.shape[axis] for axis in params['axes']])
  mean = Node('mean', (x,), shape, options={'axes': tuple(params['axes'])})
  return _times(mean, np.asarray(float(count)), shape)


def _reduce_max(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  return Node('max', (_map(args),), shape, options={'axes': tuple(params['axes'])})


def _window(params: Any) -> dict[str, Any]:
  outer = (params['window_dimensions'][0], params['window_dimensions'][-1])
  dilated = {*params['base_dilation'], *params['window_dilation']} != {1}
  if len(params['window_dimensions']) != 4 or outer != (1, 1) or dilated:
    raise UserError('this kind of pooling has no form in exported files.')
  return {
    'window': tuple(params['window_dimensions'][1:3]),
    'strides': tuple(params['window_strides'][1:3]),
    'padding': tuple(map(tuple, params['padding'][1:3])),
  }


def _max_pool(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  return Node('max_pool', (_map(args),), shape, options=_window(params))


def _window_sum(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  options = {**_window(params), 'count_padding': True}
  pool = Node('avg_pool', (_map(args),), shape, options=options)
  return _times(pool, np.asarray(float(np.prod(options['window']))), shape)


def _reshape(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x = _map(args)
  if x.shape == shape:
    return x
  if x.op == 'reshape':
    return _reshape(x.inputs, params, shape)
  if x.op == 'mul' and x.constants and not x.constants[0].ndim:
    return _times(_reshape(x.inputs, params, shape), x.constants[0], shape)
  if x.op in ('mean', 'max'):
    axes, sizes = x.options['axes'], enumerate(x.inputs[0].shape)
    if shape == tuple(1 if axis in axes else size for axis, size in sizes):
      return x.replace(shape=shape)
  return Node('reshape', (x,), shape)


def _broadcast_in_dim(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x = _map(args)
  aligned = [1] * len(shape)
  for axis, size in zip(params['broadcast_dimensions'], x.shape, strict=True):
    aligned[axis] = size
  x = _reshape([x], params, tuple(aligned))
  return x if x.shape == shape else Node('mul', (x,), shape, constants=(np.ones(shape),))


def _transpose(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  return Node('transpose', (_map(args),), shape, options={'axes': tuple(params['permutation'])})


def _concatenate(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  maps = tuple(_map([x]) for x in args)
  return Node('concat', maps, shape, options={'axis': params['dimension']})


def _pad(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, value = _map_and_constant(args)
  pads = tuple(map(tuple, params['padding_config']))
  if any(inside or min(front, behind) < 0 for front, behind, inside in pads):
    raise UserError('this kind of padding has no form in exported files.')
  padding = tuple((front, behind) for front, behind, _ in pads)
  return Node('pad', (x,), shape, options={'padding': padding, 'value': float(value)})


def _slice(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x = _map(args)
  if x.shape == shape:
    return x
  options = {
    'starts': tuple(params['start_indices']),
    'ends': tuple(params['limit_indices']),
    'steps': tuple(params['strides'] or (1,) * len(shape)),
  }
  return Node('slice', (x,), shape, options=options)


def _cast(args: Sequence[Value], params: Any, shape: tuple[int, ...]) -> Node:
  x, dtype = _map(args), np.dtype(params['new_dtype']).name
  return x if x.dtype == dtype else Node('cast', (x,), shape, dtype)


def _same(op: str) -> Callable[..., Node]:
  return lambda args, params, shape: Node(op, (_map(args),), shape)


_READERS: dict[str, Callable[[Sequence[Value], Any, tuple[int, ...]], Node]] = {
  'add': _add,
  'broadcast_in_dim': _broadcast_in_dim,
  'concatenate': _concatenate,
  'conv_general_dilated': _conv,
  'convert_element_type': _cast,
  'div': _div,
  'dot_general': _dense,
  'logistic': _same('sigmoid'),
  'max': _max,
  'min': _min,
  'mul': _mul,
  'pad': _pad,
  'reduce_max': _reduce_max,
  'reduce_sum': _reduce_sum,
  'reduce_window_max': _max_pool,
  'reduce_window_sum': _window_sum,
  'reshape': _reshape,
  'slice': _slice,
  'squeeze': _reshape,
  'sub': _sub,
  'tanh': _same('tanh'),
  'transpose': _transpose,
}
