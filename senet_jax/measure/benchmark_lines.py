"""The lines in which `tools.benchmark` shows what it has measured."""

import os
from collections.abc import Iterator
from typing import Any

from senet_jax.measure import agreement, rates
from senet_jax.reporting import tables
from senet_jax.reporting.statistics import in_words

_RATES = ('network framework mode dtype batch images/s ± ms/step TFLOP/s MFU GB/s compile_s '
          'warm_up_s MiB')  # fmt: skip
_LOGITS = 'network dtype max_difference spread relative'
_FEED = 'images dtype steps images/s waiting_% cores busy_%'


def of_rates(found: dict[str, Any]) -> Iterator[str]:
  """Yields the lines of `rates.measure`."""
  if found['copy']:
    rate = in_words(found['copy']['gb_per_second'], '.1f', ' GB/s')
    yield f'copies of memory, read and written: {rate}'
  yield from tables.aligned(_RATES, [_rate_cells(row) for row in found['rows']])
  for kind in rates.COMPARISONS:
    yield from (_sentence(kind, comparison) for comparison in found[kind])


def _rate_cells(row: dict[str, Any]) -> tuple[str, ...]:
  rate = row['images_per_second']
  return (
    row['network'],
    row['framework'],
    row['mode'],
    row['dtype'],
    f'{row["batch_size"]}',
    f'{rate["mean"]:.1f}',
    _number(rate['std'], '.1f'),
    f'{row["ms_per_step"]:.2f}',
    f'{row["tflops_per_second"]:.3g}',
    _number(row['mfu'], '.3f'),
    _number(row['gb_per_second'], '.0f'),
    f'{row["compile_s"]:.1f}',
    f'{row["warm_up_s"]:.1f}',
    _number(row['program_mib'], '.0f'),
  )


def _number(value: float | None, form: str) -> str:
  return '-' if value is None else format(value, form)


def _sentence(kind: str, comparison: dict[str, Any]) -> str:
  c = comparison
  where = f'{c["mode"]}, {c["dtype"]}, batch {c["batch_size"]}'
  if kind == 'against_torch':
    ratio = in_words(c['ratio'], '.2f', 'x the speed')
    return f'{c["network"]} over {c["over"]} ({where}): {ratio}'
  what = 'SE tax' if kind == 'se_tax' else 'time'
  added = in_words(c['percent'], '+.1f', ' %')
  return f'{what} of {c["network"]} over {c["over"]} ({c["framework"]}, {where}): {added}'


def of_logits(rows: list[dict[str, Any]]) -> Iterator[str]:
  """Yields the lines of rows of `agreement.logits`."""
  cells = [
    (r['network'], r['dtype'], f'{r["max_difference"]:.3g}', f'{r["spread"]:.3g}',
     f'{r["relative"]:.2g}')
    for r in rows
  ]  # fmt: skip
  yield from tables.aligned(_LOGITS, cells)
  worst = agreement.worst(rows)
  if worst > agreement.BOUND:
    yield f'float32 differs by {worst:.1e} of the spread, more than {agreement.BOUND:g}'


def of_feed(found: dict[str, Any]) -> Iterator[str]:
  """Yields the lines of `feeding.compare`."""
  cells = [
    (r['kind'], r['dtype'], f'{r["steps_per_dispatch"]}', f'{r["images_per_second"]["mean"]:.0f}',
     f'{100 * r["waiting_share"]["mean"]:.1f}', f'{r["cpu_cores_used"]["mean"]:.1f}',
     '-' if r['device_busy_share'] is None else f'{100 * r["device_busy_share"]:.0f}')
    for r in found['rows']
  ]  # fmt: skip
  yield from tables.aligned(_FEED, cells)
  for row in found['together']:
    yield f'{row["runs"]} at a time: {row["images_per_second"]:.0f} images/s'


def of_input(found: dict[str, Any]) -> Iterator[str]:
  """Yields the lines of `input_rate.measure`, given its record with the configuration."""
  config = found['config']
  cores, workers = os.cpu_count(), config['data']['workers']
  yield f'{config["data"]["name"]}, batches of {config["batch_size"]}, {cores} cores'
  for way in ('input', 'raw'):
    std = found[way]['std']
    spread = '' if std is None else f' ± {std:.0f}'
    cpu = f'{found[way]["cpu_ms"]["mean"]:.3f} ms of CPU an image'
    if way == 'input' and workers:
      cpu += f' here, beside {workers} workers'
    yield f'  {way:5} {found[way]["mean"]:8.0f}{spread} images/s, {cpu}'
  yield f'  ratio {found["ratio"]:8.3f}'
