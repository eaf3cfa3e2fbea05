"""Checks that each link of the built site leads somewhere, and that it loads nothing from the net.

python docs/check_site.py docs/_build/html
"""

import html.parser
import pathlib
import sys
import urllib.parse

# What a browser fetches by itself.
_LOADED = {('script', 'src'), ('img', 'src'), ('link', 'href'), ('iframe', 'src'), ('video', 'src')}


class _Page(html.parser.HTMLParser):
  """Collects the anchors of a page, its links, and what it loads."""

  def __init__(self, path: pathlib.Path):
    super().__init__()
    self.anchors, self.links, self.loaded = set(), set(), set()
    self.feed(path.read_text(encoding='utf-8'))

  def handle_starttag(self, tag, attrs):
    for name, value in attrs:
      if name in ('id', 'name'):
        self.anchors.add(value)
      elif name in ('href', 'src'):
        (self.loaded if (tag, name) in _LOADED else self.links).add(value)


def problems(site: pathlib.Path) -> list[str]:
  """Returns a line for each link to nothing, and for each thing that is fetched from elsewhere."""
  pages = {path: _Page(path) for path in sorted(site.resolve().rglob('*.html'))}
  found = []
  for path, page in pages.items():
    for link in sorted(page.links | page.loaded):
      parts = urllib.parse.urlsplit(link)
      if parts.scheme == 'data':
        continue
      if parts.scheme or parts.netloc:
        if link in page.loaded:
          found.append(f'{path.name} loads {link}')
        elif parts.scheme not in ('http', 'https') or '.' not in parts.netloc:
          found.append(f'{path.name}: {link} is no address')
        continue
      target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
      anchor = urllib.parse.unquote(parts.fragment)
      if not target.is_file():
        found.append(f'{path.name}: there is no {link}')
      elif anchor and target in pages and anchor not in pages[target].anchors:
        found.append(f'{path.name}: {target.name} has no #{anchor}')
  return found


if __name__ == '__main__':
  lines = problems(pathlib.Path(sys.argv[1]))
  print('\n'.join(lines) or 'all links of the site lead somewhere')
  sys.exit(bool(lines))
