"""Pieces that families share beside layers: the paper's input and figures, SE in units, checks."""

import fnmatch
from collections.abc import Collection
from typing import Any

import jax

from senet_jax import errors
from senet_jax.layers import SEConfig, SqueezeExcite
from senet_jax.models.registry import Preprocessing

# Image size, classes and preprocessing of the paper's ImageNet recipe (section 5.1: mean
# subtraction only; the means are those of the released models, as RGB).
IMAGENET: dict[str, Any] = {
  'image_size': 224,
  'num_classes': 1000,
  'preprocessing': Preprocessing(mean=(123.0, 117.0, 104.0), std=(1.0, 1.0, 1.0), resize=256),
}


def top_errors(*top: float) -> dict[str, float]:
  """Errors in percent by name: of top-1; top-1 and 5; or top-1, 3 and 5."""
  ranks = {1: (1,), 2: (1, 5), 3: (1, 3, 5)}[len(top)]
  return {f'top{rank}_error': error for rank, error in zip(ranks, top, strict=True)}


def figures(table: str, *top: float, **others: float) -> dict[str, Any]:
  """Returns `published` of a network that is in one table, with errors as `top_errors` has them."""
  return {table: top_errors(*top), **others}


def named_by(path: tuple[str, ...], beginnings: tuple[str, ...]) -> bool:
  """Returns whether a variable has one of these beginnings, which are patterns of fnmatch.

  Args:
    path: of the variable, from the network on.
    beginnings: of paths with slashes, such as `stage2_` or `backbone/*bn`.
  """
  name = '/'.join(path)
  return any(fnmatch.fnmatchcase(name, f'{beginning}*') for beginning in beginnings)


def gated(se: SEConfig | None, position: str, x: jax.Array) -> jax.Array:
  """Gates `x` `[N, H, W, C]` by the SE block `se` of a unit if the unit has it at `position`."""
  if se is None or se.position != position:
    return x
  return SqueezeExcite(se, name='se')(x)


def se_of_stage(se: SEConfig | None, stage: int) -> SEConfig | None:
  """Returns the options for the units of `stage`, None where they have no SE."""
  return se if se is not None and se.in_stage(stage) else None


def check_se(
  se: SEConfig | None, positions: Collection[str], last_stage: int, first_stage: int = 2
) -> None:
  """Checks that a network has a place for its SE blocks.

  Args:
    se: the options, or None.
    positions: where the units of the network can have SE.
    last_stage: of the network; `se.stages` may name `first_stage` to this one.
    first_stage: of the network that can have SE.

  Raises:
    UserError: it has none.
  """
  if se is None:
    return
  errors.one_of('model.se.position', se.position, positions, 'This network has no other place.')
  for stage in () if se.stages == 'all' else se.stages:
    stages = range(first_stage, last_stage + 1)
    errors.one_of('model.se.stages', stage, stages, 'These are its stages.')


def check_dropout(rate: float, field: str = 'dropout') -> None:
  """Checks a rate of dropout, or of the `field` of that name.

  Raises:
    UserError: it is not a share below 1.
  """
  if not 0 <= rate < 1:
    raise errors.UserError(f'model.{field}={rate} must be at least 0 and below 1.')
