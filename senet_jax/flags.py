"""The flags of `senet_jax.main`: `--config`, its fields, `--workdir`."""

import argparse
import ast
import contextlib
import pathlib
from collections.abc import Iterator

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from senet_jax import cli, config as config_lib
from senet_jax.errors import UserError, one_of

_FIELD = '--config.'


def parse(argv: list[str]) -> argparse.Namespace:
  """Parses the command line.

  Returns:
    `config`, a `ConfigDict` with all overrides; `workdir`, a path; `print_config`.

  Raises:
    UserError: a flag or field does not exist, or a value has the wrong type.
  """
  parser = cli.Parser('main', '')
  parser.add_argument('--config', required=True, help='file with get_config(), :argument behind it')
  parser.add_argument('--workdir', type=pathlib.Path)
  parser.add_argument('--print_config', action='store_true')
  overrides = [a for a in argv if a.startswith((_FIELD, '--noconfig.'))]
  options = parser.parse_args([a for a in argv if a not in overrides])
  if options.workdir is None and not options.print_config:
    parser.error('--workdir is missing: the directory for checkpoints, metrics and curves')
  options.config = load(options.config, overrides)
  return options


def load(path: str, overrides: list[str]) -> ConfigDict:
  """Reads the configuration file `path` (`file.py` or `file.py:argument`) and applies overrides.

  Args:
    path: of a file with `get_config()`.
    overrides: `--config.field=value`, for a Boolean also `--config.field` and `--noconfig.field`.

  Raises:
    UserError: see `parse`.
  """
  file = pathlib.Path(path.partition(':')[0])
  if not file.is_file():
    raise UserError(f'--config={path}: there is no file {file}; see configs/README.md for a list.')
  with _config_errors(path):
    config = _parse([f'--config={path}'])
  fields = dict(config_lib.flatten(config))
  for override in overrides:
    name, equals, value = override.removeprefix('--no').removeprefix('--').partition('=')
    field = name.removeprefix('config.')
    one_of('the field --config.X with X', field, fields)
    if not equals and not isinstance(fields[field], bool):
      raise UserError(f'{override} needs a value: {override}=…')
    try:
      config = _parse([f'--config={path}', override])
    except (absl_flags.Error, TypeError, ValueError) as error:
      kind = type(fields[field]).__name__
      raise UserError(
        f'{override.partition("=")[0]}={value!r} has the wrong type; '
        f'it is a {kind} ({fields[field]!r} in {file}).'
      ) from error
  config = _parse([f'--config={path}', *overrides])
  for field in ('fused', 'stages'):  # of several types: their flags are text
    config.model.se[field] = _literal(config.model.se[field])
  return config


def _literal(value):
  """`'False'` and `'(2, 3)'` as what they say; other text, such as `'auto'`, stays."""
  with contextlib.suppress(ValueError, SyntaxError):
    return ast.literal_eval(value) if isinstance(value, str) else value
  return value


def _parse(argv: list[str]) -> ConfigDict:
  # Values of its own: flags exist only while a command runs.
  values = absl_flags.FlagValues()
  holder = config_flags.DEFINE_config_file('config', flag_values=values, lock_config=True)
  values(['main', *argv])
  return holder.value


@contextlib.contextmanager
def _config_errors(path: str) -> Iterator[None]:
  """Words what a mistake in a configuration file raises."""
  try:
    yield
  except UserError:
    raise
  except (AttributeError, KeyError, TypeError, ValueError, SyntaxError, ImportError) as error:
    raise UserError(f'--config={path}: {" ".join(str(error).split())}') from error
