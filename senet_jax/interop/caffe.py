"""Weights in the `.caffemodel` files of the paper's authors; Caffe is not needed.

The format is a protocol buffer; the few of its fields that hold weights are declared here, by their
numbers in Caffe's public schema. The others are skipped, and nothing in a file is executed.
"""

import functools
import math
import os
import pathlib
from typing import Any

import numpy as np
from flax import traverse_util

from senet_jax.errors import UserError
from senet_jax.interop import mapping
from senet_jax.interop.names import CAFFE, Variant
from senet_jax.interop.storage import needs

# (field, number, kind, repeated) of each message.
_MESSAGES = {
  'BlobShape': (('dim', 1, 'int64', True),),
  'BlobProto': (
    ('num', 1, 'int32', False),
    ('channels', 2, 'int32', False),
    ('height', 3, 'int32', False),
    ('width', 4, 'int32', False),
    ('data', 5, 'float', True),
    ('shape', 7, 'BlobShape', False),
    ('double_data', 8, 'double', True),
  ),
  'LayerParameter': (
    ('name', 1, 'string', False),
    ('type', 2, 'string', False),
    ('blobs', 7, 'BlobProto', True),
  ),
  # Layers of before 2014, whose types are numbers; only to tell that they are there.
  'V1LayerParameter': (),
  'NetParameter': (
    ('name', 1, 'string', False),
    ('layers', 2, 'V1LayerParameter', True),
    ('layer', 100, 'LayerParameter', True),
  ),
}
_PACKAGE = 'senet_jax.caffe'
_COLORS = 3
_MOST_AXES = 32  # Caffe's own limit


def from_caffe(
  path: str | os.PathLike,
  model_name: str | None = None,
  rgb: bool = True,
  num_classes: int | None = None,
) -> dict[str, Any]:
  """Returns the variables of a network from a released `.caffemodel`.

  It wants images on the 0-255 scale, minus the mean of `model_info(model_name).preprocessing`.

  Args:
    path: of the file.
    model_name: our name; None: what the names of the layers look most like.
    rgb: turn the first convolution, which takes blue first in Caffe, so that it takes red first.
    num_classes: of the last layer; None is the published number.

  Returns:
    `params` and `batch_stats`, float32 NumPy arrays.

  Raises:
    UserError: the file is damaged or no `.caffemodel`, or its weights are not those of the network;
      the message lists all that is missing, extra and misshaped.
  """
  arrays = read(path)
  variant = mapping.choose(arrays, CAFFE, model_name)
  return to_variables(variant, arrays, rgb, num_classes)


def to_variables(
  variant: Variant, arrays: dict[str, np.ndarray], rgb: bool = True, num_classes: int | None = None
) -> dict[str, Any]:
  """Returns the variables of a network from the arrays of `read`; see `from_caffe`."""
  variables = mapping.to_variables(variant, arrays, num_classes)
  if rgb:
    kernels = traverse_util.flatten_dict(variables['params']).values()
    stem = next(x for x in kernels if x.ndim == 4 and x.shape[2] == _COLORS)
    stem[:] = stem[:, :, ::-1].copy()
  return variables


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the weights in a `.caffemodel`, float32, by the name of their layer and place in it.

  Of a BatchNorm these are mean and variance, which the file has times a factor.

  Raises:
    UserError: the file is damaged or no `.caffemodel`, or protobuf is not installed.
  """
  data = pathlib.Path(path).read_bytes()
  with needs('protobuf', f'to read {path}'):
    from google.protobuf.message import DecodeError

    message = _message_class('NetParameter')
  try:
    network = message.FromString(data)
  except DecodeError as error:
    raise UserError(f'{path} is damaged or no .caffemodel: {error}.') from error
  if network.layers:
    raise UserError(
      f"{path} has layers in Caffe's format of before 2014; bring it up to date with Caffe's tool "
      'upgrade_net_proto_binary.'
    )
  arrays: dict[str, np.ndarray] = {}
  for layer in network.layer:
    blobs = [_array(blob, f'{path}: {layer.name} blob {i}') for i, blob in enumerate(layer.blobs)]
    if layer.type == 'BatchNorm' and len(blobs) == 3:
      *statistics, factor = blobs
      if factor.size != 1:
        raise UserError(f'{path}: {layer.name} blob 2 has {factor.size} values, not one factor.')
      blobs = [x / (factor.item() or 1.0) for x in statistics]
    arrays |= {f'{layer.name} blob {i}': x.astype(np.float32) for i, x in enumerate(blobs)}
  if not arrays:
    raise UserError(f'{path} is damaged or no .caffemodel: it has no layers with weights.')
  return arrays


def _array(blob, what: str) -> np.ndarray:
  values = np.array(blob.double_data or blob.data, np.float64 if blob.double_data else np.float32)
  if blob.HasField('shape'):
    shape = tuple(blob.shape.dim)
  else:
    # Always four axes, ones in front of those that there are.
    shape = (blob.num, blob.channels, blob.height, blob.width)
    while len(shape) > 1 and shape[0] == 1:
      shape = shape[1:]
  if len(shape) > _MOST_AXES:
    raise UserError(f'{what} has {len(shape)} axes; Caffe has at most {_MOST_AXES}.')
  if min(shape, default=1) < 1 or math.prod(shape) != values.size:
    raise UserError(f'{what} has {values.size} values, which do not make {list(shape)}.')
  return values.reshape(shape)


@functools.cache
def _message_class(name: str):
  from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

  field = descriptor_pb2.FieldDescriptorProto
  file = descriptor_pb2.FileDescriptorProto(name='caffe_weights.proto', package=_PACKAGE)
  for message_name, fields in _MESSAGES.items():
    message = file.message_type.add(name=message_name)
    for field_name, number, kind, repeated in fields:
      added = message.field.add(
        name=field_name,
        number=number,
        label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
      )
      if kind in _MESSAGES:
        added.type, added.type_name = field.TYPE_MESSAGE, f'.{_PACKAGE}.{kind}'
      else:
        added.type = field.Type.Value(f'TYPE_{kind.upper()}')
        added.options.packed = repeated
  pool = descriptor_pool.DescriptorPool()  # of its own: the names of the real schema stay free
  pool.Add(file)
  return message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{_PACKAGE}.{name}'))
