"""Equations as MathML, which browsers show by themselves: no script, and nothing to fetch."""

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml


def _inline(writer, node: nodes.math) -> None:
  writer.body.append(tex2mathml(node.astext(), as_block=False))
  raise nodes.SkipNode


def _block(writer, node: nodes.math_block) -> None:
  writer.body.append(tex2mathml(node.astext(), as_block=True))
  raise nodes.SkipNode


def setup(app):
  """Registers the renderer `mathml`."""
  app.add_html_math_renderer('mathml', (_inline, None), (_block, None))
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
