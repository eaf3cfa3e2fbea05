"""Files as `torch.save` writes them, made without torch."""

import io
import pickle
import struct
import zipfile

import numpy as np

_TYPES = {'float32': 'FloatStorage', 'int64': 'LongStorage', 'float64': 'DoubleStorage'}


class Raw:
  """An object that a pickle makes by calling something, whatever that is.

  Attributes:
    code: instructions of the pickle that leave it on the stack.
  """

  def __init__(self, code):
    self.code = code


def called(module, name, *arguments, state=None):
  """What unpickling makes of `module.name(*arguments)` and its attributes `state`."""
  code = f'c{module}\n{name}\n'.encode() + _bare(arguments) + b'R'
  return Raw(code + (_bare(state) + b'b' if state is not None else b''))


def save(content, path, legacy=False):
  """Writes `content`, nested dictionaries of arrays and other things, as torch would."""
  writer = _Writer(legacy)
  code = b'\x80\x02' + writer.code(content) + b'.'
  if legacy:
    path.write_bytes(b''.join([
      pickle.dumps(0x1950A86A20F9469CFC6C, 2), pickle.dumps(1001, 2),
      pickle.dumps({'little_endian': True}, 2), code, pickle.dumps(list(writer.storages), 2),
      *(struct.pack('<q', x.size) + x.tobytes() for x in writer.storages.values()),
    ]))  # fmt: skip
    return
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', code)
    file.writestr('archive/byteorder', 'little')
    for key, array in writer.storages.items():
      file.writestr(f'archive/data/{key}', array.tobytes())


def _bare(value):
  return pickle.dumps(value, 2)[2:-1]


class _Writer:
  def __init__(self, legacy):
    self.legacy, self.storages = legacy, {}

  def code(self, value):
    if isinstance(value, Raw):
      return value.code
    if isinstance(value, np.ndarray):
      return self.tensor(value)
    if isinstance(value, dict):
      items = b''.join(_unmemoized(k) + self.code(v) + b's' for k, v in value.items())
      return b'}' + items
    return _unmemoized(value)

  def tensor(self, array):
    key = str(len(self.storages))
    self.storages[key] = np.ascontiguousarray(array)
    steps = [step // array.itemsize for step in self.storages[key].strides]
    reference = (
      b'(' + _unmemoized('storage') + f'ctorch\n{_TYPES[array.dtype.name]}\n'.encode()
      + _unmemoized(key) + _unmemoized('cpu') + _unmemoized(array.size)
      + (b'N' if self.legacy else b'') + b'tQ'
    )  # fmt: skip
    shape, steps = (_unmemoized(tuple(x)) for x in (array.shape, steps))
    return (
      b'ctorch._utils\n_rebuild_tensor_v2\n(' + reference + _unmemoized(0) + shape + steps
      + b'\x89ccollections\nOrderedDict\n)RtR'
    )  # fmt: skip


def _unmemoized(value):
  """The instructions for a plain value, which do not count on where in the pickle they are."""
  buffer = io.BytesIO()
  pickler = pickle.Pickler(buffer, 2)
  pickler.fast = True
  pickler.dump(value)
  return buffer.getvalue()[2:-1]
