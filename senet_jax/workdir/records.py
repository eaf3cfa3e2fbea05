"""The records of a run, `metrics.jsonl`."""

import json
from typing import Any

from senet_jax.storage.buckets import Path

KINDS = ('train', 'eval')


def read_records(path: Path) -> list[dict[str, Any]]:
  """Returns the records of a `metrics.jsonl`; lines that hold none are left out."""
  return _read(path)[0]


def damaged_lines(path: Path) -> int:
  """Returns how many lines of a `metrics.jsonl` hold no record, but for a last one cut short."""
  return _read(path)[1]


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
  lines = path.read_bytes().decode(errors='replace').splitlines() if path.exists() else []
  records, damaged = [], 0
  for number, line in enumerate(lines, 1):
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):
      damaged += number < len(lines)  # a kill cuts the last one short
      continue
    match record:
      case {'kind': kind, 'step': int(), 'epoch': int() | float()} if kind in KINDS:
        records.append(record)
      case _:
        damaged += 1
  return records, damaged
