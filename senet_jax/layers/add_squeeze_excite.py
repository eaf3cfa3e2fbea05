"""Squeeze-and-excitation for any Flax module, without editing it."""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import linen as nn, traverse_util
from flax.core import Scope, freeze

from senet_jax.errors import UserError, closest_first
from senet_jax.layers.channel_gate import ChannelGate
from senet_jax.layers.normalization import DeferredAffine
from senet_jax.layers.squeeze_excite import SEConfig, SqueezeExcite

_Path = tuple[str, ...]

# Of an SE block, inside the module that it is behind.
_NAME = 'se'
# An error lists more paths than this in the order of their likeness to the pattern.
_SORTED = 40
_PAPERS = SEConfig()


def add_squeeze_excite(
  module: nn.Module, where: str | Sequence[str], se: SEConfig = _PAPERS
) -> 'SqueezeExcited':
  """Puts SE blocks behind submodules of `module`, whose outputs they gate.

    model = add_squeeze_excite(Net(), ('stem', 'Block_*/BatchNorm_2'), SEConfig(ratio=8))
    variables = model.init(key, images, train=False)

  The block behind `Block_0/BatchNorm_2` has its parameters at `Block_0/BatchNorm_2/se`. All
  variables of `module` stay where they are: a checkpoint of it lacks the `se` entries and no more.
  Transformations inside it (`nn.remat`, `nn.scan`, …) stay too; parameters of blocks under
  `nn.scan` are stacked like the others there. `nn.jit` in it is refused: put `jax.jit` around
  `init` and `apply` instead. Inside another module's `@nn.compact` method, which would take `Net()`
  for a submodule of its own:

    x = add_squeeze_excite(Net(parent=None), 'Block_*', SEConfig(ratio=8))(x, train=train)

  Args:
    module: any that is not bound; the result passes the arguments of `__call__` on, and has no
      other methods.
    where: an fnmatch pattern, or several, for the paths of the submodules from `module` on, as the
      variables have them. Part by part `*` does not cross a `/`, and the part `**` is for any
      number of names, none included. A pattern that fits only the path as a whole matches too if
      its last part fits the submodule's own name: `*bn3` finds `stage2_block1/bn3`, and `Block_*`
      does not reach into `Block_0/BatchNorm_0`. The last part `*`, which fits every name, is for
      one level only: `*` alone is for the outermost submodules. `module` itself and what is in SE
      blocks never match.
    se: options of these blocks; add blocks with others by another call.

  Returns:
    A module whose `init` and `apply` raise UserError if a pattern matches no submodule that is
    called or has its block in the variables, if what a matched one returns is not one array
    `[N, ..., C]` of three axes or more, or if it has an SE block or another entry `se` already.
    `excitations` finds the gates.

  Raises:
    UserError: an argument is not as above.
  """
  if not isinstance(module, nn.Module):
    raise UserError(f'module={module!r} must be a Flax linen module.')
  if module.scope is not None:
    raise UserError(
      f'module {"/".join(module.path)} is part of another already; make it with parent=None.'
    )
  if not isinstance(se, SEConfig):
    raise UserError(f'se={se!r} must be a senet_jax.layers.SEConfig.')
  if any(getattr(se, name) != getattr(_PAPERS, name) for name in ('position', 'stages', 'without')):
    raise UserError(
      'se.position, se.stages and se.without have no effect on add_squeeze_excite, whose `where` '
      'says where blocks go; leave them out.'
    )
  patterns = (where,) if isinstance(where, str) else tuple(where)
  if not patterns or not all(isinstance(pattern, str) and pattern for pattern in patterns):
    raise UserError(f"where={where!r} must be a pattern such as 'stage*_block*/bn3', or several.")
  if isinstance(module, SqueezeExcited):
    plan = dataclasses.replace(module.plan, rules=(*module.plan.rules, _Rule(patterns, se)))
  else:
    plan = _Plan(module, (_Rule(patterns, se),))
  return SqueezeExcited(plan, name=module.name)


@dataclasses.dataclass(frozen=True)
class _Rule:
  """Blocks with the options `se` behind what matches one of the patterns `where`."""

  where: tuple[str, ...]
  se: SEConfig

  def matches(self, path: _Path) -> bool:
    """Returns whether the rule is for the submodule at `path`."""
    return any(_matches(pattern, path) for pattern in self.where)


def _matches(pattern: str, path: _Path) -> bool:
  parts = pattern.split('/')
  fits = fnmatch.fnmatchcase
  return _matches_parts(parts, path) or (
    parts[-1] != '*' and fits('/'.join(path), pattern) and fits(path[-1], parts[-1])
  )


def _matches_parts(parts: Sequence[str], path: _Path) -> bool:
  if not parts:
    return not path
  first, *others = parts
  if first == '**':
    return any(_matches_parts(others, path[i:]) for i in range(len(path) + 1))
  return bool(path) and fnmatch.fnmatchcase(path[0], first) and _matches_parts(others, path[1:])


@dataclasses.dataclass(frozen=True)
class _Plan:
  """A module and the blocks that it gets.

  A module that is a field of another one is given a scope of its own there; one in here is not.
  """

  module: nn.Module
  rules: tuple[_Rule, ...]


class _NotUnderJit:
  """A flag of scopes that `nn.jit`, which iterates over flags to find an old trace, stops at."""

  def __iter__(self) -> Iterator[NoReturn]:
    raise UserError(
      'nn.jit is on a module with SE blocks of add_squeeze_excite, or on one inside it; leave '
      'nn.jit out and put jax.jit around init and apply.'
    )


class SqueezeExcited(nn.Module):
  """A module with SE blocks inside, as `add_squeeze_excite` returns it.

  Attributes:
    plan: the module, and which blocks go where.
  """

  plan: _Plan

  def setup(self):
    """Puts the module in this one's place."""
    # `nn.jit` runs its old trace for every module with the same fields, whatever the path: without
    # the block of this one, or with that of another, in silence. Submodules inherit flags.
    if self.scope is not None:  # as in every `setup`
      self.scope.flags = freeze({**self.scope.flags, 'add_squeeze_excite': _NotUnderJit()})
    module = self.plan.module
    self._module = module.clone(parent=self.scope, name=self.name or type(module).__name__)
    self._interceptor = _Interceptor(self.plan.rules, self.path)

  def __call__(self, *args, **kwargs) -> Any:
    """Calls the module."""
    with nn.intercept_methods(self._interceptor):
      output = self._module(*args, **kwargs)
    self._interceptor.check_matches(self._module.variables.get('params', {}))
    return output


class _Interceptor:
  """A function for `nn.intercept_methods`, around each method of a module and its submodules."""

  def __init__(self, rules: tuple[_Rule, ...], root: _Path):
    self._rules, self._root = rules, root
    self._running: dict[_Path, nn.Module] = {}
    self._called: set[_Path] = set()
    self._gated: set[_Path] = set()

  def __call__(self, call: Callable, args: tuple, kwargs: dict, context) -> Any:
    module = context.module
    root, path = module.path[: len(self._root)], module.path[len(self._root) :]
    # Modules from outside may be called too; derived ones may call their base's method, and
    # transformed ones call the plain one.
    if context.method_name != '__call__' or root != self._root or path in self._running:
      return call(*args, **kwargs)
    self._running[path] = module
    try:
      output = call(*args, **kwargs)
      in_se = any(isinstance(m, ChannelGate) for m in self._running.values())
    finally:
      del self._running[path]
    if not path or in_se:
      return output
    self._called.add(path)
    matching = [rule.se for rule in self._rules if rule.matches(path)]
    return self._gate(output, matching, module.scope, path) if matching else output

  def _gate(self, x: Any, matching: list[SEConfig], scope: Scope, path: _Path) -> Any:
    name = '/'.join(path)
    # Modules may be called several times, and then share the block too.
    if len(matching) > 1 or (_NAME in scope.reservations and path not in self._gated):
      raise UserError(f'{name} has an entry {_NAME!r} already; it cannot have another one.')
    if getattr(x, 'ndim', 0) < 3 and not isinstance(x, DeferredAffine):
      returned = jax.tree.map(lambda leaf: list(jnp.shape(leaf)), x)
      raise UserError(
        f'{name} returns {returned}, and an SE block needs one array [N, ..., C] of three axes or '
        'more; change `where`.'
      )
    self._gated.add(path)
    # The transformations around the submodule see its own scope and what is pushed from there.
    inner = scope.push(_NAME, reuse=True)
    # Flax takes a scope for a parent, which the annotation of the field leaves out.
    return SqueezeExcite(matching[0], name=_NAME, parent=inner)(x)  # type: ignore[arg-type]

  def check_matches(self, params: Mapping) -> None:
    """Raises UserError if a pattern has matched nothing, and `params` have no block for it."""
    # An evaluation may leave out what training calls.
    kept = {
      path[:i]
      for path in traverse_util.flatten_dict(params)
      for i, name in enumerate(path)
      if i and name == _NAME
    }
    for pattern in (pattern for rule in self._rules for pattern in rule.where):
      if not any(_matches(pattern, path) for path in self._gated | kept):
        names = sorted(map('/'.join, self._called))
        names = closest_first(pattern, names) if len(names) > _SORTED else names
        raise UserError(
          f'where={pattern!r} matches no submodule that is called; there are {", ".join(names)}.'
        )
