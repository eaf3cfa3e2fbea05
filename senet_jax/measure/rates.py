"""Throughput of networks on images that are on the devices, measured in turn."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from senet_jax.errors import UserError
from senet_jax.measure import cases, ceilings, machine, targets, throughput, timing
from senet_jax.measure.cases import OURS, Bench, Case, Measured, OutOfMemory
from senet_jax.measure.wanted import Wanted
from senet_jax.reporting.statistics import spread
from senet_jax.workdir.network import check_model

COMPARISONS = ('se_tax', 'changes', 'over_textbook', 'against_torch')


@dataclasses.dataclass(frozen=True)
class _Group:
  mode: str
  dtype: str
  batch_size: int
  steps_per_dispatch: int


def measure(
  bench: Bench, wanted: Wanted, keep: Callable[[dict[str, Any]], None] = lambda found: None
) -> dict[str, Any]:
  """Measures what is wanted.

  Args:
    bench: the devices and frameworks.
    wanted: see there.
    keep: is given what there is after each combination, as what comes later may fail.

  Returns:
    `rows`; of each of `COMPARISONS` the pairs that there are; `out_of_memory`, what did not fit;
    `copy`, of `ceilings.copy_rate`, or None; and `device_peak_mib`.

  Raises:
    UserError: a network or field does not exist, or nothing fits the memory.
  """
  every = itertools.product(wanted.modes, wanted.dtypes, wanted.batches, wanted.dispatches)
  groups = list(itertools.starmap(_Group, every))
  for case in _cases(bench, wanted, groups[0]):
    check_model(case.config)
  found: dict[str, Any] = {
    'not_in_torch': bench.not_in_torch(wanted.networks),
    'copy': None,
    'rows': [],
    **{kind: [] for kind in COMPARISONS},
    'out_of_memory': [],
    'device_peak_mib': None,
  }
  if wanted.ceilings:
    found['copy'] = ceilings.copy_rate(bench.mesh, wanted.repeats, wanted.seconds)
  for group in groups:
    measured, too_large = _measure_group(bench, wanted, group)
    rows = [_row(bench, case, *measured[case], found['copy']) for case in measured]
    if wanted.ceilings and bench.mesh.size > 1:
      for case, row in zip(measured, rows, strict=True):
        row['all_reduce'] = ceilings.all_reduce(case, bench.mesh, wanted.repeats, wanted.seconds)
    found['rows'] += rows
    found['out_of_memory'] += [bench.describe(case) for case in too_large]
    for kind, first, second in cases.pairs(measured):
      found[kind].append(cases.comparison(kind, first, second, measured))
    found['device_peak_mib'] = machine.device_peak_mib(bench.mesh)
    keep(found)
    del measured  # the memory of its steps
  if not found['rows']:
    raise UserError('out of memory with every network; use a smaller --batch.')
  return found


def _cases(bench: Bench, wanted: Wanted, group: _Group) -> list[Case]:
  return bench.cases(wanted.networks, overrides=wanted.overrides, **dataclasses.asdict(group))


def _measure_group(bench: Bench, wanted: Wanted, group: _Group) -> tuple[Measured, list[Case]]:
  """Measures networks in turn; returns that, and the cases that did not fit."""
  too_large = []
  while True:
    ready = _cases(bench, wanted, group)
    if wanted.find_up_to:
      _find_batches(bench, ready, wanted.find_up_to, wanted.refine)
    try:
      measured, left_out = bench.measure(ready, wanted.repeats, wanted.seconds)
    except OutOfMemory:
      if not wanted.or_smaller:
        raise
      measured, left_out = {}, ready
    too_large += left_out
    smaller = group.batch_size // 2 // bench.mesh.size * bench.mesh.size
    if not (left_out and wanted.or_smaller and smaller):
      return measured, too_large
    print(f'a batch of {smaller} instead of {group.batch_size}', flush=True)
    group = dataclasses.replace(group, batch_size=smaller)
    del measured


def _find_batches(bench: Bench, group: Sequence[Case], most: int, refine: bool) -> None:
  """Gives each network of ours the largest batch that fits, and PyTorch the same."""
  for case in group:
    if case.framework != OURS:
      continue
    config = case.config

    def run(size: int, case: Case = case) -> None:
      case.config.batch_size = size
      workload = bench.prepare(case)
      workload.dispatch()
      workload.wait()
      print(f'{case.label} fits', flush=True)

    best = timing.largest_batch(
      run,
      config.batch_size,
      devices=bench.mesh.size,
      most=most,
      refine=refine,
    )
    if best is None:
      raise UserError(f'out of memory: {case.label}; not even one image a device fits.')
    config.batch_size = best


def _row(
  bench: Bench,
  case: Case,
  workload: timing.Workload,
  times: timing.Timing,
  copy: dict[str, Any] | None,
) -> dict[str, Any]:
  rates = spread([workload.images / s for s in times.per_turn])
  gflops = throughput.gflops_per_image(case.config, case.mode, case.module)
  step_s = spread(times.per_turn)['median'] * case.config.batch_size / workload.images
  tflops = rates['median'] * gflops / 1000
  devices = bench.mesh.devices.flat
  chip = targets.here(devices[0].device_kind)
  known = chip and case.config.model.dtype == 'bfloat16'
  moved = workload.bytes_per_step
  rate = moved and moved / step_s / 1e9
  return {
    **bench.describe(case),
    'images_per_second': rates,
    'ms_per_step': 1000 * step_s,
    'compile_s': workload.compile_s,
    'warm_up_dispatches': timing.WARM_UP,
    'warm_up_s': times.warm_up_s,
    'gflops_per_image': gflops,
    'tflops_per_second': tflops,
    'mfu': tflops * 1e12 / chip.flops / len(devices) if chip and known else None,
    'bytes_per_step': moved,
    'bytes_counted_by': workload.bytes_counted_by,
    'gb_per_second': rate,
    'of_copy_rate': rate / copy['gb_per_second']['median'] if rate and copy else None,
    'program_mib': workload.program_mib,
  }
