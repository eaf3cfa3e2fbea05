"""Parts of pages that are made from the code when the site is built."""

import ast
import fnmatch
import json
import re
from collections.abc import Iterable

from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

from senet_jax.config import FIELDS, reading
from senet_jax.config.fields import FIXED, FREE, LENGTH, Field

# Of texts; that it is said of each helps nobody.
_LONGEST = ' of at most 4096 characters'
_RESUME = {FIXED: '', LENGTH: ' *On resuming: length.*', FREE: ' *On resuming: free.*'}


class _Generated(SphinxDirective):
  """A directive that stands for the Markdown that `lines` makes of its argument."""

  optional_arguments = 1

  def run(self):
    """Returns the Markdown as parsed where the directive stands."""
    made = self.lines(self.arguments[0] if self.arguments else '')
    if not made:
      raise self.error(f'{self.name} {self.arguments} finds nothing')
    return self.parse_content_to_nodes_of(StringList(made, source=self.get_source_info()[0]))

  def parse_content_to_nodes_of(self, content: StringList) -> list:
    """Returns the nodes of Markdown."""
    self.content = content
    return self.parse_content_to_nodes()


class Fields(_Generated):
  """The fields of one section of a configuration, `optimizer`; without one, those of none."""

  def lines(self, section: str) -> list[str]:
    """Returns a `confval` for each field."""
    return [
      line
      for name, field in FIELDS.items()
      if name.rpartition('.')[0] == section
      for line in _confval(name, field)
    ]


def _confval(name: str, field: Field) -> list[str]:
  options = {'type': field.allowed.replace(_LONGEST, ''), 'default': f'`{field.default!r}`'}
  text = field.help[0].upper() + field.help[1:]
  return [
    f'```{{confval}} {name}',
    *(f':{option}: {json.dumps(value)}' for option, value in options.items()),
    '',
    f'{text}.{_RESUME[field.resume]}',
    '```',
    '',
  ]


class Recipes(_Generated):
  """The configurations whose names fit a pattern, `cifar10_*`, from what their headers say."""

  def lines(self, pattern: str) -> list[str]:
    """Returns a table with a row for each."""
    rows = []
    for name, path in reading.shipped().items():
      if not fnmatch.fnmatchcase(name, pattern):
        continue
      doc = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
      published = _said(doc, 'Published', 'Measured')
      variants = re.findall(r'^  (\w+)  ', published, re.MULTILINE)
      names = [f'`{name}:{variant}`' for variant in variants] or [f'`{name}`']
      hardware = _said(doc, 'Hardware', 'Expected wall time')
      time = _said(doc, 'Expected wall time', 'Published')
      rows.append((' '.join(names), doc.partition('\n')[0], hardware, time))
    return _table(('configuration', 'what it is', 'hardware', 'expected wall time'), rows)


class Studies(_Generated):
  """All studies."""

  def lines(self, _: str) -> list[str]:
    """Returns a table with a row for each."""
    rows = []
    for name, path in reading.shipped(studies=True).items():
      text = path.read_text(encoding='utf-8')
      small = f'`{name}:small`' if re.search(r'^SMALL\b', text, re.MULTILINE) else ''
      title = ast.get_docstring(ast.parse(text)).partition('\n')[0]
      rows.append((f'`{name}`', small, title))
    return _table(('study', 'for a CPU', 'table'), rows)


def _said(doc: str, word: str, following: str) -> str:
  """Returns what the header of a configuration says behind `word: `."""
  return doc.partition(f'{word}: ')[2].partition(f'\n{following}: ')[0].strip()


def _table(head: Iterable[str], rows: list[tuple[str, ...]]) -> list[str]:
  if not rows:
    return []
  cells = [tuple(head), ('---',) * len(rows[0]), *rows]
  return ['| ' + ' | '.join(' '.join(c.split()) for c in row) + ' |' for row in cells]


def setup(app):
  """Registers the directives."""
  app.add_directive('config-fields', Fields)
  app.add_directive('recipes', Recipes)
  app.add_directive('studies', Studies)
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
