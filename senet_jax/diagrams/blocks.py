"""Drawings of blocks as in figures 2, 3 and 5 of the paper, made from what the modules compute."""

import dataclasses
import io
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from senet_jax.diagrams import dataflow
from senet_jax.diagrams.dataflow import Graph, Node
from senet_jax.layers import SEConfig
from senet_jax.models import create_model, model_info
from senet_jax.reporting import look
from senet_jax.storage import files

if TYPE_CHECKING:
  from matplotlib.figure import Figure

# Colour-blind safe: tints of blue and orange of Okabe and Ito, which also differ in lightness.
_PLAIN, _SE, _OTHER = '#DCEBF7', '#F7C873', '#FFFFFF'
_INK = '#222222'
_TIMES = ' \N{MULTIPLICATION SIGN} '
# In inches.
_BOX, _BOX_HEIGHT, _COLUMN, _ROW, _GAP = 1.42, 0.37, 1.56, 0.56, 0.3
_TITLE, _CAPTION, _RADIUS = 0.4, 0.5, 0.11
# In points.
_LABEL, _SHAPE, _HEADING = 9.5, 8.5, 12
_PANELS_A_ROW = 3
_COLOURS = 64


@dataclasses.dataclass(frozen=True)
class Drawing:
  """The contents of a figure.

  Attributes:
    network: of the registry, without SE.
    block: of the network.
    panels: titles, with the position of SE in each, or None.
    widths: parts of the block's width C to be written so: with 4, a quarter is `C/4`.
  """

  network: str
  block: str
  panels: Mapping[str, str | None]
  widths: tuple[int, ...]

  def graphs(self) -> dict[str, Graph]:
    """Returns the graph of each panel, by its title."""
    size = model_info(self.network).image_size
    graphs = {}
    for title, position in self.panels.items():
      se = position and SEConfig(position=position, fused=False)
      block = dataflow.block_of(create_model(self.network, se=se), self.block, size)
      graphs[title] = dataflow.graph_of(*block)
    return graphs


DRAWINGS = {
  'figure2_inception': Drawing(
    'bn_inception', 'stage3_block1', {'Inception': None, 'SE-Inception': 'standard'}, (1,)
  ),
  'figure3_resnet': Drawing(
    'resnet50', 'stage3_block2', {'ResNet': None, 'SE-ResNet': 'standard'}, (1, 4)
  ),
  'figure5_integration': Drawing(
    'resnet50',
    'stage3_block2',
    {
      'Residual block': None,
      'SE (standard)': 'standard',
      'SE-PRE': 'pre',
      'SE-POST': 'post',
      'SE-Identity': 'identity',
      'SE-3x3': 'conv3x3',
    },
    (1, 4),
  ),
}


def write(directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes all drawings as PNGs into `directory`, and returns their paths.

  Each has the graphs that it shows as its description, the text of `descriptions`.
  """
  directory.mkdir(parents=True, exist_ok=True)  # fails now if it cannot be
  paths = []
  for name, drawing in DRAWINGS.items():
    graphs = drawing.graphs()
    paths.append(directory / f'{name}.png')
    _save(draw(drawing, graphs), paths[-1], descriptions(graphs))
  return paths


def _save(figure: 'Figure', path: pathlib.Path, description: str) -> None:
  """Writes a PNG of few colours, a quarter of the size of one of all, with a description in it."""
  pixels = io.BytesIO()
  figure.savefig(pixels, dpi=110, format='png')
  text = PngInfo()
  text.add_text('Description', description)
  with Image.open(pixels) as image, files.whole(path) as partial:
    image.convert('RGB').quantize(_COLOURS).save(partial, 'PNG', optimize=True, pnginfo=text)


def descriptions(graphs: Mapping[str, Graph]) -> str:
  """Returns the graphs as text, by title."""
  return '\n\n'.join(f'{title}\n{dataflow.description(g)}' for title, g in graphs.items())


def draw(drawing: Drawing, graphs: Mapping[str, Graph]) -> 'Figure':
  """Draws graphs side by side, each from top to bottom.

  Args:
    drawing: how shapes and the caption are written.
    graphs: by title.
  """
  last = next(iter(graphs.values()))[-1]
  _, height, width, channels = last.shape
  ratio = SEConfig().ratio
  symbols = {}
  for part in drawing.widths:
    symbols[channels // part] = 'C' if part == 1 else f'C/{part}'
    symbols[channels // part // ratio] = 'C/r' if part == 1 else f'C/({part}r)'
  panels = [_Panel(title, graph, (height, width), symbols) for title, graph in graphs.items()]
  rows = [panels[i : i + _PANELS_A_ROW] for i in range(0, len(panels), _PANELS_A_ROW)]
  total = max(sum(p.width + _GAP for p in row) for row in rows) + _GAP
  heights = [max(p.height for p in row) for row in rows]
  figure = look.canvas(total, sum(heights) + _CAPTION, layout=None)
  axes = figure.add_axes((0, 0, 1, 1))
  axes.set(xlim=(0, total), ylim=(-sum(heights) - _CAPTION, 0))
  axes.axis('off')
  for i, row in enumerate(rows):
    spare = (total - sum(p.width for p in row)) / (len(row) + 1)
    x = spare
    for panel in row:
      panel.draw(axes, x, -sum(heights[:i]))
      x += panel.width + spare
  caption = (
    f'{drawing.block} of {drawing.network}: '
    f'H{_TIMES}W = {height}{_TIMES}{width}, C = {channels}, r = {ratio}\n'
    'shapes are of outputs; orange: squeeze-and-excitation'
  )
  middle = -sum(heights) - _CAPTION / 2
  axes.text(total / 2, middle, caption, ha='center', va='center', fontsize=_LABEL, color=_INK)
  return figure


def layout(graph: Graph) -> list[tuple[float, int]]:
  """Returns column and row of each node: column 0 is the main path, a row is below all its inputs.

  Shortcuts are to the left, gates outside of what they gate, and the branches of a concatenation
  side by side.
  """
  rows: list[int] = []
  for node in graph:
    rows.append(1 + max((rows[i] for i in node.inputs), default=-1))
  wishes: list[list[float]] = [[] for _ in graph]
  wishes[-1] = wishes[0] = [0.0]
  for node, wished in zip(reversed(graph), reversed(wishes), strict=True):
    column = min(wished, key=abs)
    outwards = 1 if node.kind == 'scale' and column >= 0 else -1
    for k, place in enumerate(_main_first(node, graph)):
      if node.kind == 'concat':
        place_in_row = node.inputs.index(place) - (len(node.inputs) - 1) / 2
        wishes[place].append(column + place_in_row)
      else:
        wishes[place].append(column + k * outwards)
  return [(min(wished, key=abs), row) for wished, row in zip(wishes, rows, strict=True)]


def _main_first(node: Node, graph: Graph) -> list[int]:
  """Returns the inputs of a node: maps before gates, and what took more convolutions first."""

  def convolutions(place: int) -> int:
    source = graph[place]
    here = source.kind.startswith('conv')
    return here + max(map(convolutions, source.inputs), default=0)

  return sorted(node.inputs, key=lambda i: (_is_gate(graph[i]), -convolutions(i)))


def _is_gate(node: Node) -> bool:
  """Returns True if the output is one number for each channel of an image."""
  return all(size == 1 for size in node.shape[1:-1])


def _one_box(first: Node, second: Node) -> Node | None:
  """Returns a convolution and the BN or ReLU behind it as one node; None for another pair."""
  if first.kind.startswith('conv') and second.kind in ('BN', 'ReLU'):
    return dataclasses.replace(
      first, kind=first.label + f', {second.kind}', detail='', shape=second.shape
    )
  return None


class _Panel:
  """A graph in inches, from its upper left corner, with y upwards.

  Attributes:
    width: of the drawing.
    height: with the title.
  """

  def __init__(self, title: str, graph: Graph, size: tuple[int, int], symbols: Mapping[int, str]):
    """Places the nodes; maps of `size` are H x W, and widths in `symbols` have those names."""
    end = Node('output', graph[-1].shape, (len(graph) - 1,))
    self._graph = [*dataflow.contracted(graph, _one_box), end]
    self._graph[-1] = dataclasses.replace(end, inputs=(len(self._graph) - 2,))
    self._title, self._size, self._symbols = title, size, symbols
    self._cells = layout(self._graph)
    self._half = [
      ((len(node.inputs) - 1) * _COLUMN + _BOX) / 2 if node.kind == 'concat' else _BOX / 2
      for node in self._graph
    ]
    centres = [column * _COLUMN for column, _ in self._cells]
    left = min(x - half for x, half in zip(centres, self._half, strict=True))
    right = max(x + half for x, half in zip(centres, self._half, strict=True))
    # Room for a line around the main path.
    left = min(left, -_BOX / 2 - _GAP)
    self._x = [x - left for x in centres]
    self._y = [-_TITLE - (row + 0.5) * _ROW for _, row in self._cells]
    self._middle = -left
    self.width = right - left
    self.height = _TITLE + _ROW * (1 + max(row for _, row in self._cells))

  def draw(self, axes: Any, x: float, y: float) -> None:
    """Draws the panel with its upper left corner at `x`, `y`."""
    axes.text(
      x + self._middle, y - _TITLE / 2, self._title, ha='center', va='center', fontsize=_HEADING,
      weight='bold', color=_INK,
    )  # fmt: skip
    for place, node in enumerate(self._graph):
      for source in node.inputs:
        points = [(x + px, y + py) for px, py in self._line(source, place)]
        axes.plot(*zip(*points, strict=True), color=_INK, linewidth=1, zorder=1)
        style = {'arrowstyle': '-|>', 'color': _INK, 'linewidth': 1, 'shrinkA': 0, 'shrinkB': 0}
        axes.annotate('', points[-1], points[-2], arrowprops=style, zorder=1)
      self._box(axes, place, x, y)

  def _box(self, axes: Any, place: int, x: float, y: float) -> None:
    from matplotlib.patches import Circle, FancyBboxPatch

    node, x, y, half = self._graph[place], x + self._x[place], y + self._y[place], self._half[place]
    shape = self._shape(node)
    if node.kind == 'add':
      axes.add_patch(Circle((x, y), _RADIUS, facecolor=_OTHER, edgecolor=_INK, zorder=2))
      axes.text(x, y, '+', ha='center', va='center_baseline', fontsize=_HEADING, color=_INK)
      axes.text(x + _RADIUS + 0.05, y, shape, va='center', fontsize=_SHAPE, color=_INK)
      return
    colour = _PLAIN
    if node.kind in ('input', 'output', 'concat'):
      colour = _OTHER
    elif node.kind == 'scale' or _is_gate(node):
      colour = _SE
    axes.add_patch(
      FancyBboxPatch(
        (x - half, y - _BOX_HEIGHT / 2), 2 * half, _BOX_HEIGHT, facecolor=colour, edgecolor=_INK,
        boxstyle='round,pad=0,rounding_size=0.05', linewidth=0.8, zorder=2,
      )
    )  # fmt: skip
    axes.text(x, y + 0.075, node.label, ha='center', va='center', fontsize=_LABEL, color=_INK)
    axes.text(x, y - 0.085, shape, ha='center', va='center', fontsize=_SHAPE, color=_INK)

  def _shape(self, node: Node) -> str:
    _, *size, channels = node.shape
    sides = [str(s) for s in size] or ['1', '1']  # a pooling may leave out the axes it pooled
    if tuple(size) == self._size:
      sides = ['H', 'W']
    return _TIMES.join([*sides, self._symbols.get(channels, str(channels))])

  def _line(self, source: int, target: int) -> list[tuple[float, float]]:
    """Returns the corners of the line from one node to another one."""
    (x, y), (end_x, end_y) = ((self._x[i], self._y[i]) for i in (source, target))
    half = self._half[target] if self._graph[target].kind != 'add' else _RADIUS
    top = end_y + (_BOX_HEIGHT / 2 if self._graph[target].kind != 'add' else _RADIUS)
    bottom = y - (_BOX_HEIGHT / 2 if self._graph[source].kind != 'add' else _RADIUS)
    if abs(x - end_x) < max(self._half[source], self._half[target]):
      down = end_x if self._half[source] > self._half[target] else x
      if not self._blocked(down, source, target):
        return [(down, bottom), (down, top)]
      lane = min(x, end_x) - _BOX / 2 - _GAP / 2
      turn = y - _ROW / 2
      return [(x, bottom), (x, turn), (lane, turn), (lane, end_y), (end_x - half, end_y)]
    if source != _main_first(self._graph[target], self._graph)[0]:
      side = -half if x < end_x else half
      return [(x, bottom), (x, end_y), (end_x + side, end_y)]
    turn = y - _ROW / 2
    return [(x, bottom), (x, turn), (end_x, turn), (end_x, top)]

  def _blocked(self, x: float, source: int, target: int) -> bool:
    """Returns True if a box is between two nodes in the column at `x`."""
    between = range(self._cells[source][1] + 1, self._cells[target][1])
    return any(
      row in between and abs(x - centre) < half
      for (_, row), centre, half in zip(self._cells, self._x, self._half, strict=True)
    )
