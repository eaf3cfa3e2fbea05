"""What is timed of our networks: the steps of training and of inference, ready to go."""

import functools
import math
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.complexity.counts import complexity
from senet_jax.measure import hlo
from senet_jax.measure.timing import Workload
from senet_jax.models import list_models, model_info
from senet_jax.training import optimizer as optimizer_lib, setup
from senet_jax.training.classification import training_program
from senet_jax.workdir.network import build_model, input_size, variable_shapes
from senet_jax.workdir.state import abstract_state

# Of the environment, what changes the programs or where they run.
_FLAGS = ('XLA_FLAGS', 'LIBTPU_INIT_ARGS', 'XLA_PYTHON_CLIENT_PREALLOCATE', 'JAX_PLATFORMS',
          'XLA_CLIENT_MEM_FRACTION', 'OMP_NUM_THREADS', 'OMP_WAIT_POLICY')  # fmt: skip


def configuration(
  model: str, *, batch_size: int, dtype: str, image_size: int | None = None
) -> ConfigDict:
  """The configuration of a step on made-up images: the recipe of section 5.1 of the paper.

  Args:
    model: name of the network.
    batch_size: images a step, over all devices.
    dtype: of the computation.
    image_size: side of the images in pixels; None: as published.

  Raises:
    UserError: there is no such network, or the network cannot take such images.
  """
  info = model_info(model)
  config = config_lib.imagenet(model)
  config.batch_size = batch_size
  config.model.dtype = dtype
  config.model.num_classes = info.num_classes
  config.data.fake = True
  config.data.image_size = image_size or info.image_size
  # No rate matters for speed; a low one keeps the numbers finite however often one batch is seen.
  config.optimizer.learning_rate = 1e-3
  return config


def twin(model: str) -> str | None:
  """The name of the network with SE for one without, and the other way round; None: no twin."""
  info = model_info(model)
  name = model.removeprefix('se_') if info.se else f'se_{model}'
  return name if name != model and name in list_models() else None


def prepare(config: ConfigDict, mode: str, mesh: Mesh, model: nn.Module | None = None) -> Workload:
  """Compiles the step of a configuration and puts what it needs on the devices.

  `train` is the very program of a run, `steps_per_dispatch` included, with one batch that stays in
  the place of its feed. `inference` gives the logits of that batch.

  Args:
    config: of `configuration`.
    mode: `train` or `inference`.
    mesh: the devices.
    model: another network than the configuration's.

  Raises:
    UserError: the configuration has a mistake.
    MemoryError: the machine has no memory for it (CPU only; others raise what XLA raises).
  """
  config_lib.check(config)
  setup.check_batch(config, mesh.size)
  model = model or build_model(config)
  return (_training if mode == 'train' else _inference)(config, model, mesh)


class _FixedFeed:
  """One batch again and again, in the place of a training feed."""

  input_spec = PartitionSpec(runtime.DATA_AXIS)

  def batch(self, inputs: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    # Nothing that is done to the images may be done once for all steps of a dispatch.
    return jax.lax.optimization_barrier((inputs, step))[0]


def _training(config: ConfigDict, model: nn.Module, mesh: Mesh) -> Workload:
  schedule = optimizer_lib.make_schedule(config, total_steps=10**6, steps_per_epoch=1e4)
  optimizer = optimizer_lib.make_optimizer(config, schedule)
  steps = config.steps_per_dispatch or 1
  program = training_program(config, model, optimizer, _FixedFeed(), mesh, looped=steps > 1)
  variables = _variables(config, model, mesh)
  make_state = functools.partial(setup.init_state, config, model, optimizer, None, mesh, variables)
  arguments = (_abstract(make_state, mesh, sharded=False), _abstract_batch(config, mesh))
  compiled, facts = compile_timed(program, *arguments, np.int32(steps))
  state, batch = make_state(), _batch(config, mesh)

  def dispatch() -> None:
    nonlocal state
    state, _ = compiled(state, batch, np.int32(steps))

  return Workload(
    images=steps * config.batch_size,
    dispatch=dispatch,
    wait=lambda: jax.block_until_ready(state),
    **facts,
  )


def _inference(config: ConfigDict, model: nn.Module, mesh: Mesh) -> Workload:
  steps = config.steps_per_dispatch or 1

  def one(total: jax.Array, variables: dict, images: jax.Array) -> jax.Array:
    # Each step needs the one before: steps neither overlap nor are done once for all.
    images, total = jax.lax.optimization_barrier((images, total))
    return total + model.apply(variables, images, train=False)

  def many(total: jax.Array, variables: dict, images: jax.Array) -> jax.Array:
    if steps == 1:
      return one(total, variables, images)
    return jax.lax.fori_loop(0, steps, lambda _, total: one(total, variables, images), total)

  whole, shared = PartitionSpec(), PartitionSpec(runtime.DATA_AXIS)
  program = runtime.data_parallel(many, mesh, (shared, whole, shared), shared, donate=(0,))
  variables = _variables(config, model, mesh)
  make_total = _on(mesh, lambda: jnp.zeros((config.batch_size, config.model.num_classes)))
  arguments = (
    _abstract(make_total, mesh, sharded=True),
    variables,
    _abstract_batch(config, mesh)['images'],
  )
  compiled, facts = compile_timed(program, *arguments)
  total, images = make_total(), _batch(config, mesh)['images']

  def dispatch() -> None:
    nonlocal total
    total = compiled(total, variables, images)

  return Workload(
    images=steps * config.batch_size,
    dispatch=dispatch,
    wait=lambda: jax.block_until_ready(total),
    **facts,
  )


def _variables(config: ConfigDict, model: nn.Module, mesh: Mesh) -> dict[str, Any]:
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


def _on(mesh: Mesh, make: Callable) -> Callable:
  """`make` with its results computed where they belong, so that none is on a device twice."""
  return jax.jit(make, out_shardings=NamedSharding(mesh, PartitionSpec(runtime.DATA_AXIS)))


def _make_batch(config: ConfigDict, mesh: Mesh) -> Callable:
  n, size = config.batch_size, input_size(config)

  def make() -> dict[str, jax.Array]:
    key = jax.random.key(config.seed)
    labels = jax.random.randint(key, (n,), 0, config.model.num_classes)
    return {'images': jax.random.normal(key, (n, size, size, 3)), 'labels': labels}

  return _on(mesh, make)


def _batch(config: ConfigDict, mesh: Mesh) -> dict[str, jax.Array]:
  return _make_batch(config, mesh)()


def _abstract_batch(config: ConfigDict, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
  return _abstract(_make_batch(config, mesh), mesh, sharded=True)


def _abstract(make: Callable, mesh: Mesh, *, sharded: bool) -> Any:
  spec = PartitionSpec(runtime.DATA_AXIS) if sharded else PartitionSpec()
  return abstract_state(jax.eval_shape(make), NamedSharding(mesh, spec))


def compile_timed(program: Callable, *arguments) -> tuple[jax.stages.Compiled, dict[str, Any]]:
  """Compiles a program; returns it with what a `Workload` says about that.

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
  free = _free_memory() if jax.default_backend() == 'cpu' else None
  if free is not None and needed > free:
    raise MemoryError(f'out of memory: {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} free')
  return compiled, {**facts, 'program_mib': needed / 2**20}


def _free_memory() -> int | None:
  """Bytes that this machine can still give to a process; None where it does not say."""
  kib = _in_proc('meminfo', r'^MemAvailable:\s+(\d+) kB')
  return 1024 * int(kib) if kib else None


def gflops_per_image(config: ConfigDict, mode: str, model: nn.Module | None = None) -> float:
  """Two for each multiply-add of the forward pass; a training step is three of them."""
  macs = _macs(model or build_model(config), input_size(config))
  return 2 * macs / 1e9 * (3 if mode == 'train' else 1)


@functools.cache
def _macs(model: nn.Module, image_size: int) -> int:
  return complexity(model, image_size).macs


def device_peak_mib(mesh: Mesh) -> float | None:
  """The most that a device has had in use in this process; None where it does not say."""
  stats = [device.memory_stats() or {} for device in mesh.devices.flat]
  peaks = [s['peak_bytes_in_use'] for s in stats if 'peak_bytes_in_use' in s]
  return max(peaks) / 2**20 if peaks else None


def machine() -> dict[str, Any]:
  """Returns what decides the numbers beside the versions of the packages."""
  return {
    'cpu_cores': runtime.usable_cores(),
    'cpu': _in_proc('cpuinfo', r'^model name\s*:\s*(.+)$'),
    'platform': jax.devices()[0].client.platform_version,
    'flags': {name: os.environ[name] for name in _FLAGS if name in os.environ},
    # With one, `compile_s` may be the time of a look-up.
    'compilation_cache': bool(jax.config.jax_compilation_cache_dir),
  }


def _in_proc(file: str, pattern: str) -> str | None:
  """Returns what Linux tells of the machine; None elsewhere."""
  try:
    text = pathlib.Path('/proc', file).read_text(encoding='utf-8')
  except OSError:
    return None
  found = re.search(pattern, text, re.MULTILINE)
  return found and found[1]
