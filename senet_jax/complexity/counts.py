"""Parameters and multiply-adds of a network, as the paper counts them, by layer and by stage.

A MAC is one multiply-add of a convolution or a matrix product, those of the SE blocks included;
pooling, normalisation, nonlinearities and additions are not counted (the paper's "FLOPs" are these
MACs within 0.5 percent). They are counted in the jaxpr of an evaluation, so nothing is computed.
"""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from flax import linen as nn, traverse_util

from senet_jax.layers import ChannelGate

_Path = tuple[str, ...]

# Of the names of scopes in a trace that say which module runs, by its path.
_SCOPE, _SEPARATOR = 'module:', '|'


@dataclasses.dataclass(frozen=True)
class Layer:
  """One layer of a network.

  Attributes:
    path: of the module, such as `stage4_block6/se/fc1`.
    type: the module's class; empty for one that an evaluation does not run.
    output: shape of its output; None for one that an evaluation does not run.
    params: trainable parameters.
    macs: multiply-adds.
    stage: `stem`, `stage2`, …, `head`: modules named `stage…` give the stages, what runs before
      them is the stem and anything else the head. Without such modules, the outermost module.
    se: whether it belongs to an SE block, or to another kind of attention.
  """

  path: str
  type: str
  output: tuple[int, ...] | None
  params: int
  macs: int
  stage: str
  se: bool


@dataclasses.dataclass(frozen=True)
class Cost:
  """Sums over layers.

  Attributes:
    params: trainable parameters.
    macs: multiply-adds.
    se_params: parameters of SE blocks among them, biases included.
    se_macs: multiply-adds of the fully connected layers of SE blocks among them.
  """

  params: int
  macs: int
  se_params: int
  se_macs: int


@dataclasses.dataclass(frozen=True)
class Complexity(Cost):
  """The cost of a network, of its stages and of its layers.

  Attributes:
    batch_stats: running means and variances.
    se_weights: weights of SE blocks, without the biases.
    equation_5: the paper's (2 / r) Σ N_s C_s², with N_s SE blocks on C_s channels;
      0 for other kinds of attention.
    squeezed_elements: elements that enter the squeezes; none for NoSqueeze.
    stages: the costs of stem, stages and head, or of what stands in for them.
    layers: in the order in which they run, then those that only training runs: all modules without
      modules inside, and owners of modules with parameters or multiply-adds of their own.
  """

  batch_stats: int
  se_weights: int
  equation_5: int
  squeezed_elements: int
  stages: dict[str, Cost]
  layers: tuple[Layer, ...]


@dataclasses.dataclass(frozen=True)
class _Trace:
  """An evaluation that was traced, not run.

  Attributes:
    variables: shapes, as a flat dictionary from path to leaf.
    modules: those that were called, by path, in the order in which their calls end.
    outputs: the shape of the output of each of them.
    macs: multiply-adds by the path of the module that has them.
  """

  variables: dict[_Path, jax.ShapeDtypeStruct]
  modules: dict[_Path, nn.Module]
  outputs: dict[_Path, tuple[int, ...]]
  macs: collections.Counter[_Path]

  @functools.cached_property
  def gates(self) -> dict[_Path, ChannelGate]:
    """The attention blocks, SE or others, by path."""
    return {path: m for path, m in self.modules.items() if isinstance(m, ChannelGate)}

  def in_se(self, path: Sequence[str]) -> bool:
    """Returns True if the module or variable at `path` belongs to an attention block."""
    return any(tuple(path[:i]) in self.gates for i in range(len(path) + 1))


def complexity(model: nn.Module, image_size: int, batch: int = 1) -> Complexity:
  """Counts parameters and multiply-adds of an evaluation of `model`.

  Args:
    model: as `create_model` returns it.
    image_size: side of the square images in pixels; that of the publication is
      `model_info(name).image_size`.
    batch: images; MACs and squeezed elements are those of all of them.

  Returns:
    The totals, the stages and the layers.
  """
  trace = _trace(model, image_size, batch)
  layers = _layers(trace)
  stages = collections.defaultdict(list)
  for layer in layers:
    stages[layer.stage].append(layer)
  # A gate's output has the shape of its input.
  gates = [(gate, trace.outputs[path]) for path, gate in trace.gates.items()]
  sizes: collections.Counter[str] = collections.Counter()
  for (collection, *path), leaf in trace.variables.items():
    sizes[collection] += leaf.size
    sizes['se_weights'] += leaf.size * (path[-1] == 'kernel' and trace.in_se(path))
  return Complexity(
    **vars(_sum(layers)),
    batch_stats=sizes['batch_stats'],
    se_weights=sizes['se_weights'],
    equation_5=round(sum(gate.estimated_weights(shape[-1]) for gate, shape in gates)),
    squeezed_elements=sum(math.prod(shape) for gate, shape in gates if gate.squeeze != 'none'),
    stages={name: _sum(members) for name, members in stages.items()},
    layers=tuple(layers),
  )


def count_macs(function: Callable, *arguments) -> int:
  """Counts the multiply-adds of convolutions and matrix products in `function(*arguments)`.

  Loops count as often as they run, of the branches of a conditional the most expensive; of forms
  for several platforms the default one.

  Args:
    function: traceable by JAX.
    *arguments: arrays, or `jax.ShapeDtypeStruct`s.

  Raises:
    ValueError: a `while` loop, whose length is not known before it runs, has multiply-adds.
  """
  return jaxpr_macs(jax.make_jaxpr(function)(*arguments).jaxpr)


def jaxpr_macs(jaxpr: jex.Jaxpr) -> int:
  """Counts the multiply-adds of a traced function, as `count_macs` does."""
  return _macs(jaxpr).total()


def _trace(model: nn.Module, image_size: int, batch: int) -> _Trace:
  images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
  modules, outputs = {}, {}

  def record(call, args, kwargs, context):
    if context.method_name != '__call__':
      return call(*args, **kwargs)
    path = context.module.path
    # Flax has scopes of its own, which do not tell a module from one that calls it for another.
    with jax.named_scope(_SCOPE + _SEPARATOR.join(path)):
      output = call(*args, **kwargs)
    modules[path] = context.module
    outputs[path] = next((leaf.shape for leaf in jax.tree.leaves(output)), ())
    return output

  with nn.intercept_methods(record):
    closed = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, images)
  return _Trace(traverse_util.flatten_dict(variables), modules, outputs, _macs(closed.jaxpr))


def _macs(jaxpr: jex.Jaxpr, path: _Path = ()) -> collections.Counter[_Path]:
  """Counts the MACs of `jaxpr`, run by the module at `path`, by path of the innermost module."""
  counts: collections.Counter[_Path] = collections.Counter()
  for eqn in jaxpr.eqns:
    inner = path
    for name in str(eqn.source_info.name_stack).split('/'):
      if name.startswith(_SCOPE):
        inner = tuple(filter(None, name.removeprefix(_SCOPE).split(_SEPARATOR)))
    branches = [_macs(sub, inner) for sub in jex.jaxprs_in_params(eqn.params)]
    primitive = eqn.primitive.name
    if primitive == 'cond':
      platforms = eqn.params.get('branches_platforms') or ()
      if None in platforms:
        branches = [branches[platforms.index(None)]]
      dearest = max(branches, key=lambda branch: branch.total())
      counts.update(dearest)
      continue
    if primitive == 'while' and any(branches):
      raise ValueError('The multiply-adds of a while loop are unknown; use a loop of fixed length.')
    times = eqn.params['length'] if primitive == 'scan' else 1
    for branch in branches:
      counts.update({name: times * count for name, count in branch.items()})
    if macs := _equation_macs(eqn):
      counts[inner] += macs
  return counts


def _equation_macs(eqn: jex.JaxprEqn) -> int:
  """Returns the elements of the output times the products that each of them sums."""
  inputs: list[Any] = [variable.aval for variable in eqn.invars]
  output: Any = eqn.outvars[0].aval
  if eqn.primitive.name == 'conv_general_dilated':
    kernel = inputs[1]
    return output.size * (kernel.size // kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]])
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    return output.size * math.prod(inputs[0].shape[i] for i in contracted)
  return 0


def _layers(trace: _Trace) -> list[Layer]:
  params: collections.Counter[_Path] = collections.Counter()
  for (collection, *names), leaf in trace.variables.items():
    if collection == 'params':
      params[tuple(names[:-1])] += leaf.size
  owners = {path[:i] for path in trace.modules for i in range(len(path))}
  paths = [*trace.modules, *(path for path in params if path not in trace.modules)]
  staged = any(map(_stage, paths))
  layers, stage = [], 'stem'
  for path in paths:
    module, named = trace.modules.get(path), _stage(path)
    if not staged:
      stage = path[0] if path else 'head'
    elif named or stage != 'stem' or not module:
      stage = named or 'head'
    if path in owners and not params[path] and not trace.macs[path]:
      continue
    layers.append(
      Layer(
        path='/'.join(path),
        type=type(module).__name__ if module else '',
        output=trace.outputs.get(path),
        params=params[path],
        macs=trace.macs[path],
        stage=stage,
        se=trace.in_se(path),
      )
    )
  return layers


def _stage(path: _Path) -> str | None:
  named = re.match(r'stage\d+', path[0]) if path else None
  return named and named[0]


def _sum(layers: Collection[Layer]) -> Cost:
  return Cost(
    params=sum(layer.params for layer in layers),
    macs=sum(layer.macs for layer in layers),
    se_params=sum(layer.params for layer in layers if layer.se),
    se_macs=sum(layer.macs for layer in layers if layer.se),
  )
