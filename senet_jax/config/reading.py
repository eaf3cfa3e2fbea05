"""Configurations and studies read from files, with fields changed from the command line.

Not `ml_collections.config_flags`: that one reads `sys.argv` behind the caller's back and reports
mistakes as tracebacks.
"""

import ast
import importlib.util
import inspect
import os
import pathlib
import types
from typing import Any

from ml_collections import ConfigDict

from senet_jax.config.checks import OLD_VALUES, check_fields, flatten
from senet_jax.config.study import Study
from senet_jax.errors import UserError, one_of

# How arguments begin that change a field.
FIELD, NO_FIELD = '--config.', '--noconfig.'
# `(2, 3)` or `all`.
_OF_SEVERAL_TYPES = ('model.se.stages',)
# What Python makes of a text that is no value; the last two of thousands of brackets.
_NO_LITERAL = (ValueError, TypeError, SyntaxError, MemoryError, RecursionError)
_BOOLEANS = {'true': True, 'false': False, '1': True, '0': False}


def load(path: str, overrides: list[str]) -> ConfigDict:
  """Reads a configuration file and applies overrides.

  Args:
    path: of a file with `get_config()`, or `file.py:argument` for `get_config('argument')`.
    overrides: `--config.field=value`, for a Boolean also `--config.field` and `--noconfig.field`.

  Raises:
    UserError: see `parse`.
  """
  config = _call('--config', path, 'get_config')
  check_fields(config, f'--config={path}: get_config()')
  for override in overrides:
    apply(config, override)
  return config


def load_study(path: str) -> Study:
  """Reads a study.

  Args:
    path: of a file with `get_study()`, or `file.py:size` for `get_study('size')`.

  Raises:
    UserError: the file is not there, or makes no study.
  """
  study = _call('--study', path, 'get_study')
  if not isinstance(study, Study):
    raise UserError(f'--study={path}: get_study() returns {type(study).__name__}, not a Study.')
  return study


def _call(flag: str, path: str, function: str) -> Any:
  """Calls a function of the user's file, with what is behind the colon, if anything is."""
  name, _, argument = path.partition(':')
  file = pathlib.Path(name)
  if not os.path.isfile(file):  # also of a name that cannot be one
    raise UserError(f'{flag}={path}: there is no file {file}; see configs/README.md for a list.')
  try:
    get = getattr(_module(file), function)
    if argument and not inspect.signature(get).parameters:
      raise UserError(f'it has no variants; leave :{argument} out.')
    return get(argument) if argument else get()
  except UserError as error:
    raise UserError(f'{flag}={path}: {error}') from error
  except Exception as error:  # the file is the user's: whatever it raises is a mistake in it
    raise UserError(f'{flag}={path}: {type(error).__name__}: {error}') from error


def apply(config: ConfigDict, override: str) -> None:
  """Sets one field of `config` from the command line.

  Raises:
    UserError: the field does not exist, or the value has the wrong type.
  """
  fields = dict(flatten(config))
  flag, equals, text = override.partition('=')
  field = flag.removeprefix(NO_FIELD).removeprefix(FIELD)
  one_of('the field --config.X with X', field, fields, 'See --print_config for all fields.')
  *parents, leaf = field.split('.')
  owner = config
  for parent in parents:
    owner = owner[parent]
  kind = owner.get_type(leaf)
  if not equals:
    if kind is not bool:
      raise UserError(f'{override} needs a value: {override}=…')
    text = str(flag.startswith(FIELD))
  old, meaning = OLD_VALUES.get(field, (None, None))
  text = str(meaning) if text == old else text
  try:
    owner[leaf] = _literal(text) if field in _OF_SEVERAL_TYPES else _value(kind, text)
  except (KeyError, *_NO_LITERAL) as error:
    raise UserError(
      f'{flag}={text!r} has the wrong type: it takes {kind.__name__}, '
      f'and is {fields[field]!r} without this flag.'
    ) from error


def _value(kind: type, text: str) -> Any:
  """The value of type `kind` that `text` stands for."""
  if kind is bool:
    return _BOOLEANS[text.lower()]
  if kind is tuple:
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, tuple | list) else (value,)
  return kind(text)


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except _NO_LITERAL:
    return text


def _module(file: pathlib.Path) -> types.ModuleType:
  spec = importlib.util.spec_from_file_location('config_file', file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
