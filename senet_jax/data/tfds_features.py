"""The features of a prepared data set of tfds, whose file names Python classes to import."""

import json
from typing import Any

from senet_jax.errors import UserError
from senet_jax.storage.buckets import Path

_FILE = 'features.json'
# Below a data set are its configurations and versions.
_DEPTHS = ('', '*/', '*/*/')
_KEY, _OWN = 'pythonClassName', 'tensorflow_datasets.core.features.'


def check(folder: Path) -> None:
  """Checks that tfds would import only its own classes to read what is prepared in a folder.

  Args:
    folder: of a data set, a configuration or a version.

  Raises:
    UserError: another class is named, or a file that names them is damaged.
  """
  for depth in _DEPTHS:
    for path in folder.glob(f'{depth}{_FILE}'):
      try:
        names = list(_classes(json.loads(path.read_bytes())))
      except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is damaged ({error}); prepare the data set again.') from error
      for name in names:
        if not isinstance(name, str) or not name.startswith(_OWN):
          raise UserError(
            f'{path} asks for the Python class {name!r}; only the features of tfds itself '
            f'({_OWN}…) are loaded. Prepare the data set again with them.'
          )


def _classes(value: Any):
  if isinstance(value, dict):
    if _KEY in value:
      yield value[_KEY]
    value = list(value.values())
  if isinstance(value, list):
    for part in value:
      yield from _classes(part)
