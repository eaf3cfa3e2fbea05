"""Links to the files of the repository, as they are on GitHub, work on the site too.

Pages are written for both. A link to a file that a page of the site includes leads to that page; a
link to another file, to the repository where its address is known, and to a copy where it is not;
one to a directory, to the repository, or it becomes plain text. A link to what is not there is a
warning.
"""

import os
import pathlib
import re

from docutils import nodes
from docutils.utils import get_source_line
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_INCLUDE = re.compile(r'^```\{include\} (\S+)', re.MULTILINE)
_ROOT = pathlib.Path(__file__).resolve().parents[2]


class RepositoryLinks(SphinxTransform):
  """Gives each link to a file its place, after MyST has read the page."""

  default_priority = 5

  def apply(self, **kwargs) -> None:
    """Rewrites the links of one page."""
    for link in [*self.document.findall(addnodes.download_reference)]:
      self._rewrite(link, link['reftarget'], '')
    for link in [*self.document.findall(addnodes.pending_xref)]:
      if link.get('reftype') != 'myst' or link['reftarget'] in self.env.found_docs:
        continue
      if link.get('refdomain') == 'doc':  # MyST takes every .md for a page
        self._rewrite(link, link['reftarget'] + '.md', link['reftargetid'])
      else:
        self._rewrite(link, *link['reftarget'].partition('#')[::2])

  def _rewrite(self, link: nodes.Element, target: str, anchor: str | None) -> None:
    source, _ = get_source_line(link)  # which is another file where that is included
    path = (pathlib.Path(source).resolve().parent / target).resolve()
    if not path.exists() or not path.is_relative_to(_ROOT):
      _LOG.warning('there is no %s in the repository', target, location=link, type='repository')
      return
    name, url = path.relative_to(_ROOT).as_posix(), self.config.repository_url
    content = link.children[0].children
    page = self.config.page_of_file.get(name) or self.env.path2doc(str(path))
    if page in self.env.found_docs:
      new = addnodes.pending_xref(
        '', nodes.inline('', '', *content), refdomain='doc', reftype='myst', reftarget=page,
        reftargetid=anchor or None, refdoc=self.env.docname, refexplicit=True,
      )  # fmt: skip
    elif url:
      kind = 'tree' if path.is_dir() else 'blob'
      new = nodes.reference('', '', *content, refuri=f'{url}/{kind}/main/{name}')
    elif path.is_dir():
      new = nodes.inline('', '', *content)
    else:
      here = pathlib.Path(self.env.doc2path(self.env.docname)).parent
      new = addnodes.download_reference(
        '', '', *content, refdoc=self.env.docname, reftarget=os.path.relpath(path, here)
      )
    link.replace_self(new)


def _find_pages(app, config) -> None:
  """Notes which page includes which file of the repository."""
  config.page_of_file = {'README.md': 'index'}
  for page in sorted(pathlib.Path(app.srcdir).glob('*.md')):
    for included in _INCLUDE.findall(page.read_text(encoding='utf-8')):
      name = (page.parent / included).resolve().relative_to(_ROOT).as_posix()
      config.page_of_file[name] = page.stem


def setup(app):
  """Registers the transform."""
  app.add_config_value('repository_url', '', 'env')
  app.add_config_value('page_of_file', {}, '')
  app.connect('config-inited', _find_pages)
  app.add_transform(RepositoryLinks)
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
