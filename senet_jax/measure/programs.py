"""Builds and compiles the training step and the inputs of a network, for all that measures them."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.measure import hlo, machine
from senet_jax.training import setup
from senet_jax.training.classification import training_program
from senet_jax.training.optimizer import make_optimizer, make_plateau, make_schedule
from senet_jax.workdir.network import input_size, variable_shapes
from senet_jax.workdir.state import TrainState, abstract_state

WHOLE, SHARED = PartitionSpec(), PartitionSpec(runtime.DATA_AXIS)


@dataclasses.dataclass(frozen=True)
class TrainingStep:
  """The training step of a run, before it is compiled.

  Attributes:
    program: takes the state, the inputs of the feed and the number of steps, and gives the next
      state and a report; see `training.step.training_program`.
    state: shapes, dtypes and shardings of the state.
    first_state: makes the state before the first step, on the devices, from variables.
  """

  program: jax.stages.Wrapped
  state: TrainState
  first_state: Callable[[dict[str, Any]], TrainState]


def training_step(
  config: ConfigDict,
  model: nn.Module,
  feed: Any,
  mesh: Mesh,
  *,
  total_steps: int,
  steps_per_epoch: float,
  looped: bool,
) -> TrainingStep:
  """Returns the training step that a run of a configuration compiles.

  Args:
    config: of the run.
    model: the network, of the configuration or another one.
    feed: that makes batches of inputs on the devices; its `input_spec` and `batch` are used.
    mesh: the devices.
    total_steps: length of the run, for the schedule of the learning rate.
    steps_per_epoch: for the schedule, too.
    looped: several steps are one dispatch.
  """
  schedule = make_schedule(config, total_steps, steps_per_epoch)
  optimizer, plateau = make_optimizer(config, schedule), make_plateau(config)
  build = functools.partial(setup.new_state, config, model, optimizer, plateau)
  state = jax.eval_shape(build, variable_shapes(config, model))
  return TrainingStep(
    training_program(config, model, optimizer, feed, mesh, looped=looped),
    placed(state, mesh, WHOLE),
    functools.partial(setup.init_state, config, model, optimizer, plateau, mesh),
  )


def placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
  """Returns the shapes and dtypes of a tree of arrays, sharded over the devices as `spec` says."""
  return abstract_state(tree, NamedSharding(mesh, spec))


def image_shapes(config: ConfigDict, mesh: Mesh) -> jax.ShapeDtypeStruct:
  """Returns the shape of a batch of the network's inputs, `[N, H, W, 3]` float32, sharded."""
  size = input_size(config)
  images = jax.ShapeDtypeStruct((config.batch_size, size, size, 3), jnp.float32)
  return placed(images, mesh, SHARED)


def variables(config: ConfigDict, model: nn.Module, mesh: Mesh) -> dict[str, Any]:
  """Returns `made_up_variables`, whole on every device."""
  return jax.device_put(made_up_variables(config, model), runtime.replicated(mesh))


def made_up_variables(config: ConfigDict, model: nn.Module) -> dict[str, Any]:
  """Returns `params` and `batch_stats` as NumPy arrays: random kernels, unit scales and variances.

  Only to compile their proper initialisation takes longer than all else.
  """
  shapes = variable_shapes(config, model)
  rng = np.random.default_rng(config.seed)

  def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    if path[-1].key == 'kernel':
      scale = math.sqrt(2 / math.prod(leaf.shape[:-1]))
      return scale * rng.standard_normal(leaf.shape, np.float32)
    return np.full(leaf.shape, path[-1].key in ('scale', 'var'), np.float32)

  return jax.tree.map_with_path(fill, shapes)


def compile_timed(
  program: jax.stages.Wrapped, *arguments
) -> tuple[jax.stages.Compiled, dict[str, Any]]:
  """Compiles a program; returns it with what a `timing.Workload` says about that.

  Raises:
    MemoryError: on a CPU, whose system would end the process instead.
  """
  start = time.perf_counter()
  compiled = program.lower(*arguments).compile()
  seconds = time.perf_counter() - start
  moved, counted_by = hlo.bytes_moved(compiled)
  facts = {'compile_s': seconds, 'bytes_per_step': moved, 'bytes_counted_by': counted_by}
  stats = compiled.memory_analysis()
  if stats is None:
    return compiled, facts
  needed = (
    stats.argument_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.temp_size_in_bytes
    + stats.generated_code_size_in_bytes
  )
  free = machine.free_memory() if jax.default_backend() == 'cpu' else None
  if free is not None and needed > free:
    raise MemoryError(f'out of memory: {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} free')
  return compiled, {**facts, 'program_mib': needed / 2**20}
