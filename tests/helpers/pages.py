"""The pages of the documentation as tests read them: blocks of code, commands, links.

A block of commands or of Python is run by a test, unless a comment in front of it, which neither
GitHub nor the site shows, says why not:

    <!-- needs: a GPU -->                what a machine of the tests lacks; the block is only parsed
    <!-- takes: a minute of training --> the same, but `pytest -m slow tests/test_docs.py` runs it
"""

import ast
import builtins
import dataclasses
import functools
import importlib
import re
import shlex
from collections.abc import Iterable

from tests.helpers.paths import ROOT

PAGES = (
  'README.md',
  'CONTRIBUTING.md',
  'colab/README.md',
  'configs/README.md',
  'launch/README.md',
  'tests/campaigns/README.md',
  *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / 'docs').glob('*.md'))),
)
_MARK = re.compile(r'<!-- (needs|takes): (.+) -->')
_LINK = re.compile(r'\[(?:[^][]|\[[^][]*\])*\]\(([^()\s]+)\)|<(https?://[^>\s]+)>')
_OPERATORS = {'&&', '||', '|', ';', '&'}


@dataclasses.dataclass(frozen=True)
class Block:
  """A fenced block.

  Attributes:
    page: path of the page from the root of the checkout.
    line: of the fence.
    language: behind the fence.
    text: between the fences.
    mark: `needs`, `takes`, or empty.
  """

  page: str
  line: int
  language: str
  text: str
  mark: str

  def __str__(self) -> str:
    return f'{self.page}:{self.line}'


def text_of(page: str) -> str:
  return (ROOT / page).read_text(encoding='utf-8')


def blocks(*languages: str, pages=PAGES) -> list[Block]:
  """Returns the blocks in one of the languages on all pages."""
  found = []
  for page in pages:
    lines = text_of(page).splitlines()
    fences = [i for i, line in enumerate(lines) if line.startswith('```')]
    for start, end in zip(fences[::2], fences[1::2], strict=True):
      mark = _MARK.fullmatch(lines[start - 1].strip())
      found.append(
        Block(page, start + 1, lines[start][3:].strip(), '\n'.join(lines[start + 1 : end]) + '\n',
              mark[1] if mark else '')
      )  # fmt: skip
  return [block for block in found if block.language in languages]


def commands(text: str) -> list[list[str]]:
  """Returns the simple commands of shell code, each as its words, without what redirects."""
  found = []
  for line in text.replace('\\\n', ' ').splitlines():
    reader = shlex.shlex(line, posix=True, punctuation_chars='|&;<>')
    reader.whitespace_split = True
    words: list[str] = []
    for word in [*reader, ';']:
      if word not in _OPERATORS:
        words.append(word)
        continue
      if '>' in words:
        words = words[: words.index('>')]
      while words and re.fullmatch(r'\w+=\S*', words[0]):  # variables of the environment
        words = words[1:]
      if words:
        found.append(words)
      words = []
  return found


def check_names(texts: Iterable[str], given: Iterable[str] = ()) -> None:
  """Checks that pieces of Python, one after the other, import or define all that they use.

  Args:
    texts: the pieces; what they import must be there.
    given: names that they have from elsewhere.
  """
  known = {*given, *dir(builtins)}
  for text in texts:
    used = set()
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.Name):
        (used if isinstance(node.ctx, ast.Load) else known).add(node.id)
      elif isinstance(node, ast.Import | ast.ImportFrom):
        known |= {(alias.asname or alias.name).partition('.')[0] for alias in node.names}
        _import(node)
      elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler):
        known.add(node.name)
      elif isinstance(node, ast.arg):
        known.add(node.arg)
    assert used <= known, f'{sorted(used - known)} in\n{text}'


def _import(node: ast.Import | ast.ImportFrom) -> None:
  if isinstance(node, ast.Import):
    for alias in node.names:
      importlib.import_module(alias.name)
    return
  module = importlib.import_module(node.module)
  for alias in node.names:
    assert hasattr(module, alias.name) or importlib.import_module(f'{node.module}.{alias.name}')


def prose(page: str) -> str:
  """Returns a page without its blocks of code."""
  return re.sub(r'^```.*?^```$', '', text_of(page), flags=re.MULTILINE | re.DOTALL)


def links(page: str) -> list[str]:
  """Returns the targets of links and pictures."""
  text = re.sub(r'`[^`]+`', '`', prose(page))
  return [target or address for target, address in _LINK.findall(text)]


def anchors(page: str) -> set[str]:
  """Returns the anchors that GitHub gives the headings of a page."""
  headings = re.findall(r'^#+ (.+)$', prose(page), re.MULTILINE)
  return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def spans(page: str) -> list[str]:
  """Returns the code within lines."""
  return re.findall(r'`([^`\n]+)`', prose(page))


@functools.cache
def code_literals(folder: str) -> list[str]:
  """Returns the texts that code is written with, `…` in the place of what it fills in."""

  def text(node) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      return node.value
    if isinstance(node, ast.JoinedStr):
      return ''.join(map(text, node.values))
    return '…'

  nodes = (
    node
    for path in sorted((ROOT / folder).rglob('*.py'))
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
  )
  kinds = (ast.Constant, ast.JoinedStr)
  return [' '.join(text(node).split()) for node in nodes if isinstance(node, kinds)]
