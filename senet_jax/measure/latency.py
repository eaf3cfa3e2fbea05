"""Times how long networks and their twins take to answer, in turn."""

import statistics
from collections.abc import Sequence
from typing import Any

from senet_jax.errors import UserError
from senet_jax.measure import cases, exported_models, throughput, timing
from senet_jax.measure.cases import Bench, Measured
from senet_jax.measure.networks import Network
from senet_jax.measure.timing import Timing
from senet_jax.reporting.statistics import mean_std, spread
from senet_jax.workdir.network import check_model


def measure(
  bench: Bench,
  given: Sequence[Network],
  *,
  batches: Sequence[int],
  dtype: str,
  repeats: int,
  seconds: float,
) -> dict[str, Any]:
  """Returns the times of networks and their twins, with and without SE, for a file of results.

  Args:
    bench: the devices and frameworks.
    given: the networks; their twins need not be among them.
    batches: images that are asked at once, over all devices.
    dtype: of the computation.
    repeats: turns.
    seconds: of a network in a turn, about.

  Returns:
    `not_in_torch`; `rows`, with `ms_per_batch`, `ms_per_image` and `se_percent`, the time that SE
    adds; `over_torch`, the speed of exported files over PyTorch's; and `out_of_memory`, what did
    not fit.

  Raises:
    UserError: a network does not exist, or none fits the memory.
  """
  wanted = _with_twins(given)
  groups = [bench.cases(wanted, mode='inference', dtype=dtype, batch_size=size) for size in batches]
  for case in groups[0]:
    check_model(case.config)
  found: dict[str, Any] = {
    'not_in_torch': bench.not_in_torch(wanted),
    'rows': [],
    'over_torch': [],
    'out_of_memory': [],
  }
  for group in groups:
    measured, too_large = bench.measure(group, repeats, seconds, each=True)
    found['rows'] += _rows(bench, measured)
    found['over_torch'] += _over_torch(measured)
    found['out_of_memory'] += [bench.describe(case) for case in too_large]
    del measured  # the memory of its steps
  if not found['rows']:
    raise UserError('out of memory with every network; use smaller --batches.')
  return found


def _with_twins(given: Sequence[Network]) -> list[Network]:
  """Returns each network with its twin, the one without SE first."""
  found = []
  for network in given:
    twin = throughput.twin(network.name)
    names = sorted({network.name, twin or network.name}, key=len)
    for name in names:
      kept = network if name == network.name else Network(name, network.without_se.changes)
      found.append(kept)
  return list(dict.fromkeys(found))


def _rows(bench: Bench, measured: Measured) -> list[dict[str, Any]]:
  """Returns a row of results for each network that was measured in the same turns."""
  taxed = {a: b for kind, a, b in cases.pairs(measured) if kind == 'se_tax'}
  rows = []
  for case, (workload, times) in measured.items():
    plain = measured[taxed[case]][1] if case in taxed else None
    row = {
      **bench.describe(case),
      **_milliseconds(times, case.config.batch_size),
      'compile_s': workload.compile_s,
      'se_percent': timing.added_percent(times, plain) if plain else None,
    }
    rows.append(row)
  return rows


def _over_torch(measured: Measured) -> list[dict[str, Any]]:
  """Returns the speed of our exported files over that of PyTorch's in the same runtime."""
  by_name = {(case.network, case.framework): times for case, (_, times) in measured.items()}
  batches = {case.network: case.config.batch_size for case in measured}
  return [
    {
      'network': network.label,
      'runtime': ours.partition(', ')[2],
      'batch_size': batch,
      'ratio': spread(timing.ratios(by_name[network, theirs], by_name[network, ours])),
    }
    for network, batch in batches.items()
    for ours, theirs in exported_models.PAIRS
    if (network, ours) in by_name and (network, theirs) in by_name
  ]


def _milliseconds(times: Timing, batch_size: int) -> dict[str, Any]:
  """Returns the times of a batch over all turns, and of each turn, and the time of an image."""
  ms = [1000 * seconds for turn in times.turns for seconds in turn]
  deciles = statistics.quantiles(ms, n=10, method='inclusive') if len(ms) > 1 else ms * 9
  return {
    'ms_per_batch': {
      'median': statistics.median(ms),
      'p10': deciles[0],
      'p90': deciles[-1],
      **mean_std(ms),
      'turns': [1000 * seconds for seconds in times.per_turn],
    },
    'ms_per_image': statistics.median(ms) / batch_size,
  }
