"""The real training step or evaluation of a configuration, compiled for any machine, and its costs.

Nothing runs and no data is read: XLA compiles ahead of time for the devices of a `targets.Target`.
"""

import dataclasses
import functools
import re
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.complexity.counts import jaxpr_macs
from senet_jax.errors import UserError
from senet_jax.measure import hlo, programs
from senet_jax.measure.targets import Chip
from senet_jax.workdir import network

# Steps of a made-up run, for schedules that need to know its length.
_STEPS = 1000


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled program.

  Attributes:
    compiled: as JAX returns it.
    devices: how many it runs on.
    batch_size: images of all of them.
    flops: of the convolutions and matrix products of one device, as written; two a multiply-add.
    trace_s: seconds that tracing and lowering took.
    compile_s: seconds that XLA took.
  """

  compiled: jax.stages.Compiled
  devices: int
  batch_size: int
  flops: int
  trace_s: float
  compile_s: float


def compile_program(
  config: ConfigDict, devices: list, mode: str, model: nn.Module | None = None
) -> Program:
  """Compiles what a configuration runs most.

  Args:
    config: of the run; `batch_size` is that of all devices.
    devices: of one kind.
    mode: `train`, one step from uint8 images to new parameters; `inference`, the network from
      float32 inputs to logits.
    model: another network than the configuration's.

  Raises:
    UserError: the batch does not fit the devices, or the program not their memory.
  """
  mesh = runtime.data_mesh(devices=devices)
  runtime.per_device(config.batch_size, mesh.size)
  start = time.perf_counter()
  model = model or network.build_model(config)
  program, arguments = (_training if mode == 'train' else _inference)(config, model, mesh)
  traced = program.trace(*arguments)
  flops = 2 * jaxpr_macs(traced.jaxpr.jaxpr)
  lowered = traced.lower()
  traced_at = time.perf_counter()
  try:
    compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    if 'RESOURCE_EXHAUSTED' not in str(e):
      raise
    raise UserError(too_large(config.batch_size, mesh.size, str(e))) from e
  compile_s = time.perf_counter() - traced_at
  return Program(compiled, mesh.size, config.batch_size, flops, traced_at - start, compile_s)


def too_large(batch_size: int, devices: int, message: str) -> str:
  """Returns what to say when XLA's `message` is that a program needs too much memory."""
  text = f'config.batch_size={batch_size} does not fit the memory of {devices} such devices'
  found = re.search(r'Used ([\d.]+)G of ([\d.]+)G hbm', message)
  if not found:
    return f'{text}; use a smaller one.'
  used, available = map(float, found.groups())
  most = int(batch_size // devices * available / used) * devices
  over = f'{used - available:.2f} GiB too much on each'
  return f'{text}, {over}; about {most} would, so use at most that.'


def _training(config: ConfigDict, model: nn.Module, mesh: Mesh):
  feed, inputs = programs.streamed(config, mesh)
  step = programs.training_step(
    config, model, feed, mesh, total_steps=_STEPS, steps_per_epoch=_STEPS / 10, looped=False
  )
  count = programs.placed(jax.ShapeDtypeStruct((), jnp.int32), mesh, programs.WHOLE)
  return step.program, (step.state, inputs, count)


def _inference(config: ConfigDict, model: nn.Module, mesh: Mesh):
  program = runtime.data_parallel(
    functools.partial(model.apply, train=False),
    mesh,
    (programs.WHOLE, programs.SHARED),
    programs.SHARED,
  )
  variables = programs.placed(network.variable_shapes(config, model), mesh, programs.WHOLE)
  return program, (variables, programs.image_shapes(config, mesh))


def report(program: Program, chip: Chip | None, top: int = 12) -> dict:
  """Returns what a program costs on each device.

  Bytes are those of `hlo.bytes_moved`.

  Args:
    program: as compiled.
    chip: the device, or None.
    top: how many of the largest arrays and of the costliest kernels to list.

  Returns:
    What `tools.profile` prints and writes.
  """
  module = hlo.Module(program.compiled.as_text() or '')
  bytes_moved, counted_by = hlo.bytes_moved(program.compiled, module)
  memory: Any = program.compiled.memory_analysis()
  peak = memory.peak_memory_in_bytes
  found: dict[str, Any] = {
    'devices': program.devices,
    'batch_per_device': program.batch_size // program.devices,
    'flops': program.flops,
    'bytes': bytes_moved,
    'bytes_counted_by': counted_by,
    'intensity': program.flops / bytes_moved,
    'memory': {
      'peak': int(peak),
      'arguments': int(memory.argument_size_in_bytes),
      'temporary': int(memory.temp_size_in_bytes),
    },
    'collectives': module.collectives(),
    'trace_s': round(program.trace_s, 1),
    'compile_s': round(program.compile_s, 1),
    'layers': _by_layer(module),
    'kernels': [_kernel(item) for item in _costliest(module.traffic)[:top]],
    'arrays': _largest_arrays(module)[:top],
  }
  if chip:
    compute_s, memory_s = program.flops / chip.flops, bytes_moved / chip.bandwidth
    found['roofline'] = {
      'chip': dataclasses.asdict(chip),
      'compute_s': compute_s,
      'memory_s': memory_s,
      'step_s': max(compute_s, memory_s),
      'bound': 'compute' if compute_s > memory_s else 'memory',
      'images_per_second': found['batch_per_device'] / max(compute_s, memory_s),
    }
    # What does not grow with the batch stays; the rest is taken to grow in proportion.
    fixed = peak - memory.temp_size_in_bytes
    an_image = memory.temp_size_in_bytes / found['batch_per_device']
    found['memory'] |= {
      'available': int(chip.memory),
      'fits': bool(peak <= chip.memory),
      'about_largest_batch': max(int((chip.memory - fixed) / max(an_image, 1)), 0),
    }
  return found


def measure(program: Program, config: ConfigDict, chip: Chip | None, steps: int, trace: str | None):
  """Runs a compiled training step or inference on made-up input; returns the times.

  Args:
    program: for the devices that are here.
    config: of the run.
    chip: the device, or None.
    steps: timed ones.
    trace: directory of a trace of three more steps, for xprof and `trace.reduce`, or None.
  """
  arguments = [
    jax.tree.map(lambda a, s: _filled(a, s), info, shardings)
    for info, shardings in zip(
      program.compiled.args_info[0], program.compiled.input_shardings[0], strict=True
    )
  ]
  training = len(arguments) == 3

  def run():
    result = program.compiled(*arguments)
    if training:  # the state's memory has been given away
      arguments[0] = result[0]
    return result

  for _ in range(3):
    jax.block_until_ready(run())
  start = time.perf_counter()
  for _ in range(steps):
    result = run()
  jax.block_until_ready(result)
  step_s = (time.perf_counter() - start) / steps
  if trace:
    # Without waiting in between, as in training: a device must not idle because of the trace.
    with jax.profiler.trace(trace):
      for i in range(3):
        with jax.profiler.StepTraceAnnotation('step', step_num=i):
          result = run()
      jax.block_until_ready(result)
  found = {'step_s': step_s, 'images_per_second': config.batch_size / step_s, 'steps': steps}
  if chip:
    found['mfu'] = program.flops / step_s / chip.flops
  return found


def _filled(info, sharding):
  """Returns an array of the shape of `info`: ones if it is floating-point, otherwise zeros."""
  value = np.ones if jnp.issubdtype(info.dtype, jnp.floating) else np.zeros
  return jax.device_put(value(info.shape, info.dtype), sharding)


def _costliest(traffic: list[hlo.Traffic]) -> list[hlo.Traffic]:
  return sorted(traffic, key=lambda item: -item.bytes)


def _kernel(item: hlo.Traffic) -> dict:
  return {
    'layer': item.layer,
    'near': item.near,
    'kernel': item.instruction.name,
    'opcode': item.instruction.opcode,
    'results': [str(array) for array in item.instruction.results],
    'bytes': item.bytes,
    'times': item.times,
  }


def _by_layer(module: hlo.Module) -> dict[str, int]:
  """Returns the bytes of each layer, the largest first; '' is for traffic of no layer."""
  sums: dict[str, int] = {}
  for item in module.traffic:
    sums[item.layer] = sums.get(item.layer, 0) + item.bytes
  return dict(sorted(sums.items(), key=lambda pair: -pair[1]))


def _largest_arrays(module: hlo.Module) -> list[dict]:
  """Returns the arrays in main memory, the largest first, each shape of a layer once."""
  found = {}
  for item in module.traffic:
    for array in item.instruction.results:
      if not array.on_chip and all(array.shape):
        found[item.layer, str(array)] = array.bytes
  return [
    {'layer': layer, 'array': array, 'bytes': size}
    for (layer, array), size in sorted(found.items(), key=lambda pair: -pair[1])
  ]
