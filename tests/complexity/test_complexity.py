import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from senet_jax import errors
from senet_jax.complexity import counts as complexity_lib, report
from senet_jax.layers import SEConfig, SqueezeExcite
from senet_jax.models import create_model, model_info
from senet_jax.tools import complexity as tool

NO_BIAS = SEConfig(use_bias=False)

# SE-ResNet-50 of section 6 (no biases): options, parameters, MACs. `test_paper_costs.py` has those
# whose costs the paper prints.
ABLATIONS = [
  ({'stages': (5,)}, 27_129_896, 3_859_546_112),
  ({'position': 'pre'}, 27_548_200, 3_859_964_416),
  ({'position': 'post'}, 28_071_976, 3_860_488_192),
  ({'position': 'identity'}, 28_071_976, 3_860_488_192),
  ({'squeeze': 'max'}, 28_071_976, 3_860_488_192),
  ({'squeeze': 'none'}, 28_071_976, 4_269_015_040),
]


def _complexity(name, num_classes=None, **overrides):
  return _count(create_model(name, num_classes, **overrides), model_info(name).image_size)


# Models are equal when they are built alike, whatever their names.
_count = functools.cache(complexity_lib.complexity)


def _assert_sums(cost):
  for field in ('params', 'macs', 'se_params', 'se_macs'):
    assert sum(getattr(stage, field) for stage in cost.stages.values()) == getattr(cost, field)
  assert sum(layer.params for layer in cost.layers) == cost.params
  assert sum(layer.macs for layer in cost.layers) == cost.macs
  assert sum(layer.macs for layer in cost.layers if layer.se) == cost.se_macs


@pytest.mark.parametrize(
  ('options', 'params', 'macs'),
  ABLATIONS,
  ids=['-'.join(f'{k}={v}' for k, v in options.items()) for options, *_ in ABLATIONS],
)
def test_ablations_cost_what_independent_definitions_cost(options, params, macs):
  cost = _complexity('se_resnet50', se=SEConfig(use_bias=False, **options))
  assert (cost.params, cost.macs) == (params, macs)
  assert cost.se_weights == cost.equation_5 == params - 25_557_032
  assert cost.se_macs == macs - 3_857_973_248
  assert (cost.squeezed_elements == 0) == (options.get('squeeze') == 'none')
  _assert_sums(cost)


def test_batch_scales_macs_and_squeezed_elements_but_not_parameters():
  model = create_model('se_resnet20_cifar')
  one, three = (complexity_lib.complexity(model, 32, batch) for batch in (1, 3))
  assert (three.macs, three.squeezed_elements) == (3 * one.macs, 3 * one.squeezed_elements)
  assert (three.params, three.equation_5) == (one.params, one.equation_5)


def test_stages_are_named_as_in_the_paper():
  cost = _complexity('se_resnet50', se=NO_BIAS)
  assert list(cost.stages) == ['stem', 'stage2', 'stage3', 'stage4', 'stage5', 'head']
  assert cost.stages['stem'].macs == 112 * 112 * 64 * 7 * 7 * 3
  assert cost.stages['head'] == complexity_lib.Cost(2048 * 1000 + 1000, 2048 * 1000, 0, 0)
  weights = [cost.stages[f'stage{s}'].se_params for s in range(2, 6)]
  assert weights == [24_576, 131_072, 786_432, 1_572_864]


def test_equation_5_is_an_estimate_where_the_ratio_does_not_divide_the_channels():
  cost = _complexity('se_resnet20_cifar', se=SEConfig(ratio=10, use_bias=False))
  blocks = [(3, 16, 1), (3, 32, 3), (3, 64, 6)]
  assert cost.se_weights == sum(2 * n * c * hidden for n, c, hidden in blocks)
  assert cost.equation_5 == round(sum(2 * n * c * c / 10 for n, c, _ in blocks))


def test_layers_are_listed_as_they_run():
  layers = _complexity('se_resnet50').layers
  rows = {row.path: row for row in layers}
  assert len(rows) == len(layers)
  assert rows['stem_conv'] == complexity_lib.Layer(
    'stem_conv', 'Conv', (1, 112, 112, 64), 9_408, 118_013_952, 'stem', False
  )
  assert rows['stage4_block6/conv2'] == complexity_lib.Layer(
    'stage4_block6/conv2', 'Conv', (1, 14, 14, 256), 589_824, 115_605_504, 'stage4', False
  )
  assert rows['stage4_block6/se/fc1'] == complexity_lib.Layer(
    'stage4_block6/se/fc1', 'Dense', (1, 1, 1, 64), 65_600, 65_536, 'stage4', True
  )
  unit = [row.path for row in layers if row.path.startswith('stage2_block2/')]
  names = ('conv1', 'bn1', 'conv2', 'bn2', 'conv3', 'bn3', 'se/fc1', 'se/fc2')
  assert unit == [f'stage2_block2/{name}' for name in names]
  assert (layers[0].path, layers[-1].path) == ('stem_conv', 'fc')


class _Odd(nn.Module):
  """Own parameters beside a module, a rematerialised one, a gate, and one for training only."""

  @nn.compact
  def __call__(self, images, train):
    x = nn.Conv(4, (1, 1), use_bias=False, name='stem')(images)
    x = nn.remat(nn.Conv)(4, (3, 3), use_bias=False, name='stage2_conv')(x)
    x = SqueezeExcite(SEConfig(ratio=2, use_bias=False), name='gate')(x)
    auxiliary = nn.Dense(7, name='auxiliary')
    if train or self.is_initializing():
      auxiliary(x)
    return jax.jit(jnp.matmul)(x, self.param('kernel', nn.initializers.ones, (4, 5)))


def test_every_parameter_and_mac_has_a_layer():
  cost = complexity_lib.complexity(_Odd(), 8)
  rows = [(e.path, e.type, e.output, e.params, e.macs, e.stage, e.se) for e in cost.layers]
  assert rows == [
    ('stem', 'Conv', (1, 8, 8, 4), 12, 64 * 12, 'stem', False),
    ('stage2_conv', 'Conv', (1, 8, 8, 4), 144, 64 * 144, 'stage2', False),
    ('gate/fc1', 'Dense', (1, 1, 1, 2), 8, 8, 'head', True),
    ('gate/fc2', 'Dense', (1, 1, 1, 4), 8, 8, 'head', True),
    ('', '_Odd', (1, 8, 8, 5), 20, 64 * 20, 'head', False),
    ('auxiliary', '', None, 35, 0, 'head', False),
  ]
  assert cost.squeezed_elements == 8 * 8 * 4
  assert cost.se_weights == cost.equation_5 == 16
  _assert_sums(cost)


class _Flat(nn.Module):
  """No module is named after a stage; some are called by another one than the one they are in."""

  @nn.compact
  def __call__(self, images, train):
    x = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(2, (1, 1))])(images)
    x = SqueezeExcite(SEConfig(ratio=2), name='gate')(x)
    return nn.Dense(3, name='classes')(x.mean((1, 2))) @ self.param('own', nn.ones, (3, 2))


def test_networks_without_stages_are_summed_by_their_outermost_modules():
  cost = complexity_lib.complexity(_Flat(), 8)
  assert {name: (stage.params, stage.macs) for name, stage in cost.stages.items()} == {
    'Conv_0': (4 * 27 + 4, 64 * 4 * 27),
    'Conv_1': (4 * 2 + 2, 64 * 4 * 2),
    'Sequential_0': (0, 0),
    'gate': (2 + 1 + 2 + 2, 4),
    'classes': (9, 6),
    'head': (6, 6),
  }
  assert cost.stages['gate'].se_params == 7
  _assert_sums(cost)


def _shape(*shape):
  return jax.ShapeDtypeStruct(shape, jnp.float32)


def _conv(groups=1, stride=1):
  def function(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel, (stride, stride), 'SAME',
      feature_group_count=groups, dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )  # fmt: skip

  return function


@pytest.mark.parametrize(
  ('function', 'kernel', 'expected'),
  [
    (_conv(), _shape(3, 3, 6, 4), 2 * 8 * 10 * 4 * (3 * 3 * 6)),
    (_conv(stride=2), _shape(3, 3, 6, 4), 2 * 4 * 5 * 4 * (3 * 3 * 6)),
    (_conv(groups=2), _shape(3, 5, 3, 4), 2 * 8 * 10 * 4 * (3 * 5 * 3)),
    (_conv(groups=6), _shape(3, 3, 1, 6), 2 * 8 * 10 * 6 * (3 * 3)),
  ],
  ids=['plain', 'strided', 'grouped', 'depthwise'],
)
def test_convolutions(function, kernel, expected):
  assert complexity_lib.count_macs(function, _shape(2, 8, 10, 6), kernel) == expected


def test_transposed_kernel_layout():
  def function(x, kernel):
    return jax.lax.conv(x, kernel, (1, 1), 'VALID')  # NCHW, OIHW

  macs = complexity_lib.count_macs(function, _shape(2, 6, 8, 8), _shape(4, 6, 3, 3))
  assert macs == 2 * 6 * 6 * 4 * (6 * 3 * 3)


@pytest.mark.parametrize(
  ('equation', 'shapes', 'expected'),
  [
    ('mk,kn->mn', [(4, 5), (5, 6)], 4 * 6 * 5),
    ('bmk,bkn->bmn', [(3, 4, 5), (3, 5, 6)], 3 * 4 * 6 * 5),
    ('bhmk,bhnk->bhmn', [(2, 3, 4, 5), (2, 3, 6, 5)], 2 * 3 * 4 * 6 * 5),
    ('mkl,kln->mn', [(4, 5, 7), (5, 7, 6)], 4 * 6 * 5 * 7),
  ],
)
def test_matrix_products(equation, shapes, expected):
  def product(a, b):
    return jnp.einsum(equation, a, b)

  assert complexity_lib.count_macs(product, *(_shape(*s) for s in shapes)) == expected


def _square(x):
  return x @ x


def _scanned(x):
  return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, length=5)[0]


@jax.custom_jvp
def _custom_jvp(x):
  return x @ x


_custom_jvp.defjvps(lambda tangent, answer, x: tangent)


@jax.custom_vjp
def _custom_vjp(x):
  return x @ x


_custom_vjp.defvjp(lambda x: (x @ x, x), lambda x, g: (2 * g @ x,))


@pytest.mark.parametrize(
  ('function', 'products'),
  [
    (_square, 1),
    (_scanned, 5),
    (lambda x: jax.lax.fori_loop(0, 3, lambda _, y: _scanned(y), x), 15),
    (jax.jit(lambda x: jax.jit(_square)(x) @ jax.jit(_square)(x)), 3),
    (jax.checkpoint(_square), 1),
    (_custom_jvp, 1),
    (_custom_vjp, 1),
    (lambda x: jax.lax.cond(x[0, 0] > 0, _scanned, _square, x), 5),
    (lambda x: jax.lax.switch(1, [_square, _scanned, lambda y: y], x), 5),
    (jnp.sin, 0),
  ],
  ids=['once', 'scan', 'nested_loops', 'jit', 'remat', 'custom_jvp', 'custom_vjp', 'cond',
       'switch', 'none'],
)  # fmt: skip
def test_control_flow(function, products):
  assert complexity_lib.count_macs(function, _shape(4, 4)) == products * 64


def test_a_while_loop_with_products_is_refused():
  def loop(body):
    return lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 1, body, x)

  assert complexity_lib.count_macs(loop(jnp.sin), _shape(4, 4)) == 0
  with pytest.raises(ValueError, match='while loop'):
    complexity_lib.count_macs(loop(_square), _shape(4, 4))


def _cells(text, name):
  """The cells of the line of `text` that starts with `name`."""
  (line,) = [line for line in text.splitlines() if line.split()[:1] == [name]]
  return line.split()[1:]


def test_tool_prints_and_writes_a_network(capsys, tmp_path):
  output = tmp_path / 'costs.json'
  tool.main(['--model=se_resnet50', '--summary', f'--output={output}'])
  text = capsys.readouterr().out
  *network, se_weights, equation_5 = _cells(text, 'se_resnet50')
  assert network == ['224', '28,088,024', '53,120', '3.8605', '3.87', '-0.25', '9.01', '0.07']
  assert se_weights == equation_5 == '2,514,944'
  assert _cells(text, 'head') == ['2,049,000', '2,048,000', '0', '0.00', '0', '0.00']
  assert _cells(text, 'stage4_block6/se/fc1') == ['Dense', '1x1x1x64', '65,600', '65,536']

  (model,) = json.loads(output.read_text())['models']
  cost = _complexity('se_resnet50')
  assert (model['params'], model['macs']) == (cost.params, cost.macs)
  assert model['stages']['stage5']['se_params'] == cost.stages['stage5'].se_params
  assert (len(model['layers']), model['paper_gflops']) == (len(cost.layers), 3.87)
  assert model['deviation_percent'] == pytest.approx(-0.2458, abs=1e-4)
  assert report.report('se_resnet50', se={'ratio': 8}).paper_gflops is None  # of ratio 16


def test_tool_summarises_a_network(capsys, tmp_path):
  output = tmp_path / 'layers.md'
  tool.main(['--summary', 'se_resnet20_cifar', f'--output={output}'])
  text = capsys.readouterr().out
  cost = _complexity('se_resnet20_cifar')
  total = ['se_resnet20_cifar', '-', f'{cost.params:,}', f'{cost.macs:,}']
  assert text.splitlines()[-2].split() == ['total', *total]
  assert _cells(text, 'stage2_block1/se/fc1')[0] == 'Dense'
  lines = output.read_text().splitlines()
  assert [line for line in lines if line.startswith('## ')] == [
    f'## {title}' for title in (
      'Networks', 'Stages of se_resnet20_cifar', 'Layers of se_resnet20_cifar'
    )
  ]  # fmt: skip
  assert f'| total | se_resnet20_cifar |  | {cost.params:,} | {cost.macs:,} |' in lines
  for flags in (['--summary=se_resnet20_cifar'], ['--summary', '--model=se_resnet20_cifar']):
    tool.main(flags)
    assert capsys.readouterr().out == text
  tool.main(['--summary', 'resnet20_cifar', '--model', 'se_resnet20_cifar'])
  assert capsys.readouterr().out.count('\ntotal ') == 2


def test_tool_takes_patterns_lists_and_options(capsys, tmp_path):
  output = tmp_path / 'costs.json'
  flags = '--num_classes=100 --image_size=64 --se.ratio=4 --se.no-bias --se.stages=3,4'
  names = '--model=*resnet20_cifar,resnet20_cifar --model=se_resnet110_cifar'
  rest = f'--se.position=pre --se.squeeze=max --output={output}'
  tool.main(f'{names} {flags} {rest}'.split())
  text = capsys.readouterr().out
  models = json.loads(output.read_text())['models']
  assert [m['model'] for m in models] == [
    'resnet20_cifar',
    'se_resnet20_cifar',
    'se_resnet110_cifar',
  ]
  se = SEConfig(ratio=4, use_bias=False, stages=(3, 4), position='pre', squeeze='max')
  for model in models:
    is_se = model['model'].startswith('se_')
    network = create_model(model['model'], 100, se=se if is_se else None)
    cost = complexity_lib.complexity(network, 64)
    assert (model['params'], model['macs']) == (cost.params, cost.macs)
    assert (model['num_classes'], model['image_size']) == (100, 64)
    assert ('layers' in model, 'se' in model['overrides']) == (False, is_se)
    assert _cells(text, model['model'])[1] == f'{cost.params:,}'


def test_tool_takes_the_stride(capsys):
  tool.main(['--model=resnet50', '--stride_in=3x3'])
  assert _cells(capsys.readouterr().out, 'resnet50')[3:6] == ['4.0892', '3.86', '+5.94']


def test_tool_leaves_the_paper_out_at_another_size(capsys):
  tool.main(['--model=resnet50', '--image_size=192'])
  assert _cells(capsys.readouterr().out, 'resnet50')[4:6] == ['-', '-']


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    ([], 'one of --model, --summary MODEL and --paper is required'),
    (['--summary'], 'one of --model, --summary MODEL and --paper is required'),
    (['--summary', 'se_resnet5'], "did you mean 'se_resnet50'"),
    (['--model=se_resnet5'], "did you mean 'se_resnet50'"),
    (['--model=x*'], r"--model='x\*' is unknown"),
    (['--model=resnet50', '--se.ratio=8'], r'--se.ratio .* use the names with se_'),
    (['--model=se_resnet18', '--se.position=conv3x3'], 'needs 1x1-3x3-1x1 units'),
    (['--model=se_resnet18', '--se.stages=2,x'], 'stages such as 2,3'),
    (['--model=se_resnet18', '--se.stages=7'], 'model.se.stages=7'),
    (['--model=se_resnet18', '--image_size=0'], 'at least 1'),
    (['--model=se_resnet18', '--image_size=big'], 'an integer'),
    (['--model=resnet50', '--stride_in=2x2'], 'model.stride_in'),
  ],
)
def test_tool_says_what_is_wrong(argv, message):
  with pytest.raises(errors.UserError, match=message):
    tool.main(argv)


def _python(*arguments):
  return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_an_unknown_network_ends_in_one_line_and_status_2():
  result = _python('-m', 'senet_jax.tools.complexity', '--model=se_resnet51')
  assert (result.returncode, result.stdout) == (2, '')
  assert result.stderr.count('\n') == 1 and 'se_resnet50' in result.stderr
