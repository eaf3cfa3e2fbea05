"""The command `senet`: every command of the package by one name.

  senet train --config=digits_se_r20 --workdir=runs/digits
  senet evaluate --workdir=runs/digits
  senet predict --workdir=se_resnet20_cifar10 photo.jpg
  senet COMMAND --help
  eval "$(register-python-argcomplete senet)"   # Tab completes, once argcomplete is installed

`senet train` is `python -m senet_jax.main`, the others are `python -m senet_jax.tools.COMMAND`.
"""

import os
import pathlib
import runpy
import sys

from senet_jax import cli, errors

_ROOT = pathlib.Path(__file__).parent


def commands() -> dict[str, str]:
  """Returns the module of each command."""
  tools = sorted(path.stem for path in (_ROOT / 'tools').glob('[!_]*.py'))
  return {'train': 'senet_jax.main', **{tool: f'senet_jax.tools.{tool}' for tool in tools}}


def help_text() -> str:
  """Returns what `senet --help` prints; no command is imported."""
  lines = [__doc__, 'commands:']
  for name, module in commands().items():
    path = _ROOT.parent.joinpath(*module.split('.')).with_suffix('.py')
    lines.append(f'  {name:14} {cli.first_line(path)}')
  return '\n'.join(lines)


def main() -> None:
  """Runs the command that the first argument names, with those behind it."""
  cli.run(_dispatch)


def _dispatch(argv: list[str]) -> int:
  if cli.COMPLETION in os.environ:
    argv = _complete()
  name, *rest = argv or ['--help']
  if name in ('--help', '-h'):
    print(help_text())
    return 0 if argv else cli.USER_ERROR
  if name == '--version':
    from senet_jax import __version__

    print(__version__)
    return 0
  errors.one_of('the command', name, commands())
  sys.argv[1:] = rest
  runpy.run_module(commands()[name], run_name='__main__', alter_sys=True)
  return 0


def _complete() -> list[str]:
  """Answers a shell that asks for a command; hands other questions to the command they are about.

  Returns:
    The words of the line so far, behind `senet`.
  """
  line = os.environ['COMP_LINE'][: int(os.environ['COMP_POINT'])]
  words = line.split()[1:] + [''] * line.endswith(' ')
  if len(words) < 2 or words[0] not in commands():
    parser = cli.Parser('console', __doc__)
    parser.add_argument('command', choices=commands())
    parser.parse_args()  # answers, and ends
  os.environ[cli.COMPLETION] = str(int(os.environ[cli.COMPLETION]) + 1)  # its own parser answers
  return words
