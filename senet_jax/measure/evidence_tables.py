"""The tables of README and docs that say what was measured on accelerators, from the records."""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from senet_jax.errors import UserError
from senet_jax.measure import evidence, plan, targets
from senet_jax.reporting import tables

Record = dict[str, Any]
_NOT_RUN = 'not run'


def read(results: pathlib.Path) -> dict[str, dict[str, Record]]:
  """Returns the completed records below `results/evidence`, by device and name.

  Raises:
    UserError: a file is no record.
  """
  found: dict[str, dict[str, Record]] = {}
  for path in sorted((results / 'evidence').glob('*/*.json')):
    if path.name == evidence.INDEX:
      continue
    record = plan.read_record(path)
    if record['measurement']['status'] != plan.DONE:
      continue
    name = record['measurement']['name']
    try:
      _of_device({name: record}, results)
      found.setdefault(record['device'], {})[name] = record
    except (AttributeError, LookupError, TypeError, ValueError) as error:
      raise UserError(f'{path} is damaged ({error!r}); measure it again.') from error
  return found


def overview(results: pathlib.Path) -> str:
  """Returns what the README shows: what SE costs, Tables 4 and 5, and what was not run."""
  groups = ('se_tax', 'torch', 'cifar')
  shown = [m for m in plan.MEASUREMENTS if m.group in groups and m.name != 'cifar_rate']
  found = read(results)
  parts = []
  for device, records in found.items():
    known = [records[m.name] for m in shown if m.name in records]
    notes = dict.fromkeys(record['note'] for record in known if record.get('note'))
    parts += [_cost(device, known), _errors(records), *(f'Note: {note}.' for note in notes)]
  missing = [m.what for m in shown if not any(m.name in records for records in found.values())]
  parts.append(f'Not run on an accelerator: {"; ".join(missing)}.' if missing else '')
  return '\n\n'.join(part for part in parts if part)


def _cost(device: str, records: Sequence[Record]) -> str:
  """Returns a table of what SE adds to the time of a network: ours, plainly, in PyTorch."""
  rows: dict[tuple, dict[str, str]] = {}
  for record in records:
    for tax in record.get('se_tax', ()):
      network, _, changed = tax['network'].partition(':')
      if changed:
        continue
      plainly = network == 'textbook_se'
      name = 'se_resnet50' if plainly else network
      kind = 'plain' if plainly else tax.get('framework', 'senet_jax')
      row = rows.setdefault((name, tax['mode'], tax['batch_size']), {})
      row.setdefault(kind, f'{tax["percent"]["median"]:+.1f} %')
    for ratio in record.get('against_torch', ()):
      if _key(ratio) in rows:
        rows[_key(ratio)]['ratio'] = f'{ratio["ratio"]["median"]:.2f}'
  kinds = ('senet_jax', 'plain', 'torch', 'ratio')
  columns = (device, 'mode', 'images', 'SE adds', 'written as in Flax\'s example', 'in PyTorch',
             'our speed / PyTorch\'s')  # fmt: skip
  lines = [
    (f'`{name}`', mode, str(batch), *(row.get(kind, '') for kind in kinds))
    for (name, mode, batch), row in sorted(
      rows.items(), key=lambda item: (item[0][1] != 'train', item[0][2])
    )
  ]
  return _table(columns, lines)


def details(results: pathlib.Path) -> str:
  """Returns what `docs/performance.md` shows: all measurements, device by device."""
  found = read(results)
  if not found:
    return '\n\n'.join(_of_device({}, results))
  parts = []
  for device, records in found.items():
    parts += [f'### {device}', *_of_device(records, results)]
  return '\n\n'.join(parts)


def _of_device(records: dict[str, Record], results: pathlib.Path) -> list[str]:
  """Returns the tables of one device that have rows, and the list of all measurements."""
  rows = [
    (f'`{m.name}`', m.what, evidence.headline(records[m.name]) if m.name in records else _NOT_RUN)
    for m in plan.MEASUREMENTS
  ]
  measurements = _table(('measurement', 'what', 'result'), rows)
  found = _speed(records, results), _torch(records), _errors(records), measurements
  return [table for table in found if table]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  return tables.markdown(columns, rows) if rows else ''


def _in_group(records: dict[str, Record], group: str) -> Iterator[Record]:
  for measurement in plan.MEASUREMENTS:
    if measurement.group == group and measurement.name in records:
      yield records[measurement.name]


def _speed(records: dict[str, Record], results: pathlib.Path) -> str:
  """Returns a table of what networks cost, beside what was predicted ahead of time."""
  rows = []
  for record in _in_group(records, 'se_tax'):
    taxes = {_key(tax): tax['percent']['median'] for tax in record['se_tax']}
    for row in record['rows']:
      predicted = _predicted(results, record['device'], row)
      rows.append(
        [
          f'`{row["network"]}`',
          row['mode'],
          str(row['batch_size']),
          f'{row["ms_per_step"]:.2f}',
          f'{row["images_per_second"]["median"]:,.0f}',
          _number(row['mfu'], '.3f'),
          _number(row['gb_per_second'], ',.0f'),
          _number(row['of_copy_rate'], '.0%'),
          _number(row['bytes_per_step'], '.2f', 1e9),
          _number(predicted, '.2f', 1e9),
          _number(taxes.get(_key(row)), '+.1f'),
        ]
      )
  columns = ('network', 'mode', 'batch', 'ms', 'images/s', 'MFU', 'GB/s', 'of the copy rate',
             'GB a step', 'GB predicted', 'SE tax, %')  # fmt: skip
  return _table(columns, rows)


def _key(row: dict[str, Any]) -> tuple:
  return row['network'], row['mode'], row['batch_size']


def _predicted(results: pathlib.Path, device: str, row: dict[str, Any]) -> int | None:
  """Returns the bytes of the same step compiled ahead of time for such a chip, None if unknown."""
  chip = targets.here(device)
  if chip is None or row['mode'] != 'train':
    return None
  for path in sorted((results / 'benchmarks').glob('profile_*.json')):
    profile = json.loads(path.read_text())
    if profile['target'].split(':')[1:2] != [chip.name] or 'inference' in profile['command']:
      continue
    for found in profile['profiles']:
      size = found['batch_per_device'] == row['batch_per_device']
      if size and found['name'] == row['network']:
        return found['bytes']
  return None


def _torch(records: dict[str, Record]) -> str:
  rows = []
  for record in _in_group(records, 'torch'):
    rates = {(r['framework'], *_key(r)): r['images_per_second'] for r in record['rows']}
    for ratio in record['against_torch']:
      ours, theirs = (rates[name, *_key(ratio)]['median'] for name in ('senet_jax', 'torch'))
      spread = ratio['ratio']
      std = '' if spread['std'] is None else f' ± {spread["std"]:.2f}'
      rows.append(
        [
          f'`{ratio["network"]}`',
          ratio['mode'],
          str(ratio['batch_size']),
          f'{ours:,.0f}',
          f'{theirs:,.0f}',
          f'{spread["mean"]:.2f}{std}',
        ]
      )
  columns = ('network', 'mode', 'batch', 'ours, images/s', 'PyTorch, images/s', 'ratio of a turn')
  return _table(columns, rows)


def _errors(records: dict[str, Record]) -> str:
  """Returns a table of the errors of trained networks, beside the published ones."""
  rows = {}
  for group in ('cifar', 'student'):
    for record in _in_group(records, group):
      for row in record['rows']:
        if row.get('mean') is None:
          continue
        rate = [r for r in row['images_per_second'].values() if r]
        std = '' if row['std'] is None else f' ± {row["std"]:.2f} (n = {len(row["errors"])})'
        rows[row['row']] = [  # one with more seeds takes the place of one with fewer
          f'`{row["row"]}`',
          _number(row['published'], '.2f'),
          f'{row["mean"]:.2f}{std}',
          _number(row['difference'], '+.2f'),
          _number(min(row['best'].values()), '.2f') if row['best'] else '',
          f'{50_000 / (sum(rate) / len(rate)):.1f}' if rate else '',
        ]
  columns = ('run', 'published error, %', 'ours, %', 'gap', 'best, %', 'seconds an epoch')
  return _table(columns, list(rows.values()))


def _number(value: float | None, form: str, scale: float = 1) -> str:
  return '' if value is None else format(value / scale, form)
