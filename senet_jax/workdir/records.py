"""The records of a run, `metrics.jsonl`."""

import json
from typing import Any

from senet_jax.storage.buckets import Path


def read_records(path: Path) -> list[dict[str, Any]]:
  """Returns the records of a `metrics.jsonl`; a last line that a kill cut short is left out."""
  records = []
  if path.exists():
    for line in path.read_bytes().decode(errors='replace').splitlines():
      try:
        records.append(json.loads(line))
      except json.JSONDecodeError:
        break
  return records
