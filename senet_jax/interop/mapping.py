"""Arrays by the names of another code base to our variables and back, with every mismatch named."""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn, traverse_util

from senet_jax import errors
from senet_jax.interop.names import SOURCES, VARIANTS, Layout, Variant, variant_of, variants_of
from senet_jax.models import create_model, model_info

# The share of equal names and shapes from which on weights look like those of a network.
_ALIKE = 0.5

# One of these is the first convolution of each network.
_STEMS = ('stem_conv', 'stem_conv1', 'stem_1/conv', 'stage1_block1/conv', 'backbone/stem_conv')

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

  @property
  def module(self) -> str:
    """The path of the module that it is of."""
    return '/'.join(self.path[1:-1])


@functools.cache
def entries(variant_name: str, num_classes: int) -> tuple[Entry, ...]:
  """All variables of a network; nothing is computed."""
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
  """Our variables from theirs.

  Args:
    variant: whose arrays they are.
    arrays: by their names, float32, in their layout.
    num_classes: of the last layer; None is the published number.

  Returns:
    `params` and `batch_stats`; their arrays are their own.

  Raises:
    UserError: arrays are missing, extra or misshaped, and the message lists all of them; or their
      numbers are not finite.
  """
  if num_classes is None:
    num_classes = model_info(variant.model).num_classes
  expected = entries(variant.name, num_classes)
  _check(variant, {e.name: e.shape for e in expected}, arrays)
  check_finite(arrays)
  return traverse_util.unflatten_dict(
    {e.path: np.array(e.layout.restore(arrays[e.name]), np.float32, order='C') for e in expected}
  )


def check_finite(arrays: Mapping[str, np.ndarray]) -> None:
  """Checks that all `arrays` are finite numbers.

  Raises:
    UserError: some are not; the message names the first of them.
  """
  wrong = [name for name, x in arrays.items() if not np.isfinite(x).all()]
  if wrong:
    raise errors.UserError(
      f'{len(wrong)} of the {len(arrays)} weights hold NaN or infinity, the first is {wrong[0]}; '
      'the training that saved them had diverged: take an earlier checkpoint.'
    )


def to_arrays(variant: Variant, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Their arrays from our variables, the inverse of `to_variables`.

  Raises:
    UserError: the variables are not those of this network.
  """
  flat = traverse_util.flatten_dict(dict(variables))
  ours = {'/'.join(path): np.asarray(x) for path, x in flat.items()}
  name = f'params/{variant.heads[0]}/kernel'
  head = ours.get(name)
  if head is None or head.ndim != 2:
    raise errors.UserError(f'the variables have no {name}, the last layer.')
  expected = entries(variant.name, head.shape[-1] - variant.background)
  _check(variant, {e.own_name: e.own_shape for e in expected}, ours)
  return {e.name: np.array(e.layout.export(ours[e.own_name]), order='C') for e in expected}


def classes_in(variant: Variant, arrays: Mapping[str, np.ndarray]) -> int | None:
  """Outputs of the last layer in `arrays`; None if it is not there."""
  kernel = _head_kernel(variant)
  shape = arrays[kernel.name].shape if kernel.name in arrays else ()
  if len(shape) != len(kernel.shape):
    return None
  return shape[_class_axis(kernel)] - variant.background


def _class_axis(kernel: Entry) -> int:
  """The axis of their last layer that our last one is."""
  classes = kernel.own_shape[-1]
  # Only of detectron2's deltas, which are none for the background, none has as many.
  return next((i for i, n in enumerate(kernel.shape) if n == classes), 0)


def _head_kernel(variant: Variant) -> Entry:
  published = model_info(variant.model).num_classes
  path = ('params', *variant.heads[0].split('/'), 'kernel')
  return next(e for e in entries(variant.name, published) if e.path == path)


def choose(
  arrays: Mapping[str, np.ndarray],
  sources: Collection[str],
  model_name: str | None = None,
  variant: str | None = None,
  says: str | None = None,
) -> Variant:
  """The variant that `arrays` are of.

  Args:
    arrays: by their names.
    sources: code bases that they may be from.
    model_name: our name of the network; None: that of `variant`.
    variant: None: the one of the network that the arrays look most like; without a network too,
      the one of all.
    says: the network that the file with the arrays says it is of; None: it says nothing.

  Raises:
    UserError: no such network or variant, the arrays are like none, or the file says something that
      no variant is called.
  """
  if variant is not None:
    if model_name is None:
      errors.one_of('variant', variant, VARIANTS)
      model_name = VARIANTS[variant].model
    return variant_of(model_name, variant, sources)
  candidates = variants_of(model_name, sources) if model_name else find_candidates(arrays, sources)
  best = _most_alike(candidates, arrays)
  if best is None or (not model_name and _likeness(best, arrays) <= _ALIKE):
    raise errors.UserError(
      f'the weights are of no network of {", ".join(sources)} that is known here; they begin with '
      f'{", ".join(list(arrays)[:3])}.'
    )
  if not _names_a_network(says):
    return best
  called = _most_alike(
    [v for v in candidates if _plain_name(v.name.partition(':')[2]) == _plain_name(says)], arrays
  )
  if called is None or _likeness(called, arrays) < _likeness(best, arrays):
    raise errors.UserError(
      f'the file says that it is {says!r}, and its weights have the names and shapes of '
      f'{best.name}: perhaps another function. If it is the same, give variant={best.name} '
      f'(--variant={best.name}).'
    )
  return called


def checked_by(variant: Variant, arrays: Mapping[str, np.ndarray], says: str | None) -> str:
  """Returns, in words, what is known about `arrays` that `choose` took for those of `variant`."""
  if _names_a_network(says):
    if _plain_name(variant.name.partition(':')[2]) == _plain_name(says):
      return f'the file says that it is {says}'
    return f'the file says that it is {says}; taken for {variant.name} as was asked for'
  alike = [
    v.name
    for v in VARIANTS.values()
    if (v.model, v.naming) == (variant.model, variant.naming)
    and (v.images, v.overrides) != (variant.images, variant.overrides)
    and _likeness(v, arrays) == _likeness(variant, arrays)
  ]
  others = f' fit {", ".join(alike)} too, which differ in options or images' if alike else ''
  return (
    'the file does not say what network it is of: only names and shapes were checked'
    f'{"; they" + others if others else ""}'
  )


def _names_a_network(says: str | None) -> TypeGuard[str]:
  """Returns whether it is more than a class, as timm's `resnet` without options is."""
  return says is not None and any(map(str.isdigit, says))


def _plain_name(name: str) -> str:
  """A name without the hub's owner in front, the recipe behind, and what spellings differ in."""
  return re.sub('[-_]', '', re.sub(r'^.*[/:]', '', name).partition('.')[0].lower())


def find_candidates(
  arrays: Mapping[str, np.ndarray], sources: Collection[str] = SOURCES
) -> list[Variant]:
  """Returns the variants whose names `arrays` has, by a glance that builds no network."""
  found = [
    variant
    for variant in VARIANTS.values()
    if variant.source in sources
    and any(variant.naming.name(stem, 'kernel') in arrays for stem in _STEMS)
  ]
  for glance in (_has_head, _has_depths):
    found = [variant for variant in found if glance(variant, arrays)] or found
  return found


def _has_head(variant: Variant, arrays: Mapping[str, np.ndarray]) -> bool:
  return variant.naming.name(variant.heads[0], 'kernel') in arrays


def _has_depths(variant: Variant, arrays: Mapping[str, np.ndarray]) -> bool:
  """Returns whether each stage ends with the same unit as in a network that counts units."""
  depths = getattr(create_model(variant.model, **variant.overrides), 'depths', ())
  kernels = ('conv1', 'depthwise_conv', 'branch1/conv')

  def there(stage: int, block: int) -> bool:
    unit = f'stage{stage}_block{block}'
    return any(variant.naming.name(f'{unit}/{k}', 'kernel') in arrays for k in kernels)

  first = next((s for s in (1, 2, 3) if there(s, 1)), 1)
  return all(
    there(stage, depth) and not there(stage, depth + 1)
    for stage, depth in enumerate(depths, start=first)
  )


def _most_alike(variants: Collection[Variant], arrays: Mapping[str, np.ndarray]) -> Variant | None:
  return max(variants, key=lambda variant: _likeness(variant, arrays), default=None)


def _look_like(arrays: Mapping[str, np.ndarray]) -> Variant | None:
  """The network that `arrays` are most probably of; None if they are like none."""
  best = _most_alike(find_candidates(arrays), arrays)
  return best if best and _likeness(best, arrays) > _ALIKE else None


def _likeness(variant: Variant, arrays: Mapping[str, np.ndarray]) -> float:
  """The share of entries on either side that are on both, for any number of classes."""
  expected = entries(variant.name, model_info(variant.model).num_classes)
  same = sum(
    e.name in arrays and _alike(e, arrays[e.name].shape, e.module in variant.heads)
    for e in expected
  )
  return same / max(len(expected), len(arrays))


def _alike(entry: Entry, shape: _Shape, of_head: bool) -> bool:
  if len(shape) != len(entry.shape):
    return False
  free = _class_axis(entry) if of_head else None
  return all(a == b for i, (a, b) in enumerate(zip(shape, entry.shape, strict=True)) if i != free)


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
    head = _head_kernel(variant)
    wanted = expected[head.name][_class_axis(head)] - variant.background
    shapes = '; '.join(_misshaped(expected, there))
    raise errors.UserError(
      f'the weights of {of} are for {classes} classes, not {wanted} ({shapes}). Give '
      f'num_classes={classes} to take them as they are. For a new head, convert them so, and '
      'train with --config.init_from and --config.new_head=True.'
    )
  likely, hint = _look_like(arrays), ''
  if likely and _likeness(likely, arrays) > _likeness(variant, arrays):
    hint = f' They look like those of {likely.name}, here the network {likely.model}.'
  missing = expected.keys() - there.keys()
  if missing and missing == _head_names(variant):
    hint = (
      ' All but the last layer is there: tools.convert takes such weights, for runs with '
      '--config.init_from and --config.new_head=True.'
    )
  raise errors.UserError(f'these are not the weights of {of}: {mismatches(expected, there)}.{hint}')


def _head_names(variant: Variant) -> set[str]:
  return {variant.naming.name(head, kind) for head in variant.heads for kind in ('kernel', 'bias')}


def with_head(variant: Variant, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """`arrays`, with a last layer of zeros for the published classes if they have none."""
  if _head_names(variant) & arrays.keys():
    return dict(arrays)
  published = entries(variant.name, model_info(variant.model).num_classes)
  zeros = {e.name: np.zeros(e.shape, np.float32) for e in published if e.module in variant.heads}
  return {**arrays, **zeros}


def mismatches(expected: Mapping[str, _Shape], there: Mapping[str, _Shape]) -> str:
  """All entries that are missing, extra or misshaped in `there`, for a message."""
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
