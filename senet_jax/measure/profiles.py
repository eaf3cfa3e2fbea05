"""Profiles of programs: what a step costs on a target, and the lines that show it."""

from collections.abc import Callable, Iterator
from typing import Any

from senet_jax import config as config_lib
from senet_jax.config import reading
from senet_jax.measure import compiled, hlo, targets, trace
from senet_jax.measure.networks import TEXTBOOK_SE
from senet_jax.measure.textbook import TextbookResNet50
from senet_jax.reporting import tables

Profile = dict[str, Any]
_ARRAYS = 5


def profile(
  file: str,
  overrides: list[str],
  target: targets.Target,
  *,
  mode: str,
  textbook: str | None = None,
  per_device: int | None = None,
  top: int = 12,
  steps: int = 0,
  trace_directory: str | None = None,
) -> Profile:
  """Returns what the program of a configuration costs, compiled and perhaps run.

  Args:
    file: of the configuration.
    overrides: `--config.field=value`.
    target: the machine, which is prepared.
    mode: `train` or `inference`.
    textbook: `textbook` or `textbook_se`, in the place of the configuration's network.
    per_device: images a device; None: as `batch_size` has it.
    top: how many kernels and arrays to list.
    steps: to be timed, on the machine at hand.
    trace_directory: for a trace of three more.

  Raises:
    UserError: the configuration has a mistake, or the program does not fit the target.
  """
  config = reading.load(file, overrides)
  devices = target.devices()
  if per_device:
    config.batch_size = per_device * len(devices)
  config_lib.check(config)
  chip = target.chip or targets.here(devices[0].device_kind)
  other = None
  if textbook:
    other = TextbookResNet50(se=textbook == TEXTBOOK_SE, dtype=config.model.dtype)
  program = compiled.compile_program(config, devices, mode, other)
  found = compiled.report(program, chip, top)
  if steps or trace_directory:
    found['measured'] = compiled.measure(program, config, chip, max(steps, 1), trace_directory)
  if trace_directory:
    module = hlo.Module(program.compiled.as_text() or '')
    found['trace'] = trace.reduce(trace_directory, module).report(top)
  return {'name': textbook or config.model.name, 'overrides': overrides, **found}


def lines(profiles: list[Profile]) -> Iterator[str]:
  """Yields the lines that show profiles beside each other, and of two the ratio of the figures.

  Args:
    profiles: one or more of `profile`.
  """
  first = profiles[0]
  yield (
    f'{first["devices"]} devices, {first["batch_per_device"]} images each; all figures are of one '
    'device'
  )
  yield from _figures(profiles)
  for found, name in zip(profiles, _names(profiles), strict=True):
    yield f'\ncostliest kernels of {name} ({tables.size(found["bytes"])} in all)'
    for kernel in found['kernels']:
      near = f'near {kernel["near"]}' if kernel['near'] else 'of no layer'
      what = kernel['layer'] or f'{kernel["kernel"]} ({near})'
      yield f'  {tables.size(kernel["bytes"]):>8}  {what}  {" ".join(kernel["results"][:3])}'
    yield f'largest arrays of {name}'
    for array in found['arrays'][:_ARRAYS]:
      where = array['layer'] or '(of no layer)'
      yield f'  {tables.size(array["bytes"]):>8}  {array["array"]}  {where}'
    if 'trace' in found:
      yield f'\n{name}:'
      yield from trace.table(found['trace'])


def _names(profiles: list[Profile]) -> list[str]:
  """Returns the names of the networks, each with the fields that the first one has otherwise."""
  common = len(profiles[0]['overrides'])
  changes = [found['overrides'][common:] for found in profiles]
  return [
    ' '.join([found['name'], *(change.removeprefix(reading.FIELD) for change in more)])
    for found, more in zip(profiles, changes, strict=True)
  ]


def _figures(profiles: list[Profile]) -> Iterator[str]:
  rows = [('', *_names(profiles))]
  if len(profiles) == 2:
    rows[0] = (*rows[0], 'ratio')
  for label, value, form in _FIGURES:
    values: list[Any] = [value(found) for found in profiles]
    if None in values:
      continue
    cells = [form(v) for v in values]
    if len(values) == 2 and not isinstance(values[0], str):
      cells.append(f'{values[0] / values[1]:.4f}' if values[1] else '')
    rows.append((label, *cells))
  width = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(rows[0]))]
  for row in rows:
    yield '  ' + '  '.join(cell.ljust(w) for cell, w in zip(row, width, strict=False)).rstrip()


def _figure(*keys: str, scale: float = 1) -> Callable[[Profile], Any]:
  """Returns a function that looks up a figure by its keys; it gives None where there is none."""

  def get(found: Profile) -> Any:
    value: Any = found
    for key in keys:
      value = value.get(key) if isinstance(value, dict) else None
    return value / scale if isinstance(value, int | float) and scale != 1 else value

  return get


def _all_reduced(found: Profile) -> str:
  return (
    ', '.join(
      f'{collective["count"]} {kind}, {collective["bytes"] / 1e6:.2f} MB'
      for kind, collective in found['collectives'].items()
    )
    or 'none'
  )


def _fits(found: Profile) -> str | None:
  memory = found['memory']
  if 'fits' not in memory:
    return None
  if memory['fits']:
    return 'yes'
  return f'no, by {tables.size(memory["peak"] - memory["available"])}'


_FIGURES = (
  ('GFLOP of convolutions and products', _figure('flops', scale=1e9), '{:.1f}'.format),
  ('read and written', _figure('bytes'), tables.size),
  ('FLOP a byte', _figure('intensity'), '{:.1f}'.format),
  ('compute alone, ms', _figure('roofline', 'compute_s', scale=1e-3), '{:.2f}'.format),
  ('memory alone, ms', _figure('roofline', 'memory_s', scale=1e-3), '{:.2f}'.format),
  ('bound', _figure('roofline', 'bound'), '{}'.format),
  ('images/s at the roofline', _figure('roofline', 'images_per_second'), '{:.0f}'.format),
  ('peak memory', _figure('memory', 'peak'), tables.size),
  ('fits', _fits, '{}'.format),
  ('images that fit, about', _figure('memory', 'about_largest_batch'), '{}'.format),
  ('collectives', _all_reduced, '{}'.format),
  ('compile time, s', _figure('compile_s'), '{:.1f}'.format),
  ('measured step, ms', _figure('measured', 'step_s', scale=1e-3), '{:.2f}'.format),
  ('measured images/s', _figure('measured', 'images_per_second'), '{:.1f}'.format),
  ('MFU', _figure('measured', 'mfu'), '{:.3f}'.format),
)
