"""Drawings of blocks: their graphs against the paper's figures, and those of wrong blocks."""

import collections
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from matplotlib.transforms import Bbox
from PIL import Image

from senet_jax.diagrams import blocks as block_drawings, dataflow
from senet_jax.errors import UserError
from senet_jax.layers import (
  BatchNorm,
  BatchNormConfig,
  BlockAttention,
  SEConfig,
  SqueezeExcite,
  conv,
)
from senet_jax.models import create_model
from senet_jax.models.inception import ConvSpec, InceptionModule, Layers
from senet_jax.models.resnet import BlockOptions, ResidualBlock
from senet_jax.tools import report
from tests.helpers.commands import complaint
from tests.helpers.paths import ROOT

MAP = jax.ShapeDtypeStruct((1, 6, 6, 8), jnp.float32)


# What the paper says, as formulas.


def se(u, pooling='global avg pooling({})', gate='sigmoid'):
  """Section 3 and Fig. 3: squeeze, fully connected, ReLU, fully connected, gate, and scale."""
  return f'scale({u}, {gate}(se/fc2(ReLU(se/fc1({pooling.format(u)})))))'


def branch(x, inside=lambda u: u):
  """The residual branch of a bottleneck; `inside` is behind its 3x3 convolution."""
  u = inside(f'ReLU(bn2(conv2(ReLU(bn1(conv1({x}))))))')
  return f'bn3(conv3({u}))'


def add(*terms):
  return f'add({", ".join(sorted(terms))})'


# Figure 3 and 5, and section 6.5 for conv3x3.
PAPER = {
  None: f'ReLU({add("x", branch("x"))})',
  'standard': f'ReLU({add("x", se(branch("x")))})',
  'pre': f'ReLU({add("x", branch(se("x")))})',
  'post': se(f'ReLU({add("x", branch("x"))})'),
  'identity': f'ReLU({add(se("x"), branch("x"))})',
  'conv3x3': f'ReLU({add("x", branch("x", se))})',
}


def bottleneck(position='standard', features=8, **options):
  config = position and SEConfig(position=position, ratio=2, fused=False)
  return ResidualBlock(
    features, bottleneck=4, attention=config and BlockAttention(config), **options
  )


def formula(block, x=MAP):
  return dataflow.formula(dataflow.graph_of(block, x))


@pytest.mark.parametrize('position', PAPER)
def test_position(position):
  assert formula(bottleneck(position)) == PAPER[position]


def test_identity_with_a_projection():
  shortcut = 'proj_bn(proj_conv(x))'
  found = formula(bottleneck('identity', features=16, stride=2))
  assert found == f'ReLU({add(se(shortcut), branch("x"))})'


def test_pre_activation_with_a_padded_shortcut():
  config = SEConfig(ratio=2, fused=False)
  block = ResidualBlock(
    16,
    stride=2,
    share_preact=True,
    shortcut='pad',
    attention=BlockAttention(config),
    options=BlockOptions(preact=True),
  )
  x = 'ReLU(bn1(x))'
  assert formula(block) == add(f'pad(slice({x}))', se(f'conv2(ReLU(bn2(conv1({x}))))'))


@pytest.mark.parametrize(
  ('options', 'expected'),
  [
    ({'squeeze': 'max'}, se('x', 'global max pooling({})')),
    ({'squeeze': 'none'}, se('x', '{}')),
    ({'excitation': 'tanh'}, se('x', gate='tanh')),
    ({'excitation': 'relu'}, se('x', gate='ReLU')),
    ({'use_bias': False}, se('x')),
  ],
)
def test_variants_of_se(options, expected):
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      return SqueezeExcite(SEConfig(ratio=2, **options), name='se')(x)

  assert formula(Block()) == expected


def test_inception():
  layers = Layers(BatchNormConfig(), jnp.float32, False, True, False)
  branches = ((ConvSpec(4),), (ConvSpec(2), ConvSpec(6, 3)), ('avg', ConvSpec(2)))
  units = [
    'ReLU(branch1/bn(branch1/conv(x)))',
    'ReLU(branch2_2/bn(branch2_2/conv(ReLU(branch2_1/bn(branch2_1/conv(x))))))',
    'ReLU(branch3/bn(branch3/conv(avg pooling 3x3(x))))',
  ]
  module = f'concat({", ".join(units)})'
  assert formula(InceptionModule(branches, layers)) == module
  assert formula(InceptionModule(branches, layers, SEConfig(ratio=2))) == se(module)


def test_shapes_and_details():
  graph = dataflow.graph_of(
    bottleneck('conv3x3', 16, stride=2, options=BlockOptions(groups=2)), MAP
  )
  nodes = {node.module or node.kind: node for node in graph}
  assert [nodes[name].label for name in ('conv1', 'conv2', 'conv3', 'bn1', 'se/fc1')] == [
    'conv 1x1/2', 'conv 3x3, 2 groups', 'conv 1x1', 'BN', 'FC',
  ]  # fmt: skip
  shapes = {name: nodes[name].shape[1:] for name in ('input', 'conv2', 'bn3', 'scale', 'add')}
  assert shapes == {
    'input': (6, 6, 8), 'conv2': (3, 3, 4), 'bn3': (3, 3, 16), 'scale': (3, 3, 4),
    'add': (3, 3, 16),
  }  # fmt: skip
  assert [nodes[f'se/fc{i}'].shape[-1] for i in (1, 2)] == [2, 4]
  assert nodes['global avg pooling'].shape[-1] == 4


class Gate(nn.Module):
  """Section 3.2, of a squeeze that is given."""

  @nn.compact
  def __call__(self, squeezed):
    return nn.sigmoid(nn.Dense(8, name='fc2')(nn.relu(nn.Dense(4, name='fc1')(squeezed))))


class Unit(nn.Module):
  """A bottleneck with SE, written by itself; `fault` says what is wrong with it."""

  fault: str = ''

  @nn.compact
  def __call__(self, x, train):
    y = x
    for i, (features, kernel) in enumerate([(4, 1), (4, 3), (8, 1)], start=1):
      y = conv(features, kernel, name=f'conv{i}')(y)
      if i == 3 and self.fault == 'in front of the last BN':
        y = SqueezeExcite(SEConfig(ratio=2), name='se')(y)
      y = BatchNorm(name=f'bn{i}')(y, train)
      if i < 3 or self.fault == 'a ReLU too many':
        y = nn.relu(y)
    if self.fault == 'squeezes the shortcut':
      y *= Gate(name='se')(x.mean((1, 2), keepdims=True))
    elif self.fault == 'scales the shortcut':
      x *= Gate(name='se')(y.mean((1, 2), keepdims=True))
    elif self.fault == 'squeezes a part of the map':
      y *= Gate(name='se')(y[:, :3].mean((1, 2), keepdims=True))
    elif self.fault in ('', 'a ReLU too many', 'no ReLU behind'):
      y = SqueezeExcite(SEConfig(ratio=2), name='se')(y)
    y = y + x
    if self.fault == 'behind the addition':
      y = SqueezeExcite(SEConfig(ratio=2), name='se')(y)
    return y if self.fault == 'no ReLU behind' else nn.relu(y)


FAULTS = (
  'in front of the last BN',
  'a ReLU too many',
  'squeezes the shortcut',
  'scales the shortcut',
  'squeezes a part of the map',
  'behind the addition',
  'no ReLU behind',
)


def test_a_right_block_that_is_written_otherwise():
  assert formula(Unit()) == PAPER['standard']


@pytest.mark.parametrize('fault', FAULTS)
def test_a_wrong_block_shows(fault):
  graph = dataflow.graph_of(Unit(fault), MAP)
  assert dataflow.formula(graph) not in PAPER.values()
  right = dataflow.graph_of(Unit(), MAP)
  assert dataflow.description(graph) != dataflow.description(right)
  # It can be drawn, too.
  check_layout(block_drawings.Drawing('resnet50', 'wrong', {}, (1,)), graph)


def test_values_that_are_no_layer_are_shown():
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      y = BatchNorm(name='bn')(x, train)
      unused = nn.Dense(3, name='unused')(y)
      del unused
      # A sum is no mean, and a bias that is added to another layer's output is not of that layer.
      return jnp.exp(y) * y.sum((1, 2), keepdims=True) + self.param('b', nn.initializers.ones, (8,))

  graph = dataflow.graph_of(Block(), MAP)
  assert [node.label for node in graph] == ['input', 'BN', 'exp', 'sum 36', 'scale', 'add']
  assert graph[-1].inputs == (4,)


def test_a_layer_that_is_read_in_the_middle_stays_apart():
  class Block(nn.Module):
    @nn.compact
    def __call__(self, x, train):
      kernel = self.param('kernel', nn.initializers.ones, (8, 8))
      y = x @ kernel
      return (y + self.param('bias', nn.initializers.ones, (8,))) * y

  assert [node.kind for node in dataflow.graph_of(Block(), MAP)] == ['input', 'FC', 'add', 'scale']


@pytest.fixture(scope='module')
def graphs():
  """Of all drawings: the graphs by title."""
  return {name: drawing.graphs() for name, drawing in block_drawings.DRAWINGS.items()}


def test_published_blocks_are_those_of_the_paper(graphs):
  for name in ('figure3_resnet', 'figure5_integration'):
    for title, position in block_drawings.DRAWINGS[name].panels.items():
      assert dataflow.formula(graphs[name][title]) == PAPER[position], title
  module, with_se = graphs['figure2_inception'].values()
  assert dataflow.formula(module).startswith('concat(ReLU(branch1/bn(')
  assert dataflow.formula(with_se) == se(dataflow.formula(module))


def test_committed_drawings_are_those_of_the_modules(graphs):
  for name, panels in graphs.items():
    with Image.open(ROOT / 'results' / 'blocks' / f'{name}.png') as image:
      assert image.text['Description'] == block_drawings.descriptions(panels), (
        f'{name} has changed; run python -m senet_jax.tools.report --blocks=results/blocks'
      )


def touches(box, point):
  """Whether a point is in a box or on its edge, to rounding."""
  return bool(np.all((box.min - 1e-6 <= point) & (point <= box.max + 1e-6)))


def check_layout(drawing, graph):
  """No two boxes overlap, and every line goes down from a box to another, and through no third."""
  (axes,) = block_drawings.draw(drawing, {'': graph}).axes
  extents = [patch.get_path().get_extents(patch.get_patch_transform()) for patch in axes.patches]
  insides = [box.padded(-1e-6) for box in extents]
  assert not any(a.overlaps(b) for a, b in itertools.combinations(insides, 2))
  ends = collections.Counter()
  for line in axes.lines:
    corners = [tuple(corner) for corner in line.get_xydata()]
    (source,), (target,) = (
      [k for k, box in enumerate(extents) if touches(box, end)] for end in (corners[0], corners[-1])
    )
    assert extents[source].ymin > extents[target].ymax
    ends[target] += 1
    for (x1, y1), (x2, y2) in itertools.pairwise(corners):
      assert y2 <= y1
      assert not any(Bbox.from_extents(x1, y1, x2, y2).overlaps(box) for box in insides)
  # Nodes of one input may be drawn as one box.
  several = sorted(len(node.inputs) for node in graph if len(node.inputs) > 1)
  assert sorted(count for count in ends.values() if count > 1) == several
  assert len(ends) == len(extents) - 1  # of all but the input


@pytest.mark.parametrize('name', block_drawings.DRAWINGS)
def test_layout(graphs, name):
  for graph in graphs[name].values():
    check_layout(block_drawings.DRAWINGS[name], graph)


def test_columns(graphs):
  def columns(title):
    graph = graphs['figure5_integration'][title]
    cells = block_drawings.layout(graph)
    return cells[-1][0], {n.kind: c for n, (c, _) in zip(graph, cells, strict=True)}

  for title in ('SE (standard)', 'SE-PRE', 'SE-POST', 'SE-3x3'):
    last, found = columns(title)
    assert [found[kind] for kind in ('input', 'scale', 'sigmoid')] == [0, 0, 1], title
    assert last == 0
  _, found = columns('SE-Identity')
  assert [found[kind] for kind in ('input', 'scale', 'sigmoid', 'add')] == [0, -1, -2, 0]


def test_block_of_a_network():
  network = create_model('se_resnet20_cifar', num_classes=10)
  block, x = dataflow.block_of(network, 'stage3_block1', 32)
  assert (type(block), block.features, block.stride) == (ResidualBlock, 32, 2)
  assert (x.shape, x.dtype) == ((1, 32, 32, 16), jnp.float32)
  with pytest.raises(UserError, match=r"block='stage3_blok1' is unknown; did you mean 'stage3_b"):
    dataflow.block_of(network, 'stage3_blok1', 32)


def test_the_tool(tmp_path, capsys, monkeypatch, graphs):
  names = ['figure2_inception', 'figure3_resnet']
  drawings = {name: block_drawings.DRAWINGS[name] for name in names}
  monkeypatch.setattr(block_drawings, 'DRAWINGS', drawings)
  report.main([f'--blocks={tmp_path / "new"}'])
  paths = sorted((tmp_path / 'new').iterdir())
  assert [path.stem for path in paths] == names
  assert capsys.readouterr().out.splitlines() == [f'wrote {path}' for path in paths]
  for path in paths:
    assert path.stat().st_size < 150_000
    with Image.open(path) as image:
      assert image.format == 'PNG' and min(image.size) > 500
      assert image.text['Description'] == block_drawings.descriptions(graphs[path.stem])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--blocks=DIR', '--curves=c.png'], '--curves: not allowed with argument --blocks'),
    (['--blocks=DIR', '--record=a'], '--record: not allowed with argument --blocks'),
    (['--blocks=DIR', 'runs/a'], 'a WORKDIR needs --record or --curves'),
    (['--blocks'], '--blocks: expected one argument'),
  ],
)
def test_mistakes(arguments, message):
  with pytest.raises(UserError, match=message):
    report.main(arguments)


def test_a_file_in_the_place_of_the_directory(tmp_path, monkeypatch, capsys):
  (tmp_path / 'file').touch()
  error = complaint(report.main, [f'--blocks={tmp_path / "file"}'], monkeypatch, capsys)
  assert error.count('\n') == 1 and 'choose a directory' in error
