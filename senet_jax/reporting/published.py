"""Published figures, as the headers of the configurations have them."""

import ast
import pathlib
import re

# Of a command: the configuration file and its variant.
COMMAND = re.compile(r'--config=(?:\S*/)?(\w+)\.py(?::(\w+))?')


def _header(root: pathlib.Path, name: str) -> str:
  """Returns what the header of a configuration says behind `Published: `."""
  text = ast.get_docstring(ast.parse((root / 'configs' / f'{name}.py').read_text())) or ''
  return text.partition('Published: ')[2].partition('\nMeasured: ')[0]


def in_words(root: pathlib.Path, name: str) -> str:
  """Returns the published figure of a configuration; of variants, where their figures are from."""
  text = ' '.join(_header(root, name).partition(':\n')[0].split()).rstrip('.')
  return text.removeprefix('test error ').replace('not in the paper', 'none') or 'none'


def error(root: pathlib.Path, command: str) -> float | None:
  """Returns the published top-1 error, or AP, of what `command` runs, in percent; None without."""
  match = COMMAND.search(command)
  if not match or not (root / 'configs' / f'{match[1]}.py').is_file():
    return None
  before = rf'^  {match[2]} +' if match[2] else r'^(?:test error|AP) '
  figure = re.search(rf'{before}(\d+\.\d+) %', _header(root, match[1]), re.MULTILINE)
  return float(figure[1]) if figure else None
