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
from senet_jax.data.preprocessing import TrainingTransform
from senet_jax.detection import buckets
from senet_jax.detection.feeds import DetectionFeed
from senet_jax.measure import hlo, machine
from senet_jax.models import CLASSIFICATION
from senet_jax.training import setup, tasks
from senet_jax.training.optimizer import make_optimizer, make_plateau, make_schedule
from senet_jax.training.step import training_program
from senet_jax.workdir.network import input_size, task_of, variable_shapes
from senet_jax.workdir.state import TrainState, abstract_state

WHOLE, SHARED = PartitionSpec(), PartitionSpec(runtime.DATA_AXIS)
# With which a detector of random weights has as many proposals and detections as a trained one: its
# running statistics do not hold back what residual units add up to.
_GAINS = {
  'bn2/scale': 0.3, 'bn3/scale': 0.3, 'rpn/deltas/kernel': 0.1, 'roi_head/class_logits/kernel': 1.5,
  'roi_head/box_deltas/kernel': 0.3,
}  # fmt: skip


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
    training_program(tasks.task_of(config), model, optimizer, feed, mesh, looped=looped),
    placed(state, mesh, WHOLE),
    functools.partial(setup.init_state, config, model, optimizer, plateau, mesh),
  )


def placed(tree: Any, mesh: Mesh, spec: PartitionSpec) -> Any:
  """Returns the shapes and dtypes of a tree of arrays, sharded over the devices as `spec` says."""
  return abstract_state(tree, NamedSharding(mesh, spec))


def image_sides(config: ConfigDict) -> tuple[int, int]:
  """Returns height and width of the network's inputs; of a detector's those of the widest shape."""
  if task_of(config) == CLASSIFICATION:
    return (input_size(config),) * 2
  shapes = buckets.shapes(config.data.shorter_side, config.data.longer_side)
  return max(shapes, key=lambda shape: (shape[0] * shape[1], shape[1]))


def image_shapes(config: ConfigDict, mesh: Mesh) -> jax.ShapeDtypeStruct:
  """Returns the shape of a batch of the network's inputs, `[N, H, W, 3]` float32, sharded."""
  shape = (config.batch_size, *image_sides(config), 3)
  return placed(jax.ShapeDtypeStruct(shape, jnp.float32), mesh, SHARED)


@dataclasses.dataclass(frozen=True)
class _Crops:
  """Batches of a classifier as a stream puts them on the devices."""

  transform: TrainingTransform
  input_spec = SHARED

  def batch(self, inputs, step):
    """Returns this device's share of a batch, as the feeds of `senet_jax.data` do."""
    return self.transform.batch(**inputs, step=step)


def streamed(config: ConfigDict, mesh: Mesh) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
  """Returns a feed that streams uint8 images, and the shapes of its inputs; no data is read.

  Args:
    config: of the run.
    mesh: the devices.
  """
  if task_of(config) != CLASSIFICATION:
    made_up = config.copy_and_resolve_references()
    made_up.data.fake = True
    feed = DetectionFeed.create(made_up, mesh)
    sides = image_sides(config)
    return feed, next(s for s in feed.shapes() if s['images'].shape[1:3] == sides)
  setup.check_batch(config, mesh.size)
  crops = _Crops(TrainingTransform.create(config))
  n, shape = config.batch_size, crops.transform.plain.shape
  inputs = {name: jax.ShapeDtypeStruct((n,), jnp.int32) for name in ('labels', 'epoch', 'index')}
  inputs['images'] = jax.ShapeDtypeStruct((n, *shape), jnp.uint8)
  return crops, placed(inputs, mesh, SHARED)


def variables(config: ConfigDict, model: nn.Module, mesh: Mesh) -> dict[str, Any]:
  """Returns `made_up_variables`, whole on every device."""
  return jax.device_put(made_up_variables(config, model), runtime.replicated(mesh))


def made_up_variables(config: ConfigDict, model: nn.Module) -> dict[str, Any]:
  """Returns `params` and `batch_stats` as NumPy arrays: random kernels, unit scales and variances.

  Only to compile their proper initialisation takes longer than all else.
  """
  shapes = variable_shapes(config, model)
  rng = np.random.default_rng(config.seed)
  gains = {} if task_of(config) == CLASSIFICATION else _GAINS

  def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    name = '/'.join(part.key for part in path[1:])
    gain = next((g for end, g in gains.items() if name.endswith(end)), 1.0)
    if path[-1].key == 'kernel':
      scale = gain * math.sqrt(2 / math.prod(leaf.shape[:-1]))
      return scale * rng.standard_normal(leaf.shape, np.float32)
    return np.full(leaf.shape, gain * (path[-1].key in ('scale', 'var')), np.float32)

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
