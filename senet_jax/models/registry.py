"""The networks by name: `create_model`, `list_models`, `model_info`."""

import contextlib
import dataclasses
import fnmatch
import importlib
from typing import Any, Final

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike

from senet_jax import errors
from senet_jax.layers import BatchNormConfig, SEConfig

CLASSIFICATION: Final = 'classification'
DETECTION: Final = 'detection'
# Rooms that register networks of other tasks. They import this one, which must not import them: so
# they are loaded by name, when their networks are asked for.
_ROOMS = {DETECTION: 'senet_jax.detection'}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
  """The form in which a network expects its images.

  Attributes:
    mean: of RGB on the 0-255 scale, subtracted; None: the data set's own.
    std: of RGB on the 0-255 scale, divided by; None: the data set's own.
    resize: the shorter side before the centre crop of an evaluation, in pixels; None: as it is.
  """

  mean: tuple[float, ...] | None = None
  std: tuple[float, ...] | None = None
  resize: int | None = None


@dataclasses.dataclass(frozen=True)
class ModelInfo:
  """Facts about a network that are known before it is built.

  Attributes:
    name: the registered name.
    family: of networks that share a builder.
    se: whether it has squeeze-and-excitation.
    paper: the tables of the SENet paper it is in, with the row.
    image_size: the published side of its square images, in pixels.
    num_classes: the published number of classes.
    preprocessing: of its images.
    published: figures of the paper: errors in percent by table, `gflops`, `params`.
    bn_epsilon: of its normalisation, where `bn` is not given.
    task: what it does, `classification` or `detection`.
  """

  name: str
  family: str
  se: bool
  paper: str
  image_size: int
  num_classes: int
  preprocessing: Preprocessing
  published: dict[str, Any]
  bn_epsilon: float = 1e-5
  task: str = CLASSIFICATION


@dataclasses.dataclass(frozen=True)
class _Entry:
  info: ModelInfo
  module: type[nn.Module]
  arguments: dict[str, Any]
  unused: tuple[str, ...]


ENTRIES: dict[str, _Entry] = {}

# Fields of a module that are not overrides: they have arguments of their own, or belong to Flax.
_NOT_OVERRIDES = ('name', 'parent', 'num_classes', 'dtype')
_DTYPES = ('float32', 'bfloat16', 'float16', 'float64')


def register(
  name: str,
  module: type[nn.Module],
  arguments: dict[str, Any],
  *,
  unused: tuple[str, ...] = (),
  **info: Any,
) -> None:
  """Registers a network.

  Args:
    name: of the network.
    module: its class; it has fields `num_classes`, `dtype`, `se` and `bn`.
    arguments: fields of the class that make this network.
    unused: fields that this network has no use for, so that they are no overrides of it.
    **info: the other fields of `ModelInfo`.
  """
  ENTRIES[name] = _Entry(ModelInfo(name=name, **info), module, arguments, unused)


def register_pair(
  name: str,
  module: type[nn.Module],
  arguments: dict[str, Any],
  *,
  unused: tuple[str, ...] = (),
  published: dict[str, Any],
  se_published: dict[str, Any],
  **info: Any,
) -> None:
  """Registers a network under `name` and its SE twin under `se_` + `name`, as of `register`.

  Args:
    name: of the network without SE.
    module: its class.
    arguments: fields of the class that make this network.
    unused: fields that are no overrides of it.
    published: figures of the paper for the network without SE.
    se_published: the same for its twin.
    **info: the other fields of `ModelInfo`.
  """
  register(name, module, arguments, unused=unused, se=False, published=published, **info)
  register(f'se_{name}', module, arguments, unused=unused, se=True, published=se_published, **info)


def list_models(filter: str = '*', task: str = CLASSIFICATION) -> list[str]:
  """Returns the names of networks, sorted.

  Args:
    filter: a pattern of fnmatch that they match.
    task: what they do, `classification` or `detection`.

  Raises:
    UserError: there is no such task.
  """
  errors.one_of('task', task, (CLASSIFICATION, *_ROOMS))
  if task in _ROOMS:
    importlib.import_module(_ROOMS[task])
  names = [name for name, entry in ENTRIES.items() if entry.info.task == task]
  return sorted(fnmatch.filter(names, filter))


def all_models(filter: str = '*') -> list[str]:
  """Returns the names of networks of all tasks that match `filter`, classifiers first."""
  return [name for task in (CLASSIFICATION, *_ROOMS) for name in list_models(filter, task)]


def model_info(name: str) -> ModelInfo:
  """Returns what is known about the network `name`.

  Raises:
    UserError: there is no such network; the message names the closest ones.
  """
  return _entry(name).info


def create_model(
  name: str,
  num_classes: int | None = None,
  dtype: DTypeLike = jnp.float32,
  **overrides: Any,
) -> nn.Module:
  """Builds a network.

  Args:
    name: one of `list_models()`, or of another task.
    num_classes: outputs of the head; None is the published number.
    dtype: of the computation (`float32`, `bfloat16`); parameters, statistics and logits stay
      float32.
    **overrides: fields of the family's module, among them `se`, an `SEConfig` (on a plain name it
      gives the SE twin) or None (the plain twin of an `se_` name), `attention`, a name of
      `layers.register_attention` whose blocks replace SE in residual networks, and `bn`, a
      `BatchNormConfig`; lists are taken as tuples.

  Returns:
    A Flax module: `variables = model.init(key, images, train=False)` with images `[N, H, W, 3]`
    of any float dtype; `logits = model.apply(variables, images, train=False)`, `[N, num_classes]`
    float32. `train=True` needs `mutable=['batch_stats']`. What a detector returns is said by
    `senet_jax.detection.FasterRCNN`.

  Raises:
    UserError: an unknown name or override, or options that do not fit together.
  """
  entry = _entry(name)
  allowed = [f for f in entry.module.__dataclass_fields__ if f not in _NOT_OVERRIDES]
  if 'attention' not in allowed and overrides.pop('attention', 'se') != 'se':
    raise errors.UserError(
      f'model.attention has no effect on {name}: only residual networks (resnet, resnext, wrn, '
      'senet154, shake) can have another one than SE; leave it out.'
    )
  for override in overrides:
    if override not in allowed:
      errors.one_of(f'{name}: the override', override, [*allowed, 'num_classes', 'dtype'])
    if override in entry.unused:
      raise errors.UserError(f'{override} has no effect on {name}; leave it out.')
  overrides = {field: _hashable(value) for field, value in overrides.items()}
  se = overrides.pop('se', SEConfig() if entry.info.se else None)
  if se is not None and not isinstance(se, SEConfig):
    raise errors.UserError(f'se={se!r} must be a senet_jax.layers.SEConfig or None.')
  if se is None and entry.info.se and not name.startswith('se_'):
    raise errors.UserError(f'{name} has no twin without squeeze-and-excitation; leave se=None out.')
  if se is not None and se.without and 'kept_channels' not in allowed:
    raise errors.UserError(
      f'model.se.without={se.without} has no effect on {name}: only residual networks of one path '
      'can do without some of their SE blocks; leave it out.'
    )
  bn = overrides.pop('bn', BatchNormConfig(epsilon=entry.info.bn_epsilon))
  if not isinstance(bn, BatchNormConfig):
    raise errors.UserError(f'bn={bn!r} must be a senet_jax.layers.BatchNormConfig.')
  return entry.module(
    num_classes=_checked_classes(entry.info.num_classes if num_classes is None else num_classes),
    dtype=_checked_dtype(dtype),
    se=se,
    bn=bn,
    **{**entry.arguments, **overrides},
  )


def _hashable(value: Any) -> Any:
  """Returns tuples for lists, so that modules can be kept by their fields."""
  # Named tuples stay what they are.
  return tuple(map(_hashable, value)) if type(value) in (list, tuple) else value


def _checked_classes(num_classes: Any) -> int:
  whole = isinstance(num_classes, int | np.integer) and not isinstance(num_classes, bool)
  if not whole or num_classes < 1:
    raise errors.UserError(f'num_classes={num_classes!r} must be an integer of at least 1.')
  return int(num_classes)


def _checked_dtype(dtype: Any) -> jnp.dtype:
  name = dtype
  with contextlib.suppress(TypeError):
    name = jnp.dtype(dtype).name if dtype is not None else None  # which NumPy takes for float64
  errors.one_of('model.dtype', name, _DTYPES)
  return jnp.dtype(name)


def _entry(name: str) -> _Entry:
  if name not in ENTRIES:
    errors.one_of('model.name', name, all_models())
  return ENTRIES[name]
