"""A graph as an ONNX file, with the operators and the channels-first maps of PyTorch's exporter."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from senet_jax.errors import UserError
from senet_jax.export import backends, card as cards, formats
from senet_jax.export.card import Card
from senet_jax.export.formats import Call
from senet_jax.export.graph import Graph, Node

LAYOUT = 'NCHW'
ANY_BATCH = True
CARD_INSIDE = True
LIBRARIES = ('onnx', 'onnxruntime')
# ReduceMean's axes are an attribute up to here, and every runtime of the last years has it.
OPSET = 17
_IR_VERSION = 8
BATCH = 'N'


def write(graph: Graph, path: pathlib.Path, card: Card) -> None:
  """Writes a graph, whose maps are `[N, H, W, C]`; those of the file are `[N, C, H, W]`."""
  import onnx
  from onnx import helper

  writer = _Writer()
  for node in graph.nodes():
    if node is graph.images:
      writer.names[node] = 'images'
    else:
      writer.write(node)
  results = {writer.names[node]: name for name, node in graph.outputs.items()}
  for operator in writer.nodes:
    for names in (operator.input, operator.output):
      names[:] = [results.get(name, name) for name in names]

  def described(name: str, node: Node) -> Any:
    shape = [card.batch or BATCH, *_ordered(node.shape)[1:]]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(node.dtype))
    return helper.make_tensor_value_info(name, kind, shape)

  made = helper.make_graph(
    writer.nodes,
    'senet_jax',
    [described('images', graph.images)],
    [described(name, node) for name, node in graph.outputs.items()],
    writer.initializers,
  )
  opset = [helper.make_opsetid('', OPSET)]
  found = helper.make_model(made, opset_imports=opset, ir_version=_IR_VERSION)
  found.producer_name = 'senet_jax'
  helper.set_model_props(found, card.properties())
  onnx.checker.check_model(found, full_check=True)
  path.write_bytes(found.SerializeToString())


def is_one(path: pathlib.Path) -> bool:
  """Returns whether a file begins as an ONNX model does, with its small version number."""
  if not path.is_file():
    return False
  with path.open('rb') as file:
    return file.read(1) == b'\x08' and file.read(1) < b'\x40'


def read_card(path: pathlib.Path) -> Card:
  """Returns the card in a file.

  Raises:
    UserError: the file is damaged, or not made by this package.
  """
  import onnx
  from google.protobuf.message import DecodeError

  try:
    found = onnx.load(path, load_external_data=False)
  except DecodeError as error:
    raise UserError(f'{path} is no ONNX file, or a damaged one.') from error
  return cards.from_properties({p.key: p.value for p in found.metadata_props}, path)


def opened(path: pathlib.Path) -> Call:
  """Opens a file in onnxruntime."""
  return backends.onnxruntime(path)


def run(path: pathlib.Path, batches: list[np.ndarray]) -> list[dict[str, np.ndarray]]:
  """Runs the file in onnxruntime."""
  call = opened(path)
  return [call(formats.in_layout(images, LAYOUT)) for images in batches]


def _order(rank: int) -> tuple[int, ...]:
  """Returns JAX's axes in the order that a file has them: batch, channels, then places."""
  if rank < 3:
    return tuple(range(rank))
  places = (1,) if rank == 3 else (1, 2)
  return (0, *range(len(places) + 1, rank), *places)


def _ordered(shape: Sequence[int]) -> tuple[int, ...]:
  return tuple(shape[axis] for axis in _order(len(shape)))


def _moved(axes: Sequence[int], rank: int) -> list[int]:
  """Returns where a file has some of JAX's axes."""
  return [_order(rank).index(axis) for axis in axes]


class _Writer:
  """Collects the operators and weights of a file.

  Attributes:
    nodes: the operators.
    initializers: the weights.
    names: of the results of the graph's nodes.
  """

  def __init__(self):
    self.nodes: list[Any] = []
    self.initializers: list[Any] = []
    self.names: dict[Node, str] = {}
    self._scope = ''
    self._used: dict[str, int] = {}

  def write(self, node: Node) -> None:
    """Adds the operators of a node of the graph."""
    self._scope = node.scope
    self.names[node] = _OPERATORS[node.op](self, node)

  def add(self, operator: str, *inputs: str, **attributes) -> str:
    """Adds an operator; returns the name of its result."""
    from onnx import helper

    name = self._unique(f'{self._scope}/{operator}' if self._scope else operator)
    self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
    return name

  def inputs(self, node: Node) -> list[str]:
    """Returns the names of what a node takes, its constants in the order of the file."""
    constants = [self.constant(x.transpose(_order(x.ndim))) for x in node.constants]
    return [*(self.names[x] for x in node.inputs), *constants]

  def input(self, node: Node) -> str:
    """Returns the name of the one map that a node takes."""
    (x,) = node.inputs
    return self.names[x]

  def constant(self, x: np.ndarray | np.float32, name: str = 'constant') -> str:
    """Adds a constant; returns its name."""
    from onnx import numpy_helper

    name = self._unique(f'{self._scope}/{name}' if self._scope else name)
    self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(x), name))
    return name

  def weight(self, x: np.ndarray) -> str:
    """Adds a kernel; returns the name of it in float32, in which all is computed."""
    name = self.constant(x, 'weight')
    return name if x.dtype == np.float32 else self.cast(name, 'float32')

  def cast(self, x: str, dtype: str) -> str:
    """Adds a conversion."""
    from onnx import helper

    return self.add('Cast', x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

  def _unique(self, name: str) -> str:
    count = self._used[name] = self._used.get(name, 0) + 1
    return name if count == 1 else f'{name}_{count}'

  def reshaped(self, x: str, old: Sequence[int], new: Sequence[int]) -> str:
    """Adds a reshape from a shape of JAX to another, and what it takes for channels to be last."""
    places = np.arange(np.prod(old)).reshape(old)
    kept = places.transpose(_order(len(old))).ravel()
    if not np.array_equal(kept, places.reshape(new).transpose(_order(len(new))).ravel()):
      x = self.add('Transpose', x, perm=np.argsort(_order(len(old))).tolist())
      x = self._reshape(x, new)
      return self.add('Transpose', x, perm=_order(len(new)))
    return self._reshape(x, _ordered(new))

  def _reshape(self, x: str, shape: Sequence[int]) -> str:
    # 0 takes the size of the batch over.
    return self.add('Reshape', x, self.constant(np.array([0, *shape[1:]], np.int64), 'shape'))


# --- one operation, one function ------------------------------------------------------------------


def _conv(writer: _Writer, node: Node) -> str:
  kernel, bias = node.constants
  fronts, behinds = zip(*node.options['padding'], strict=True)
  return writer.add(
    'Conv',
    writer.input(node),
    writer.weight(np.moveaxis(kernel, (-1, -2), (0, 1))),
    writer.constant(bias, 'bias'),
    dilations=node.options['dilation'],
    group=node.options['groups'],
    kernel_shape=kernel.shape[:-2],
    pads=[*fronts, *behinds],
    strides=node.options['strides'],
  )


def _dense(writer: _Writer, node: Node) -> str:
  """A product of vectors, or of the vector of each pixel, which is a 1x1 convolution."""
  kernel, bias = node.constants
  places = len(node.shape) - 2
  weight = writer.weight(kernel.T.reshape(*kernel.shape[::-1], *(1,) * places))
  inputs = (writer.input(node), weight, writer.constant(bias, 'bias'))
  if places:
    return writer.add('Conv', *inputs, kernel_shape=(1,) * places)
  return writer.add('Gemm', *inputs, transB=1)


def _affine(writer: _Writer, node: Node) -> str:
  scale, shift = node.constants
  statistics = (np.zeros_like(scale), np.ones_like(scale))
  constants = (writer.constant(x) for x in (scale, shift, *statistics))
  return writer.add('BatchNormalization', writer.input(node), *constants, epsilon=0.0)


def _clip(writer: _Writer, node: Node) -> str:
  low, high = node.options['low'], node.options['high']
  if (low, high) == (0.0, None):
    return writer.add('Relu', writer.input(node))
  bounds = ('' if x is None else writer.constant(np.float32(x)) for x in (low, high))
  return writer.add('Clip', writer.input(node), *bounds)


def _pool(operator: str) -> Callable[[_Writer, Node], str]:
  def write(writer: _Writer, node: Node) -> str:
    options = node.options
    fronts, behinds = zip(*options['padding'], strict=True)
    counted = {}
    if operator == 'AveragePool':
      counted['count_include_pad'] = int(options['count_padding'])
    return writer.add(
      operator,
      writer.input(node),
      kernel_shape=options['window'],
      pads=[*fronts, *behinds],
      strides=options['strides'],
      **counted,
    )

  return write


def _reduced(whole: str, operator: str) -> Callable[[_Writer, Node], str]:
  """Returns a function for a reduction, whose operator for all places runtimes fuse best."""

  def write(writer: _Writer, node: Node) -> str:
    shape, axes = node.inputs[0].shape, node.options['axes']
    if len(shape) == 4 and axes == (1, 2):
      y = writer.add(whole, writer.input(node))
      return writer.add('Flatten', y) if len(node.shape) == 2 else y
    y = writer.add(operator, writer.input(node), axes=_moved(axes, len(shape)), keepdims=1)
    kept = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return y if kept == node.shape else writer.reshaped(y, kept, node.shape)

  return write


def _concat(writer: _Writer, node: Node) -> str:
  (axis,) = _moved([node.options['axis']], len(node.shape))
  return writer.add('Concat', *writer.inputs(node), axis=axis)


def _pad(writer: _Writer, node: Node) -> str:
  fronts, behinds = zip(*node.options['padding'], strict=True)
  pads = writer.constant(np.array([*_ordered(fronts), *_ordered(behinds)], np.int64), 'pads')
  value = writer.constant(np.float32(node.options['value']))
  return writer.add('Pad', writer.input(node), pads, value)


def _slice(writer: _Writer, node: Node) -> str:
  options, shape = node.options, node.inputs[0].shape
  parts = list(zip(options['starts'], options['ends'], options['steps'], strict=True))
  axes = [i for i, part in enumerate(parts) if i and part != (0, shape[i], 1)]
  starts, ends, steps = zip(*(parts[i] for i in axes), strict=True)
  numbers = (starts, ends, _moved(axes, len(shape)), steps)
  return writer.add(
    'Slice', writer.input(node), *(writer.constant(np.array(x, np.int64)) for x in numbers)
  )


def _transpose(writer: _Writer, node: Node) -> str:
  rank = len(node.shape)
  axes = [node.options['axes'][axis] for axis in _order(rank)]
  return writer.add('Transpose', writer.input(node), perm=_moved(axes, rank))


def _reshape(writer: _Writer, node: Node) -> str:
  return writer.reshaped(writer.input(node), node.inputs[0].shape, node.shape)


def _plain(operator: str, **attributes) -> Callable[[_Writer, Node], str]:
  def write(writer: _Writer, node: Node) -> str:
    return writer.add(operator, *writer.inputs(node), **attributes)

  return write


_OPERATORS: dict[str, Callable[[_Writer, Node], str]] = {
  'add': _plain('Add'),
  'affine': _affine,
  'avg_pool': _pool('AveragePool'),
  'cast': lambda writer, node: writer.cast(writer.input(node), node.dtype),
  'clip': _clip,
  'concat': _concat,
  'conv': _conv,
  'dense': _dense,
  'max': _reduced('GlobalMaxPool', 'ReduceMax'),
  'max_pool': _pool('MaxPool'),
  'mean': _reduced('GlobalAveragePool', 'ReduceMean'),
  'mul': _plain('Mul'),
  'pad': _pad,
  'reshape': _reshape,
  'sigmoid': _plain('Sigmoid'),
  'slice': _slice,
  'softmax': _plain('Softmax', axis=-1),
  'tanh': _plain('Tanh'),
  'transpose': _transpose,
}
