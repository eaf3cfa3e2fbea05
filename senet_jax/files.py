"""Files that are written whole or not at all."""

import json
import os
import pathlib
from typing import Any


def write_text(path: str | os.PathLike, text: str) -> None:
  """Replaces the file `path` by one with `text`; makes its directory if it is missing."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  partial.write_text(text)
  partial.replace(path)


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Replaces the file `path` by one with `value` as JSON.

  Raises:
    ValueError: a number is not finite, which JSON cannot say.
  """
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')
