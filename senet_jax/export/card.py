"""The card of an exported file: what it takes and gives, and which network it was made of."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from senet_jax import __version__
from senet_jax.config.defaults import FIELDS, MOST_PIXELS
from senet_jax.data.preprocessing import Transform
from senet_jax.errors import UserError
from senet_jax.storage import files

LOGITS, PROBABILITIES, FEATURES = 'logits', 'probabilities', 'features'
DTYPES = ('float32', 'bfloat16')
# More than the card of any network with the names of its classes.
_MOST_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Card:
  """The metadata of an exported file.

  Attributes:
    format: one of `formats.NAMES`.
    network: that it was made of, as it was named.
    model: the registered name.
    step: of the checkpoint.
    params_sha256: of the network's variables.
    git_commit: of the code that made the file; empty if nothing says it.
    versions: of the packages that made it.
    layout: of `images`, `NCHW` or `NHWC`.
    uint8: whether `images` are raw RGB, or normalised.
    batch: images at once; None: any number.
    outputs: their names.
    dtype: that the weights were rounded to.
    preprocessing: of images; `to_input` is in the file if `uint8`.
    class_names: of output 0, 1, …
    senet_jax: the version of this package.
  """

  format: str
  network: str
  model: str
  step: int
  params_sha256: str
  git_commit: str
  versions: dict[str, str]
  layout: str
  uint8: bool
  batch: int | None
  outputs: tuple[str, ...]
  dtype: str
  preprocessing: Transform
  class_names: tuple[str, ...]
  senet_jax: str = __version__

  def to_dict(self) -> dict[str, Any]:
    """Returns the card for JSON."""
    found = dataclasses.asdict(self)
    found['preprocessing'] = {'colours': 'RGB', **found['preprocessing']}
    return found

  def properties(self) -> dict[str, str]:
    """Returns the card as texts by name; those that are no texts are JSON."""
    found = self.to_dict()
    return {k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False)
            for k, v in found.items()}  # fmt: skip


def from_dict(found: Any, path: pathlib.Path) -> Card:
  """Returns the card that `to_dict` gave.

  Raises:
    UserError: it is not whole; the message names the file `path`.
  """
  names = {field.name for field in dataclasses.fields(Card)}
  if not isinstance(found, dict) or not names <= found.keys():
    raise UserError(f'{path} is no file of senet export: it does not say of which network it is.')
  try:
    return _checked({name: found[name] for name in names})
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise UserError(f'{path} is damaged: {" ".join(str(error).split())[:200]}.') from error


def from_properties(found: dict[str, str], path: pathlib.Path) -> Card:
  """Returns the card that `properties` gave; raises as `from_dict`."""
  texts = {field.name for field in dataclasses.fields(Card) if field.type is str}
  try:
    values = {k: v if k in texts else json.loads(v) for k, v in found.items() if k in _FIELDS}
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is damaged: what it says of its network is no JSON.') from error
  return from_dict(values, path)


_FIELDS = tuple(field.name for field in dataclasses.fields(Card))


def _checked(values: dict[str, Any]) -> Card:
  """Returns a card of values that have the right types.

  Raises:
    KeyError, TypeError, ValueError, OverflowError: they have not.
  """
  fields = dict(values.pop('preprocessing'))
  fields.pop('colours', None)
  height, width, channels = map(int, fields.pop('shape'))
  for name in ('mean', 'std'):
    fields[name] = tuple(map(float, fields[name]))
    if len(fields[name]) not in (1, 3):
      raise ValueError(f'{name} has {len(fields[name])} numbers')
  plain = Transform(shape=(height, width, channels), **fields)
  sizes = (height, width, plain.resize, plain.image_size)
  if channels != 3 or not all(isinstance(x, int) and 0 < x <= 2 * MOST_PIXELS for x in sizes):
    raise ValueError(f'images are {plain.shape}')
  if plain.interpolation not in FIELDS['data.interpolation'].choices or not (
    np.isfinite([*plain.mean, *plain.std]).all() and min(plain.std) > 0
  ):
    raise ValueError(f'preprocessing is {fields!r:.200}')
  wrong = [name for name, kind in _KINDS.items() if not isinstance(values[name], kind)]
  if wrong:
    raise TypeError(f'{wrong[0]} is {values[wrong[0]]!r:.80}')
  values['outputs'] = tuple(values['outputs'])
  for name, known in _KNOWN.items():
    if values[name] not in known:
      raise ValueError(f'{name} is {values[name]!r:.80}')
  if values['batch'] is not None and values['batch'] < 1:
    raise ValueError(f'batch is {values["batch"]}')
  values['class_names'] = tuple(map(str, values['class_names']))
  return Card(preprocessing=plain, **values)


_KNOWN: dict[str, Any] = {
  'layout': ('NCHW', 'NHWC'),
  'dtype': DTYPES,
  'outputs': [(first, *more) for first in (LOGITS, PROBABILITIES) for more in ((), (FEATURES,))],
}
_KINDS: dict[str, Any] = {
  **dict.fromkeys(
    ('format', 'network', 'model', 'params_sha256', 'git_commit', 'layout', 'dtype'), str
  ),
  'senet_jax': str,
  'step': int,
  'uint8': bool,
  'batch': int | None,
  'outputs': list,
  'class_names': list,
  'versions': dict,
}


# --- beside a file that has no place for it -------------------------------------------------------


def beside(path: pathlib.Path) -> pathlib.Path:
  """Returns where the card of a file is that has no place for one."""
  return path.with_name(f'{path.name}.json')


def write_beside(card: Card, path: pathlib.Path) -> None:
  """Writes the card of the file `path`."""
  files.write_json(beside(path), card.to_dict())


def read_json(path: pathlib.Path, of: pathlib.Path) -> Card:
  """Returns the card in a JSON file, of the exported file `of`.

  Raises:
    UserError: there is none, or it is damaged.
  """
  try:
    with path.open('rb') as file:
      found = json.loads(file.read(_MOST_BYTES))
  except (FileNotFoundError, NotADirectoryError) as error:
    raise UserError(
      f'{of} is no file of senet export, or {path.name}, which says of which network it is, is not '
      'beside it.'
    ) from error
  except (ValueError, RecursionError) as error:
    raise UserError(f'{path} is damaged: it is no JSON.') from error
  if not isinstance(found, dict):
    raise UserError(f'{path} is damaged: it is no card of senet export.')
  return from_dict(found, of)
