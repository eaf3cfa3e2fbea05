"""Trained networks that are in the package, by their names."""

import hashlib
import importlib.resources
import json
import os
import pathlib
from typing import Any

from senet_jax.errors import UserError

_INDEX = 'index.json'


def folder() -> pathlib.Path:
  """Returns where the networks are, as `NAME.safetensors`; their index has checksums and cards."""
  return pathlib.Path(str(importlib.resources.files('senet_jax'))) / 'pretrained'


def list_pretrained() -> list[str]:
  """Returns the names of the trained networks in the package, for `senet_jax.load`."""
  return sorted(_index())


def is_name(name: str | os.PathLike) -> bool:
  """Returns whether `name` is a network in the package; a directory of that name is a workdir."""
  return str(name) in list_pretrained() and not pathlib.Path(name).is_dir()


def facts(name: str) -> dict[str, Any]:
  """Returns what is known of a network in the package: data, error, how it was trained."""
  return _index()[name]


def path_of(name: str | os.PathLike) -> pathlib.Path:
  """Returns the file of a network in the package.

  Raises:
    UserError: it is not as it was published.
  """
  path = folder() / f'{name}.safetensors'
  expected = facts(str(name))['sha256']
  if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
    raise UserError(f'{path} is damaged: its checksum is another one; install senet_jax again.')
  return path


def _index() -> dict[str, dict[str, Any]]:
  """Returns the checksum and card of each network, by its name."""
  return json.loads((folder() / _INDEX).read_text('utf-8'))
