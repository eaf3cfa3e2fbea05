"""The documentation site: `make docs` builds it into docs/_build, without network."""

import configparser
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'docs' / '_ext')]

import senet_jax  # noqa: E402

_SETUP = configparser.ConfigParser()
_SETUP.read(ROOT / 'setup.cfg')
# Where the files of the repository can be read; while it is empty the site has copies of them.
repository_url = _SETUP['metadata'].get('url', '')

project = 'senet_jax'
author = 'The senet_jax authors'
copyright = author
version = release = senet_jax.__version__

extensions = [
  'myst_nb',
  'sphinx.ext.autodoc',
  'sphinx.ext.napoleon',
  'generated',
  'mathml',
  'repository_links',
]
exclude_patterns = ['_build', '_ext', 'colab/**.md', 'colab/**/.*']
html_title = f'senet_jax {release}'
html_theme = 'furo'
html_static_path = ['_static']
html_css_files = ['site.css']
html_copy_source = False
html_show_sphinx = False
html_last_updated_fmt = None
pygments_style = 'default'
pygments_dark_style = 'monokai'

# Anchors as GitHub makes them, so that a link works in both places.
myst_heading_anchors = 4
myst_enable_extensions = ['dollarmath', 'html_image']
# Notebooks are shown with the outputs that are stored in them.
nb_execution_mode = 'off'
nb_merge_streams = True
nb_ipywidgets_js = {}  # it would be fetched from elsewhere
html_math_renderer = 'mathml'

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
# In docstrings, `x` is code.
default_role = 'code'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
