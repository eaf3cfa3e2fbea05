"""The command line of `senet_jax.main`: `--config`, its fields, `--workdir`."""

import argparse
import json
import typing

from senet_jax import cli
from senet_jax.errors import UserError

if typing.TYPE_CHECKING:
  from ml_collections import ConfigDict


def make_parser(doc: str = '') -> cli.Parser:
  """Returns the parser, whose help begins with `doc`; imports nothing slow."""
  parser = cli.Parser('main', doc)
  add = parser.add_argument
  add('--config', required=True, metavar='NAME', help='a file, or the name of one in the package; '
      'NAME:VARIANT; list prints the names')  # fmt: skip
  add('--config.FIELD', metavar='VALUE', help='changes a field of the configuration')
  parser.add_bare(
    '--workdir',
    required=False,
    type=cli.new_workdir,
    metavar='DIR',
    help='takes checkpoints, metrics, curves; one that has a checkpoint is resumed',
  )
  add('--print_config', action='store_true', help='print all fields with their values, and end')
  add('--fields', action=_PrintFields, nargs='?', metavar='BEGINNING',
      help='print what each field does and may be, or each like optimizer, and end')  # fmt: skip
  add('--coordinator', metavar='HOST:PORT', help='of the first of several processes')
  add('--num_processes', type=cli.number, metavar='N', help='that train together')
  add('--process_id', type=int, metavar='I', help='of this one, from 0')
  add('--hosts_timeout', type=cli.number, default=300, metavar='SECONDS',
      help='to wait for the other processes at the start (300)')  # fmt: skip
  return parser


class _PrintFields(argparse.Action):
  """Prints the declarations of fields and ends, as `--help` does."""

  def __call__(self, parser, namespace, values, option_string=None):
    from senet_jax.config import FIELDS

    found = {name: field for name, field in FIELDS.items() if name.startswith(values or '')}
    if not found:
      raise UserError(f'--fields={values}: no field begins like that; --fields shows them all.')
    for name, field in found.items():
      print(f'{name} = {field.default!r}: {field.help} ({field.allowed})')
    parser.exit()


def print_config(config: 'ConfigDict') -> None:
  """Prints the fields of a configuration as plain YAML."""
  from ml_collections import ConfigDict

  # Tuples would be marked as Python's.
  print(ConfigDict(json.loads(json.dumps(config.to_dict()))))


def print_shipped(*, studies: bool = False) -> None:
  """Prints the names of the configurations, or studies, in the package, and what each is."""
  from senet_jax.config import reading

  for name, path in reading.shipped(studies=studies).items():
    print(f'{name:34} {cli.first_line(path)}')


def parse(argv: list[str]) -> argparse.Namespace:
  """Parses the command line.

  Returns:
    `config`, a `ConfigDict` with all overrides; `workdir`, a path; `print_config`; what
    `runtime.connect` takes, and `hosts_timeout` in seconds.

  Raises:
    UserError: a flag or field does not exist, or a value has the wrong type.
  """
  parser = make_parser()
  options, config = parse_with_config(parser, argv)
  if options.workdir is None and not options.print_config:
    parser.error('--workdir is missing: the directory for checkpoints, metrics and curves')
  options.config = config
  return options


def parse_with_config(
  parser: cli.Parser, argv: list[str]
) -> tuple[argparse.Namespace, 'ConfigDict']:
  """Parses a command line whose `--config` names a file and `--config.…` change its fields.

  Raises:
    UserError: see `parse`.
  """
  from senet_jax.config import reading

  options, overrides = parser.parse_with_overrides(argv)
  if options.config == 'list':
    print_shipped()
    parser.exit()
  return options, reading.load(options.config, overrides)
