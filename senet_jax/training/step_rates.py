"""Rates of training steps that were measured apart from the runs, each network in turn with others.

What runs logged cannot be compared where they shared a machine, or were made on several.
"""

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from senet_jax.errors import UserError
from senet_jax.workdir import network


def read(path: pathlib.Path) -> Callable[[ConfigDict], float]:
  """Reads a record of `tools.benchmark --models=… --mode=train`.

  Args:
    path: of the JSON file.

  Returns:
    A function from the configuration of a run to the images per second of its training step; it
    raises UserError where the record has not that network, dtype and batch size.

  Raises:
    UserError: the file cannot be read, or is no such record.
  """
  try:
    rows = json.loads(path.read_bytes())['rows']
    rates = {
      _key(row['model'], row['options'], row['dtype'], row['batch_size']): _rate(row)
      for row in rows
      if (row['mode'], row['framework']) == ('train', 'senet_jax')
    }
  except OSError as error:
    raise UserError(f'{path} cannot be read: {error.strerror}; check the path.') from None
  except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
    raise UserError(
      f'{path} is no record of tools.benchmark --models ({type(error).__name__}); give the file of '
      'its --output.'
    ) from None

  def rate(config: ConfigDict) -> float:
    name, options = config.model.name, network.network_options(config)
    wanted = _key(name, options, config.model.dtype, config.batch_size)
    if wanted not in rates:
      label = ':'.join([name, *(f'{field}={value}' for field, value in options.items())])
      raise UserError(
        f'{path} has no training rate of {label}, {config.model.dtype}, batch {config.batch_size}; '
        'measure it with tools.benchmark, in one run with the others.'
      )
    return rates[wanted]

  return rate


def _key(*facts: Any) -> str:
  return json.dumps(facts, sort_keys=True)


def _rate(row: dict[str, Any]) -> float:
  found = float(row['images_per_second']['median'])
  if not 0 < found < math.inf:
    raise ValueError(f'{found} images a second')
  return found
