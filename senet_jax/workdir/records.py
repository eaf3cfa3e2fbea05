"""The records of a run, `metrics.jsonl`: `kind`, `step`, `epoch`, and other numbers by name."""

import json
import sys
from typing import Any

from senet_jax.storage.buckets import Path

KINDS = ('train', 'eval')


def read_records(path: Path) -> list[dict[str, Any]]:
  """Returns the records of a `metrics.jsonl`; lines that hold none are left out."""
  return _read(path)[0]


def damaged_lines(path: Path) -> int:
  """Returns how many lines of a `metrics.jsonl` hold no record, but for a last one cut short."""
  return _read(path)[1]


def is_number(value: Any) -> bool:
  """Returns whether a value of a JSON file is a number, and a finite one."""
  return isinstance(value, int | float) and abs(value) <= sys.float_info.max


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
      case {'kind': kind, 'step': int(), 'epoch': _, **numbers} if kind in KINDS and all(
        is_number(value) for value in (record['epoch'], *numbers.values())
      ):
        records.append(record)
      case _:
        damaged += 1
  return records, damaged
