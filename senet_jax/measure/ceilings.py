"""Measures the bounds of a step on the devices at hand: copies of memory, and the all-reduce."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from senet_jax import runtime
from senet_jax.measure import programs, timing
from senet_jax.measure.cases import Case
from senet_jax.reporting.statistics import spread
from senet_jax.workdir import network

# Larger than any cache, and a small part of the memory of an accelerator.
_COPY_BYTES = {'cpu': 2**27}
_COPY_BYTES_ELSEWHERE = 2**30


def copy_rate(mesh: Mesh, repeats: int, seconds: float) -> dict[str, Any]:
  """Measures how fast a program reads and writes the memory of a device.

  The program adds one to an array of bfloat16, so it reads and writes each byte once; that is as
  much as an elementwise kernel gets, and less than the figure of a data sheet.

  Args:
    mesh: the devices; all work at a time.
    repeats: turns.
    seconds: of a turn, about.

  Returns:
    `bytes`, read and written by one device in a dispatch, and `gb_per_second` of one device, as
    `statistics.spread`, with 1 GB = 1e9 bytes.
  """
  size = _COPY_BYTES.get(jax.default_backend(), _COPY_BYTES_ELSEWHERE)
  shared = PartitionSpec(runtime.DATA_AXIS)
  program = runtime.data_parallel(lambda x: x + 1, mesh, (shared,), shared)
  sharding = jax.NamedSharding(mesh, shared)
  array = jnp.zeros((mesh.size, size // 2), jnp.bfloat16, device=sharding)
  timed = _time(program, (array,), repeats, seconds)
  moved = 2 * size
  return {
    'bytes': moved,
    'gb_per_second': spread([moved / s / 1e9 for s in timed.per_turn]),
  }


def all_reduce(case: Case, mesh: Mesh, repeats: int, seconds: float) -> dict[str, Any]:
  """Measures the collective of a training step by itself.

  Args:
    case: whose gradients and running statistics are summed over the devices.
    mesh: the devices.
    repeats: turns.
    seconds: of a turn, about.

  Returns:
    `bytes` that are all-reduced, and `ms`, as `statistics.spread`.
  """
  shapes = network.variable_shapes(case.config, case.module)
  whole = PartitionSpec()
  program = runtime.data_parallel(runtime.sum_over_devices, mesh, (whole,), whole)
  zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
  values = jax.device_put(zeros, runtime.replicated(mesh))
  timed = _time(program, (values,), repeats, seconds)
  return {
    'bytes': sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(shapes)),
    'ms': spread([1000 * s for s in timed.per_turn]),
  }


def _time(program, arguments: tuple, repeats: int, seconds: float) -> timing.Timing:
  compiled, facts = programs.compile_timed(program, *arguments)
  result = None

  def dispatch() -> None:
    nonlocal result
    result = compiled(*arguments)

  work = timing.Workload(0, dispatch, lambda: jax.block_until_ready(result), **facts)
  return timing.in_turn({'it': work}, repeats, seconds)['it']
