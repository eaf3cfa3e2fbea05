"""Writes the table of results, and puts text between the marks of a page."""

import json
import pathlib
from typing import Any

from senet_jax.errors import UserError
from senet_jax.reporting import published
from senet_jax.storage import files

BEGIN, END = '<!-- results -->', '<!-- /results -->'


def results_table(root: pathlib.Path, links: str, *, only_run: bool = False) -> str:
  """Returns the results as a Markdown table.

  Args:
    root: of the project, with `configs/` and `results/`.
    links: path of `results/` seen from the page.
    only_run: leave out the configurations that have no result.
  """
  found = {p.stem: json.loads(p.read_text()) for p in sorted((root / 'results').glob('*.json'))}
  lines = [
    '| experiment | published test error | ours | gap | images/s | |',
    '|---|---|---|---|---|---|',
  ]
  names = [p.stem for p in sorted((root / 'configs').glob('*.py'))]
  commands = (published.COMMAND.search(result['command']) for result in found.values())
  varied = {match[1] for match in commands if match and match[2]}
  # A shortened run of a configuration, and one of a variant, has a name of its own and comes below.
  for name in sorted({*names, *found}):
    if name in found:
      lines.append(_row(name, found[name], links))
    elif not only_run:
      ours = 'below, where run' if name in varied else 'not run'
      lines.append(f'| `{name}` | {published.in_words(root, name)} | {ours} | | | |')
  return '\n'.join(lines)


def _row(name: str, result: dict[str, Any], links: str) -> str:
  error, theirs = result['top1_error'], result['published_top1_error']
  shown = f'{error["mean"]:.2f} %'
  if error['std'] is not None:
    shown = f'{error["mean"]:.2f} ± {error["std"]:.2f} % (n = {error["n"]})'
  gap = '' if theirs is None else f'{error["mean"] - theirs:+.2f}'
  cells = [
    f'`{name}`' + (f': {result["note"]}' if result['note'] else ''),
    'none' if theirs is None else f'{theirs:.2f} %',
    shown,
    gap,
    f'{result["images_per_second"]["mean"]:.0f} on {result["device"]}',
    f'[numbers]({links}/{name}.json), [curves]({links}/{name}.png)',
  ]
  return f'| {" | ".join(cells)} |'


def replace_between_marks(page: pathlib.Path, text: str) -> None:
  """Puts `text` between the lines `BEGIN` and `END` of `page`.

  Raises:
    UserError: the page has no such lines.
  """
  content = page.read_text()
  before, begin, rest = content.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not begin or not end:
    raise UserError(f'{page} has no lines {BEGIN} and {END} to put the table between.')
  files.write_text(page, f'{before}{BEGIN}\n{text}\n{END}{after}')
