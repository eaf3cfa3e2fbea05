"""Configurations and studies read from files, with fields changed from the command line.

Not `ml_collections.config_flags`: that one reads `sys.argv` behind the caller's back and reports
mistakes as tracebacks.
"""

import ast
import contextlib
import importlib.util
import inspect
import os
import pathlib
import traceback
import types
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from senet_jax.config.checks import (
  SECTIONS,
  check_fields,
  flatten,
  from_fields,
  owner,
  section_of,
)
from senet_jax.config.defaults import FIELDS
from senet_jax.config.fields import Field
from senet_jax.config.study import Study
from senet_jax.errors import UserError, did_you_mean, one_of, shown

# How arguments begin that change a field.
FIELD, NO_FIELD = '--config.', '--noconfig.'
# Errors of Python for a text that is no value; the last two are for thousands of brackets.
_NO_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)
# In a checkout a link to its `configs/`.
_CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
# What a file is called as a module, by which its frames are known; and methods of ConfigDict.
_MODULE = 'config_file'
_ACCESSES = ('__getattr__', '__getitem__', '__setattr__', '__setitem__')
_ALL_FIELDS = 'See --fields for all of them.'
_BOOLEANS = {'true': True, 'false': False, '1': True, '0': False}


def load(path: str, overrides: list[str]) -> ConfigDict:
  """Reads a configuration file and applies overrides.

  Args:
    path: of a file with `get_config()`, or `file.py:argument` for `get_config('argument')`.
    overrides: `--config.field=value`, for a Boolean also `--config.field` and `--noconfig.field`.

  Raises:
    UserError: see `parse`.
  """
  with _mistakes_in(f'--config={path}'):
    config = _call('--config', path, 'get_config')
    check_fields(config, 'get_config()')
  for override in overrides:
    apply(config, override)
  with _mistakes_in(f'--config={path}'):
    return from_fields(dict(flatten(config)))


def load_study(path: str) -> Study:
  """Reads a study.

  Args:
    path: of a file with `get_study()`, or `file.py:size` for `get_study('size')`.

  Raises:
    UserError: the file is not there, or makes no study.
  """
  with _mistakes_in(f'--study={path}'):
    study = _call('--study', path, 'get_study')
    if not isinstance(study, Study):
      raise UserError(f'get_study() returns {type(study).__name__}, not a Study.')
    return study


@contextlib.contextmanager
def _mistakes_in(source: str) -> Iterator[None]:
  """Makes a `UserError` that begins with `source` of whatever a user's file raises within it."""
  try:
    yield
  except KeyboardInterrupt:
    raise
  except UserError as error:
    raise UserError(f'{source}: {error}') from error
  except BaseException as error:  # also SystemExit: a command that exits with 0 is taken for done
    where = f'{source}{_line_of(error)}'
    try:
      _check_access(error)
    except UserError as clearer:
      raise UserError(f'{where}: {clearer}') from error
    raise UserError(f'{where}: {type(error).__name__}: {error}') from error


def _line_of(error: BaseException) -> str:
  """Returns the last line of the user's file that was on the way to an error, in words."""
  lines = [
    line
    for frame, line in traceback.walk_tb(error.__traceback__)
    if frame.f_globals.get('__name__') == _MODULE
  ]
  return f', line {lines[-1]}' if lines else ''


def _check_access(error: BaseException) -> None:
  """Says clearly what ml_collections says of a field with the values of all fields.

  Raises:
    UserError: `error` is of a field that no configuration has, or of a value that it may not have.
  """
  for frame, _ in traceback.walk_tb(error.__traceback__):
    scope = frame.f_locals
    part, leaf = scope.get('self'), scope.get('key', scope.get('attribute'))
    if not isinstance(part, ConfigDict) or frame.f_code.co_name not in _ACCESSES:
      continue
    name = f'{section_of(part)}{leaf}'
    one_of('the field', name, [*FIELDS, *SECTIONS], _ALL_FIELDS)
    if 'value' in scope and name in SECTIONS:
      several = [field for field in FIELDS if field.startswith(f'{name}.')]
      raise UserError(f'config.{name} is no field but has some; set config.{several[0]}, ….')
    if 'value' in scope:
      FIELDS[name].accepted(name, scope['value'])


def _call(flag: str, path: str, function: str) -> Any:
  """Calls a function of the user's file, with what is behind the colon, if anything is."""
  name, _, argument = path.partition(':')
  get = getattr(_module(_file(name, studies=flag == '--study')), function, None)
  if not callable(get):
    raise UserError(f'there is no function {function}() in it.')
  if argument and not inspect.signature(get).parameters:
    raise UserError(f'it has no variants; leave :{argument} out.')
  return get(argument) if argument else get()


def shipped(*, studies: bool = False) -> dict[str, pathlib.Path]:
  """Returns the configurations, or the studies, that come with the package, by their names."""
  folder = _CONFIGS / 'studies' if studies else _CONFIGS
  return {path.stem: path for path in sorted(folder.glob('*.py'))}


def _file(name: str, *, studies: bool) -> pathlib.Path:
  """Returns the file of a path or, if there is none, of the name of one in the package.

  Raises:
    UserError: there is neither.
  """
  if os.path.isfile(name):  # also of a name that cannot be one
    return pathlib.Path(name)
  known = shipped(studies=studies)
  folder = 'configs/studies/' if studies else 'configs/'
  stem = name.removeprefix(folder).removesuffix('.py')
  if stem in known:
    return known[stem]
  guess = did_you_mean(stem, known)
  where = f'they are {", ".join(known)}.' if studies else '--config=list prints them.'
  raise UserError(
    f'there is no file {shown(name)[1:-1]}, and none of that name in the package; '
    f'{guess and f"{guess} "}{where}'
  )


def apply(config: ConfigDict, override: str) -> None:
  """Sets one field of `config` from the command line.

  Raises:
    UserError: the field does not exist, or the value has the wrong type.
  """
  fields = dict(flatten(config))
  flag, equals, text = override.partition('=')
  field = flag.removeprefix(NO_FIELD).removeprefix(FIELD)
  one_of('the field', field, fields, _ALL_FIELDS)
  declared = FIELDS[field]
  if not equals:
    if declared.kind is not bool:
      raise UserError(f'{override} needs a value: {override}=…')
    text = str(flag.startswith(FIELD))
  section, leaf = owner(config, field)
  try:
    value = _parsed(declared, text)
  except (KeyError, *_NO_LITERAL) as error:
    raise UserError(
      f'{flag}={shown(text)} must be {declared.allowed}; it is {fields[field]!r} without this flag.'
    ) from error
  with config.ignore_type():  # of the user's own file; it is checked here
    section[leaf] = declared.accepted(field, value)


def _parsed(field: Field, text: str) -> Any:
  """Returns the value that `text` stands for in a field."""
  if field.optional and text == 'None':
    return None
  if text == field.word or (field.former and text == field.former[0]):
    return text
  if field.lengths is not None:
    return ast.literal_eval(text)
  return _BOOLEANS[text.lower()] if field.kind is bool else field.kind(text)


def _module(file: pathlib.Path) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location(_MODULE, file)
  if spec is None or spec.loader is None:
    raise ImportError(f'{file} is no Python file')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
