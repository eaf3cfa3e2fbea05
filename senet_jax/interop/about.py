"""Statements of a file, or of one beside it, about the network whose weights it holds."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any, TypeGuard

from senet_jax.interop.names import Images

CONFIG = 'config.json'
_MOST_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class About:
  """A file's word on the network in it.

  Attributes:
    architecture: its name in the code base it is of; None: the file does not say.
    images: what it wants of images, as far as the file says, by the fields of `Images`.
    class_names: of its outputs; None: the file does not say.
  """

  architecture: str | None = None
  images: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  class_names: tuple[str, ...] | None = None


def beside(path: pathlib.Path, metadata: Mapping[str, str]) -> About:
  """Returns what the metadata of a `.safetensors` file say, or the `config.json` beside it.

  The latter is that of a model of timm on the Hugging Face hub; any other is no word on it.
  """
  try:
    with (path.parent / CONFIG).open('rb') as file:
      config = json.loads(file.read(_MOST_BYTES))
  except (OSError, ValueError, RecursionError):
    config = {}
  config = config if isinstance(config, dict) else {}
  named = (config.get('architecture'), metadata.get('architecture'), metadata.get('arch'))
  architecture = next((name for name in named if isinstance(name, str) and name), None)
  if not isinstance(config.get('architecture'), str):
    return About(architecture)
  return About(architecture, _images(config), _class_names(config))


def _images(config: Mapping[str, Any]) -> dict[str, Any]:
  """The fields of `Images` in a configuration of timm."""
  given = config.get('pretrained_cfg')
  given = given if isinstance(given, dict) else {}
  found: dict[str, Any] = {}
  for name in ('mean', 'std'):
    match given.get(name):
      case [*values] if len(values) == 3 and all(map(_is_share, values)):
        found[name] = tuple(round(255 * value, 6) for value in values)
  match given.get('input_size'):
    case [_, int(height), int(width)] if height == width and 0 < height < 2**14:
      found['size'] = height
  size, share = found.get('size', Images().size), given.get('crop_pct')
  if _is_share(share) and share > 0.1:
    found['resize'] = math.floor(size / share)
  if given.get('interpolation') in ('bilinear', 'bicubic'):
    found['interpolation'] = given['interpolation']
  return found


def _is_share(value: Any) -> TypeGuard[float]:
  return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _class_names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
  match config.get('label_names'):
    case [*names] if names and all(isinstance(name, str) for name in names):
      return tuple(names)
  return None
