"""Files that `torch.save` wrote, read without torch and without executing anything in them.

Such a file is a pickle, which may name any function of Python to be called, and the numbers of its
tensors behind it. Here the few names that make tensors and dictionaries have stand-ins; whatever
else is named becomes a `Placeholder`, which keeps what it was given and does nothing. So files of
training scripts can be read too, whose options and counters lie beside the weights.
"""

import io
import math
import pathlib
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from senet_jax.errors import UserError

_STORAGES = {
  'FloatStorage': np.float32,
  'DoubleStorage': np.float64,
  'HalfStorage': np.float16,
  'BFloat16Storage': jnp.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}
# Begins a file of the format before torch 1.6, as a pickled number.
_MAGIC = 0x1950A86A20F9469CFC6C
# Those that a pickle puts objects under, which Python's reader makes room for at once.
_MEMO = ('PUT', 'BINPUT', 'LONG_BINPUT')


class Placeholder:
  """An object of a class that is not known here; nothing of it was executed.

  Attributes:
    what: its class or function.
    state: its attributes by name, as far as the file has them.
  """

  what = ''

  def __init__(self, *_args, **_options):
    self.state: Mapping[str, Any] = {}

  def __setstate__(self, state: Any) -> None:
    self.state = state if isinstance(state, dict) else {}

  def __setitem__(self, key: Any, value: Any) -> None:
    """Ignores what would be put into a container."""

  def append(self, value: Any) -> None:
    """Ignores what would be put into a container."""


class _Inert:
  """Stands for an object of torch, and ignores the attributes that a pickle gives it."""

  def __setstate__(self, state: Any) -> None:
    """Ignores them; of an `OrderedDict` they are the versions of torch's modules."""


class Tensor(_Inert):
  """A tensor in a file, whose numbers are read when they are asked for."""

  def __init__(self, storage: '_Storage', offset: int, shape: tuple, strides: tuple):
    self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

  def array(self) -> np.ndarray:
    """Returns its numbers.

    Raises:
      ValueError: the file has not as many as the tensor has places for; a few bytes could stand for
        terabytes.
    """
    offset, shape, strides = self._offset, self._shape, self._strides
    whole = all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    if not whole or len(shape) != len(strides):
      raise ValueError(f'a tensor of shape {shape} with steps {strides}')
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    size = math.prod(shape)
    if size and (last >= self._storage.count or size > self._storage.count):
      raise ValueError(f'a tensor of shape {shape} of {self._storage.count} numbers')
    values = self._storage.read()
    if not size:
      return np.zeros(shape, values.dtype)
    steps = [step * values.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps, writeable=False)


class _StorageType(_Inert):
  """Stands for a class of torch's storages."""

  def __init__(self, dtype: Any):
    self.dtype = np.dtype(dtype)


class _Storage:
  """The numbers that tensors show.

  Attributes:
    dtype: of each, in the order of bytes of the file.
    count: of the numbers.
  """

  def __init__(self, dtype: np.dtype, count: int, read: Callable[[], bytes]):
    self.dtype, self.count, self._read = dtype, count, read

  def read(self) -> np.ndarray:
    """Returns the numbers, `[count]`."""
    data = self._read()
    if len(data) != self.count * self.dtype.itemsize:
      raise ValueError(f'{len(data)} bytes for {self.count} numbers of {self.dtype}')
    values = np.frombuffer(data, self.dtype)
    return values.astype(self.dtype.newbyteorder('='), copy=False)


class _Dict(_Inert, dict):
  """Stands for `OrderedDict`, which keeps its order as every dictionary does."""


class _Function(_Inert):
  """Stands for a function of torch."""

  def __init__(self, function: Callable[..., Any]):
    self._function = function

  def __call__(self, *args):
    return self._function(*args)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_) -> Any:
  ours = isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)
  return Tensor(storage, offset, shape, strides) if ours else Placeholder()


def _rebuild_from_type(function: Any, _type: Any, args: Any, *_) -> Any:
  return function(*args) if isinstance(function, _Function) else Placeholder()


def _stand_ins() -> dict[tuple[str, str], Any]:
  """Returns what stands for each name that weights need; made anew for every file."""
  tensor, parameter = _Function(_rebuild_tensor), _Function(lambda data, *_: data)
  return {
    ('collections', 'OrderedDict'): _Dict,
    ('torch._utils', '_rebuild_tensor'): tensor,
    ('torch._utils', '_rebuild_tensor_v2'): tensor,
    ('torch._utils', '_rebuild_parameter'): parameter,
    ('torch._utils', '_rebuild_parameter_with_state'): parameter,
    ('torch._tensor', '_rebuild_from_type_v2'): _Function(_rebuild_from_type),
    **{('torch', name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
  }


class _Unpickler(pickle.Unpickler):
  """Makes stand-ins and placeholders, and nothing else."""

  def __init__(self, data: bytes, storage: Callable[..., _Storage] | None):
    super().__init__(io.BytesIO(data))
    self._storage, self._known = storage, _stand_ins()

  def find_class(self, module: str, name: str) -> Any:
    """Returns what stands for `name` of `module`."""
    known = self._known.get((module, name))
    return known or type('_Placeholder', (Placeholder,), {'what': f'{module}.{name}'})

  def persistent_load(self, pid: Any) -> Any:
    """Returns the storage that `pid` names, or the class whose source code lies beside it."""
    match pid:
      case ('storage', _StorageType() as kind, str(key), _, int(count), *view) if self._storage:
        return self._storage(kind.dtype, key, count, *view)
      case ('module', type() as kind, *_):
        return kind
    raise pickle.UnpicklingError('a reference to something that is no storage')


def read(path: pathlib.Path) -> Any:
  """Reads what was given to `torch.save`.

  Returns:
    The same, with `Tensor` for tensors and `Placeholder` for objects that are not known here.

  Raises:
    UserError: it is a TorchScript program.
    Exception: the file is damaged, or torch did not write it.
  """
  if zipfile.is_zipfile(path):
    return _read_zip(path)
  with path.open('rb') as file:
    return _read_legacy(path, file)


def _read_zip(path: pathlib.Path) -> Any:
  """Reads the format of today: the pickle, and a file for each storage."""
  archive = zipfile.ZipFile(path)  # open as long as a tensor refers to it
  entries = {entry.filename: entry for entry in archive.infolist()}
  root = next((name[: -len('data.pkl')] for name in entries if _is_root(name)), None)
  if root is None:
    raise ValueError('there is no data.pkl in it')
  if f'{root}constants.pkl' in entries:
    raise UserError(
      f'{path} is a TorchScript program, of which nothing is run; ask whoever made it for '
      'the weights alone, module.state_dict(), best as .safetensors.'
    )

  def stored(name: str) -> bytes:
    if entries[name].compress_type != zipfile.ZIP_STORED:  # as torch writes; no bombs
      raise ValueError(f'{name} is compressed')
    return archive.read(name)

  order: Any = stored(f'{root}byteorder').decode() if f'{root}byteorder' in entries else 'little'

  def storage(dtype: np.dtype, key: str, count: int) -> _Storage:
    dtype = dtype.newbyteorder(order)
    return _Storage(dtype, count, lambda: stored(f'{root}data/{key}'))

  data = stored(f'{root}data.pkl')
  return _Unpickler(data[: _length(io.BytesIO(data))], storage).load()


def _is_root(name: str) -> bool:
  return name == 'data.pkl' or (name.endswith('/data.pkl') and name.count('/') == 1)


def _read_legacy(path: pathlib.Path, file: io.BufferedReader) -> Any:
  """Reads the format of before torch 1.6: five pickles, and the storages one after another."""
  if _unpickle(file) != _MAGIC:
    raise ValueError('torch did not write it')
  _version, system = _unpickle(file), _unpickle(file)
  order: Literal['<', '>'] = '<' if system.get('little_endian', True) else '>'
  places: dict[str, int] = {}
  sizes: dict[str, int] = {}

  def storage(dtype: np.dtype, key: str, count: int, view: Any = None) -> _Storage:
    dtype = dtype.newbyteorder(order)
    sizes[key] = dtype.itemsize
    if view is None:
      return _Storage(dtype, count, lambda: _part(path, places[key], count * dtype.itemsize))
    _, first, count = view
    start = first * dtype.itemsize
    return _Storage(dtype, count, lambda: _part(path, places[key] + start, count * dtype.itemsize))

  content = _unpickle(file, storage)
  for key in _unpickle(file):
    count = int.from_bytes(file.read(8), 'little' if order == '<' else 'big', signed=True)
    places[key] = file.tell()
    if count < 0 or places[key] + count * sizes[key] > path.stat().st_size:
      raise ValueError(f'it ends within the {count} numbers of a tensor')
    file.seek(count * sizes[key], io.SEEK_CUR)
  return content


def _part(path: pathlib.Path, start: int, size: int) -> bytes:
  with path.open('rb') as file:
    file.seek(start)
    return file.read(size)


def _unpickle(file: io.BufferedReader, storage: Callable[..., _Storage] | None = None) -> Any:
  start = file.tell()
  length = _length(file)
  file.seek(start)
  return _Unpickler(file.read(length), storage).load()


def _length(file: Any) -> int:
  """Returns the bytes of the pickle that begins here, after a look at each of its instructions."""
  start = file.tell()
  for count, (code, argument, _) in enumerate(pickletools.genops(file)):
    if code.name in _MEMO and (argument or 0) > count:
      raise pickle.UnpicklingError(f'object {argument} of {count}')
    if code.name.startswith('EXT'):
      raise pickle.UnpicklingError('a reference to the extensions of another process')
  return file.tell() - start
