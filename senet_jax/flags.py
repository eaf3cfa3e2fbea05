"""The command line of `senet_jax.main`: `--config`, its fields, `--workdir`."""

import argparse

from ml_collections import ConfigDict

from senet_jax import cli
from senet_jax.config import reading


def parse(argv: list[str]) -> argparse.Namespace:
  """Parses the command line.

  Returns:
    `config`, a `ConfigDict` with all overrides; `workdir`, a path; `print_config`; what
    `runtime.connect` takes, and `hosts_timeout` in seconds.

  Raises:
    UserError: a flag or field does not exist, or a value has the wrong type.
  """
  parser = cli.Parser('main', '')
  parser.add_argument('--config', required=True)
  parser.add_argument('--workdir', type=cli.path_or_bucket)
  parser.add_argument('--print_config', action='store_true')
  parser.add_argument('--coordinator')
  parser.add_argument('--num_processes', type=int)
  parser.add_argument('--process_id', type=int)
  parser.add_argument('--hosts_timeout', type=int, default=300)
  options, config = parse_with_config(parser, argv)
  if options.workdir is None and not options.print_config:
    parser.error('--workdir is missing: the directory for checkpoints, metrics and curves')
  options.config = config
  return options


def parse_with_config(parser: cli.Parser, argv: list[str]) -> tuple[argparse.Namespace, ConfigDict]:
  """Parses a command line whose `--config` names a file and `--config.…` change its fields.

  Raises:
    UserError: see `parse`.
  """
  options, overrides = parser.parse_with_overrides(argv)
  return options, reading.load(options.config, overrides)
