"""Arrays by the names of another code base to our variables and back, with every mismatch named."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn, traverse_util

from senet_jax import errors
from senet_jax.interop.names import SOURCES, VARIANTS, Layout, Variant, variant_of, variants_of
from senet_jax.layers import HEAD
from senet_jax.models import create_model, model_info

# The share of equal names and shapes from which on weights look like those of a network.
_ALIKE = 0.5

# One of these is the first convolution of each network.
_STEMS = ('stem_conv', 'stem_conv1', 'stem_1/conv', 'stage1_block1/conv')
_HEAD_KERNEL = ('params', HEAD, 'kernel')

_Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
  """One variable.

  Attributes:
    path: ours: collection, modules, leaf.
    own_shape: ours.
    name: theirs.
    shape: theirs.
    layout: between ours and theirs.
  """

  path: tuple[str, ...]
  own_shape: _Shape
  name: str
  shape: _Shape
  layout: Layout

  @property
  def own_name(self) -> str:
    """Our name of it."""
    return '/'.join(self.path)


@functools.cache
def entries(variant_name: str, num_classes: int) -> tuple[Entry, ...]:
  """Returns all variables of a network; computes nothing."""
  variant = VARIANTS[variant_name]
  model = create_model(variant.model, num_classes, **variant.overrides)
  leaves = _shapes(model, model_info(variant.model).image_size)
  found = []
  for path, leaf in sorted(leaves.items(), key=lambda item: item[0][1:]):
    _, *modules, kind = path
    if kind == 'bias' and ('params', *modules, 'scale') in leaves:
      kind = 'shift'
    module = '/'.join(modules)
    layout = variant.naming.layout(module, kind, len(leaf.shape))
    shape = jax.eval_shape(layout.export, leaf).shape
    found.append(Entry(path, leaf.shape, variant.naming.name(module, kind), shape, layout))
  return tuple(found)


# Models are equal if they are built alike, and several variants of a network are.
@functools.cache
def _shapes(model: nn.Module, side: int) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
  images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  init = functools.partial(model.init, train=False)
  return traverse_util.flatten_dict(jax.eval_shape(init, jax.random.key(0), images))


def to_variables(
  variant: Variant, arrays: Mapping[str, np.ndarray], num_classes: int | None = None
) -> dict[str, Any]:
  """Returns our variables from theirs.

  Args:
    variant: whose arrays they are.
    arrays: by their names, float32, in their layout.
    num_classes: of the last layer; None is the published number.

  Returns:
    `params` and `batch_stats`; their arrays are their own.

  Raises:
    UserError: arrays are missing, extra or misshaped; the message lists all of them.
  """
  if num_classes is None:
    num_classes = model_info(variant.model).num_classes
  expected = entries(variant.name, num_classes)
  _check(variant, {e.name: e.shape for e in expected}, arrays)
  return traverse_util.unflatten_dict(
    {e.path: np.array(e.layout.restore(arrays[e.name]), np.float32, order='C') for e in expected}
  )


def to_arrays(variant: Variant, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns their arrays from our variables, the inverse of `to_variables`.

  Raises:
    UserError: the variables are not those of this network.
  """
  flat = traverse_util.flatten_dict(dict(variables))
  ours = {'/'.join(path): np.asarray(x) for path, x in flat.items()}
  head = ours.get('/'.join(_HEAD_KERNEL))
  if head is None or head.ndim != 2:
    raise errors.UserError(f'the variables have no {"/".join(_HEAD_KERNEL)}, the last layer.')
  expected = entries(variant.name, head.shape[-1])
  _check(variant, {e.own_name: e.own_shape for e in expected}, ours)
  return {e.name: np.array(e.layout.export(ours[e.own_name]), order='C') for e in expected}


def classes_in(variant: Variant, arrays: Mapping[str, np.ndarray]) -> int | None:
  """Outputs of the last layer in `arrays`; None if it is not there."""
  kernel = _head_kernel(variant)
  shape = arrays[kernel.name].shape if kernel.name in arrays else ()
  return shape[0] if len(shape) == len(kernel.shape) else None


def _head_kernel(variant: Variant) -> Entry:
  published = model_info(variant.model).num_classes
  return next(e for e in entries(variant.name, published) if e.path == _HEAD_KERNEL)


def choose(
  arrays: Mapping[str, np.ndarray],
  sources: Collection[str],
  model_name: str | None = None,
  variant: str | None = None,
) -> Variant:
  """Returns the variant that `arrays` are of.

  Args:
    arrays: by their names.
    sources: code bases that they may be from.
    model_name: our name of the network; None: that of `variant`.
    variant: None: the one of the network that the arrays look most like; without a network too,
      the one of all.

  Raises:
    UserError: no such network or variant, or the arrays are like none.
  """
  if variant is not None:
    if model_name is None:
      errors.one_of('variant', variant, VARIANTS)
      model_name = VARIANTS[variant].model
    return variant_of(model_name, variant, sources)
  if model_name is not None:
    candidates = variants_of(model_name, sources)
    return max(candidates, key=lambda candidate: _likeness(candidate, arrays))
  found = _look_like(arrays, sources)
  if found is None:
    raise errors.UserError(
      f'the weights are of no network of {", ".join(sources)} that is known here; they begin with '
      f'{", ".join(list(arrays)[:3])}.'
    )
  return found


def _look_like(
  arrays: Mapping[str, np.ndarray], sources: Collection[str] = SOURCES
) -> Variant | None:
  """Returns the network that `arrays` are most probably of; None if they are like none."""
  alike = {
    variant.name: _likeness(variant, arrays)
    for variant in VARIANTS.values()
    if variant.source in sources
    # Only a glance, but it spares building networks of which it is none.
    and any(variant.naming.name(stem, 'kernel') in arrays for stem in _STEMS)
  }
  best = max(alike, key=alike.get, default=None)
  return VARIANTS[best] if best and alike[best] > _ALIKE else None


def _likeness(variant: Variant, arrays: Mapping[str, np.ndarray]) -> float:
  """Returns the share of entries on either side that are on both, for any number of classes."""
  expected = entries(variant.name, model_info(variant.model).num_classes)
  same = sum(e.name in arrays and _alike(e, arrays[e.name].shape) for e in expected)
  return same / max(len(expected), len(arrays))


def _alike(entry: Entry, shape: _Shape) -> bool:
  first = int(entry.path[1] == HEAD)  # of the last layer the first axis is that of the classes
  return len(shape) == len(entry.shape) and shape[first:] == entry.shape[first:]


def _check(
  variant: Variant, expected: Mapping[str, _Shape], arrays: Mapping[str, np.ndarray]
) -> None:
  """Checks that `arrays` have the names and shapes that are `expected`."""
  there = {name: array.shape for name, array in arrays.items()}
  if there == expected:
    return
  of = f'{variant.model} ({variant.name})'
  classes = classes_in(variant, arrays)
  if classes and there == {e.name: e.shape for e in entries(variant.name, classes)}:
    wanted, *_ = expected[_head_kernel(variant).name]
    shapes = '; '.join(_misshaped(expected, there))
    raise errors.UserError(
      f'the weights of {of} are for {classes} classes, not {wanted} ({shapes}). Give '
      f'num_classes={classes} to take them as they are. For a new head, convert them so, and '
      'train with --config.init_from and --config.new_head=True.'
    )
  likely, hint = _look_like(arrays), ''
  if likely and _likeness(likely, arrays) > _likeness(variant, arrays):
    hint = f' They look like those of {likely.name}, here the network {likely.model}.'
  raise errors.UserError(f'these are not the weights of {of}: {mismatches(expected, there)}.{hint}')


def mismatches(expected: Mapping[str, _Shape], there: Mapping[str, _Shape]) -> str:
  """Returns the entries that are missing, extra or misshaped in `there`, for a message."""
  lists = {
    'missing': [name for name in expected if name not in there],
    'extra': [name for name in there if name not in expected],
    'misshaped': _misshaped(expected, there),
  }
  return '; '.join(
    f'{len(names)} {what}: {", ".join(names)}' for what, names in lists.items() if names
  )


def _misshaped(expected: Mapping[str, _Shape], there: Mapping[str, _Shape]) -> list[str]:
  return [
    f'{name} is {_text(there[name])} for {_text(shape)}'
    for name, shape in expected.items()
    if there.get(name, shape) != shape
  ]


def _text(shape: tuple[int, ...]) -> str:
  return 'x'.join(map(str, shape)) or 'a number'
