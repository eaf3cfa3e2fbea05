"""Other processes of this machine."""

import os
from typing import Any


def is_running(number: Any) -> bool:
  """Returns whether there is a process of this number, whoever started it."""
  try:
    os.kill(number, 0)
  except PermissionError:
    return True
  except (OSError, OverflowError, TypeError):
    return False
  return True
