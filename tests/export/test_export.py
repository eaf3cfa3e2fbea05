"""Exported files: what they give in their own runtimes, what is in them, and what is refused."""

import dataclasses
import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

import senet_jax
from senet_jax import layers, models
from senet_jax.data.preprocessing import Transform
from senet_jax.errors import UserError
from senet_jax.export import (
  agreement,
  exported,
  file_predictor,
  folding,
  formats,
  graph,
  network,
  onnx as onnx_format,
  stablehlo,
  tflite,
)
from senet_jax.export.card import Card
from senet_jax.tools import export as tool, predict
from tests.helpers.commands import complaint
from tests.helpers.models import some_images, tree_of, variables_of
from tests.helpers.paths import ROOT

SHIPPED = 'se_resnet20_cifar10'
BOUND = 1e-4


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """An ONNX file with all there is: raw images in, probabilities and features out."""
  path = tmp_path_factory.mktemp('onnx') / 'net.onnx'
  options = {'uint8': True, 'probabilities': True, 'features': True}
  return path, senet_jax.export(SHIPPED, path, **options)


@pytest.fixture(scope='module')
def shipped():
  return senet_jax.load(SHIPPED)


@pytest.fixture(scope='module')
def photos():
  return agreement.sample_photos()


@pytest.mark.parametrize('name', ['stablehlo', 'savedmodel', 'tflite'])
def test_shipped_network(name, tmp_path):
  path = tmp_path / 'net'
  found = exported.export(SHIPPED, path, name)
  assert [row['batch'] for row in found.rows] == ([1] if name == 'tflite' else [1, 7])
  assert 0 < found.worst < BOUND
  assert formats.of(path) == name
  kept = exported.check(path)
  assert kept.worst < BOUND


def test_onnx(made, shipped, photos):
  path, found = made
  assert [(row['batch'], row['output']) for row in found.rows] == [
    (batch, output) for batch in (1, 7) for output in ('probabilities', 'features')
  ]
  assert found.worst < BOUND
  session = onnxruntime.InferenceSession(path)
  (images,) = session.get_inputs()
  assert (images.shape, images.type) == (['N', 3, 32, 32], 'tensor(uint8)')
  raw = np.stack([shipped.read(photo) for photo in photos[:3]]).transpose(0, 3, 1, 2)
  (probabilities,) = session.run(['probabilities'], {'images': raw})
  np.testing.assert_allclose(probabilities, shipped.probabilities(photos[:3]), atol=1e-5)


def test_onnx_file_passes_the_checker_and_has_plain_operators(made):
  model = onnx.load(made[0])
  onnx.checker.check_model(model, full_check=True)
  inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
  assert [opset.version for opset in model.opset_import] == [onnx_format.OPSET]
  unknown = [
    value.name
    for value in inferred.graph.value_info
    if not all(dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim)
  ]
  assert not unknown
  operators = [node.op_type for node in model.graph.node]
  # One for each of 19 convolutions and of 2 · 9 products of gates; no layout is changed.
  assert operators.count('Conv') == 37
  assert 'Transpose' not in operators and 'Reshape' not in operators


def test_card(made, shipped):
  model = onnx.load(made[0])
  told = {entry.key: entry.value for entry in model.metadata_props}
  assert tuple(json.loads(told['class_names'])) == shipped.class_names
  assert json.loads(told['preprocessing'])['mean'] == list(shipped.preprocessing.mean)
  versions = json.loads(told['versions'])
  assert (versions['jax'], versions['onnx']) == (jax.__version__, onnx.__version__)
  assert len(told['params_sha256']) == 64
  card = onnx_format.read_card(made[0])
  assert (card.network, card.uint8, card.batch) == (SHIPPED, True, None)


@pytest.mark.parametrize('name', ['onnx', 'tflite'])
def test_rounded_weights(name, tmp_path):
  path = tmp_path / 'half'
  found = exported.export(SHIPPED, path, name, dtype='bfloat16', batch=2)
  (row,) = found.rows
  assert max(row['relative'], row['unrounded']) < BOUND < row['from_float32'] < 0.1
  assert row['same_top1'] > 0.7
  assert exported.check(path).worst < BOUND


def test_command_and_half_the_size_of_rounded_weights(made, tmp_path, capsys):
  path, table = tmp_path / 'half.onnx', tmp_path / 'half.json'
  options = ['--dtype=bfloat16', '--batch=2', f'--to={path}', f'--output={table}']
  assert tool.main([SHIPPED, *options]) == 0
  assert path.stat().st_size < 0.6 * made[0].stat().st_size
  (images,) = onnxruntime.InferenceSession(path).get_inputs()
  assert images.shape[0] == 2
  (row,) = json.loads(table.read_text())['rows']
  out = capsys.readouterr().out
  assert f'{row["relative"]:.1e}' in out and f'written to {path}' in out
  assert tool.main([f'--check={path}']) == 0
  assert f'{path} agrees with its network' in capsys.readouterr().out


def test_predictions_of_a_file(made, shipped, photos, tmp_path, capsys):
  predictor = file_predictor.load(made[0], 'onnxruntime', batch_size=4)
  for what, bound in (('probabilities', 1e-5), ('features', 1e-4)):
    expected = getattr(shipped, what)(photos)
    np.testing.assert_allclose(getattr(predictor, what)(photos), expected, atol=bound)
  with pytest.raises(UserError, match='batch_size=0 must be at least 1'):
    file_predictor.load(made[0], 'onnxruntime', batch_size=0)
  photos[0].save(tmp_path / 'photo.png')
  argv = ['predict', str(made[0]), str(tmp_path / 'photo.png'), '--top_k=1']
  assert predict.main(argv[1:]) == 0
  assert shipped.top_k(photos[0], 1)[0][0].name in capsys.readouterr().out


def test_file_of_another_network_is_not_kept(tmp_path, monkeypatch):
  real = onnx_format.run
  monkeypatch.setattr(
    onnx_format, 'run', lambda path, x: [{k: 1.01 * v for k, v in y.items()} for y in real(path, x)]
  )
  with pytest.raises(UserError, match='differs from the network by'):
    exported.export(SHIPPED, tmp_path / 'net.onnx')
  assert not list(tmp_path.iterdir())


def faulty(right, scale=1.0, shift=0.0):
  """A graph whose last layer is another."""
  last = right.outputs['logits']
  kernel, bias = last.constants
  return graph.Graph(
    right.images, {'logits': last.replace(constants=(scale * kernel, bias + shift))}
  )


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_faulty_folding_is_noticed_whatever_the_weights_are(dtype, tmp_path, monkeypatch):
  real = folding.folded

  monkeypatch.setattr(folding, 'folded', lambda traced: faulty(real(traced), scale=1.01))
  with pytest.raises(UserError, match='differs from the network by'):
    exported.export(SHIPPED, tmp_path / 'net.onnx', dtype=dtype)
  assert not list(tmp_path.iterdir())


def with_card(made, path, **changes):
  """`path`, with the ONNX file whose card says something else."""
  model = onnx.load(made[0])
  props = {entry.key: entry.value for entry in model.metadata_props} | changes
  onnx.helper.set_model_props(model, props)
  onnx.save(model, path)
  return path


def preprocessing(made, **changes):
  return json.dumps(onnx_format.read_card(made[0]).to_dict()['preprocessing'] | changes)


def test_card_that_says_something_else_than_the_network(made, tmp_path):
  names = [*onnx_format.read_card(made[0]).class_names[:-1], 'lorry']
  for word, changes in (
    ('mean', {'preprocessing': preprocessing(made, mean=[0, 0, 0])}),
    ('interpolation', {'preprocessing': preprocessing(made, interpolation='bicubic')}),
    ('class_names', {'class_names': '["one"]'}),
    ('class 9', {'class_names': json.dumps(names)}),
    ('layout', {'layout': 'NHWC'}),
    ('model', {'model': 'resnet20_cifar'}),
  ):
    path = with_card(made, tmp_path / f'{word}.onnx', **changes)
    with pytest.raises(UserError, match=f'says that {word} is .*, and its network'):
      exported.check(path)


@pytest.mark.parametrize(
  ('changes', 'words'),
  [
    ({'class_names': '["a", "b"]'}, r'of the shape \[1, 10\] for 1 images, .* names 2 classes'),
    ({'outputs': '["logits"]'}, r'gives logits of the shape \[\]'),
    ({'outputs': '[]'}, r'is damaged: outputs is \(\)'),
    ({'batch': '3', 'uint8': 'false'}, 'cannot be run: .*tensor'),
    ({'batch': '0'}, 'is damaged: batch is 0'),
    ({'layout': 'HWCN'}, "is damaged: layout is 'HWCN'"),
    ({'shape': [16, 16, 3]}, 'cannot be run: .*dimensions'),
    ({'std': [0.0, 1.0, 1.0]}, 'is damaged: preprocessing is'),
    ({'shape': [float('inf'), 16, 3]}, 'is damaged'),
  ],
)
def test_card_that_says_something_else_than_the_file(changes, words, made, tmp_path):
  if {'shape', 'std'} & changes.keys():
    changes = {'preprocessing': preprocessing(made, **changes)}
  path = with_card(made, tmp_path / 'net.onnx', **changes)
  with pytest.raises(UserError, match=words):
    file_predictor.load(path, 'onnxruntime')


def test_stablehlo_file_that_does_not_run_says_why(tmp_path):
  path = tmp_path / 'net.stablehlo'
  stablehlo_of = graph.trace(lambda _, x: {'logits': x.mean((1, 2))}, {}, (8, 8, 3), 'float32')
  written(stablehlo, folding.folded(stablehlo_of), path)
  with pytest.raises(UserError, match=r'does not run in JAX: .*(8|shape)'):
    stablehlo.run(path, [np.zeros((1, 9, 9, 3), np.float32)])


def test_card_that_is_no_card(tmp_path):
  (tmp_path / 'net.stablehlo').write_bytes(b'ML\xefR')
  (tmp_path / 'net.stablehlo.json').write_text('[]')
  with pytest.raises(UserError, match=r'net\.stablehlo\.json is damaged: it is no card'):
    exported.check(tmp_path / 'net.stablehlo')


def test_predict_says_that_it_runs_no_savedmodel(tmp_path, monkeypatch, capsys):
  folder = tmp_path / 'net'
  folder.mkdir()
  (folder / 'saved_model.pb').write_bytes(b'')
  Image.new('RGB', (32, 32)).save(tmp_path / 'photo.png')
  error = complaint(predict.main, [str(folder), f'{tmp_path}/photo.png'], monkeypatch, capsys)
  assert 'runs ONNX files, and' in error and 'is savedmodel' in error


def test_outputs_without_a_spread(made, shipped, tmp_path):
  """A network whose weights are zeros: its logits are equal, and a file gives them or does not."""
  card = dataclasses.replace(onnx_format.read_card(made[0]), uint8=False, outputs=('logits',))
  variables = jax.tree.map(np.zeros_like, jax.device_get(shipped.variables))
  constant = dataclasses.replace(shipped, variables=variables)
  right = network.graph(shipped.model, variables, shipped.preprocessing)
  for some, relative in ((right, 0.0), (faulty(right, shift=1e-6), float('inf'))):
    path = tmp_path / f'{relative}.onnx'
    onnx_format.write(some, path, card)
    assert agreement.compare(onnx_format, path, card, constant, some).worst == relative


# --- every operation ------------------------------------------------------------------------------


def plain(size):
  """Images of that size as they are."""
  return Transform((size, size, 3), size, size, (0.0,) * 3, (1.0,) * 3)


def written(module, graph, path, batch=None):
  """`path`, with the file that a format makes of a graph."""
  name, size = module.__name__.rpartition('.')[2], graph.images.shape[1]
  module.write(graph, path, Card(
    name, 'here', 'net', 0, '', '', {}, module.LAYOUT, False, batch, (), 'float32', plain(size), ()
  ))  # fmt: skip
  return path


def difference(name, size, tmp_path, written_as=(onnx_format,), **options):
  """The largest difference of files at batch 1 and 3, over the spread of the logits."""
  model = models.create_model(name, 10, **options)
  images = some_images(3, size)
  variables = variables_of(model, images)
  rng = np.random.default_rng(0)
  gate = -3 if any(word in name for word in ('res', 'shake', 'shuffle', 'wrn', 'senet')) else 3

  def some(path, x):
    """Statistics that folding has something to do with, and gates that keep digits.

    With those of random weights a last bit of a weight moves a deep network by more than the bound.
    They are open in a chain of layers, and nearly closed where the shortcut is beside them.
    """
    names = [key.key for key in path]
    if names[0] == 'batch_stats':
      around = 0.0 if names[-1] == 'mean' else 1.0
      return (around + rng.uniform(-0.3, 0.3, x.shape)).astype(np.float32)
    return np.asarray(x + gate if names[-2:] == ['fc2', 'bias'] else x)

  variables = jax.tree.map_with_path(some, variables)
  exported_graph = network.graph(model, variables, plain(size))
  expected = jax.jit(lambda x: model.apply(variables, x, train=False))(images)
  batches = [np.asarray(images[:1]), np.asarray(images)]
  found = []
  for i, format in enumerate(written_as):
    path = written(format, exported_graph, tmp_path / str(i))
    found += [y['logits'] for y in format.run(path, batches)]
  return max(np.abs(y - expected[: len(y)]).max() for y in found) / np.std(expected)


@pytest.mark.parametrize(
  ('name', 'size', 'options'),
  [
    ('se_shufflenet_v1_g3', 64, {'depths': (1, 1, 1)}),
    ('vgg16_bn', 32, {'depths': (1, 1, 1, 1, 1), 'width': 8, 'fc_width': 16}),
    ('se_mobilenet_v1', 64, {'depths': (1, 1, 1), 'activation': 'relu6', 'padding': 'SAME'}),
  ],
)
def test_networks_of_other_families(name, size, options, tmp_path):
  assert difference(name, size, tmp_path, **options) < BOUND


@pytest.mark.parametrize(
  ('name', 'options'),
  [('se_mobilenet_v1', {'depths': (1, 1, 1)}), ('se_resnext50_32x4d', {'depths': (1, 1, 1, 1)})],
)
def test_stablehlo_has_the_convolutions_that_suit_a_cpu(name, options, tmp_path):
  """XLA:CPU takes many times as long for those of groups and depthwise ones in their own form."""
  model = models.create_model(name, 10, **options)
  assert difference(name, 32, tmp_path, (stablehlo,), **options) < BOUND
  of_network = network.graph(model, variables_of(model, some_images(1, 32)), plain(32))
  path = written(stablehlo, of_network, tmp_path / 'net')
  exported_program = jax.export.deserialize(bytearray(path.read_bytes()))
  assert 'feature_group_count = 32' in exported_program.mlir_module()  # for GPUs and TPUs
  compiled = jax.jit(exported_program.call).lower(np.zeros((2, 32, 32, 3), np.float32)).compile()
  assert 'convolution' in compiled.as_text() and 'feature_group_count' not in compiled.as_text()


# At the smallest size that each can take.
SIZES = {
  'bn_inception': 64,
  'inception_v3': 75,
  'inception_resnet_v2': 75,
  'inception_v3_cifar': 79,
}


@pytest.mark.slow
@pytest.mark.parametrize('name', models.list_models())
def test_every_network(name, tmp_path):
  size = SIZES.get(name.removeprefix('se_'), 32)
  assert difference(name, size, tmp_path, (onnx_format, stablehlo)) < BOUND


@pytest.mark.parametrize(
  'se',
  [
    layers.SEConfig(squeeze='max', excitation='tanh'),
    layers.SEConfig(squeeze='none', position='post'),
  ],
)
def test_other_gates(se, tmp_path):
  assert difference('resnet20_cifar', 16, tmp_path, depths=(1, 1, 1), width=16, se=se) < BOUND


def test_padded_pooling_in_tensorflow_lite(tmp_path):
  """Its converter knows no pooling with padding of its own."""
  images = -np.abs(np.asarray(some_images(1, 16)))
  for align in ('torch', 'caffe'):

    def pools(variables, x, align=align):
      return {'logits': layers.avg_pool(layers.max_pool(x, align), 3, 2, 'CEIL')}

    traced = folding.folded(graph.trace(pools, {}, (16, 16, 3), 'float32'))
    (found,) = tflite.run(written(tflite, traced, tmp_path / align, batch=1), [images])
    np.testing.assert_allclose(found['logits'], pools({}, images)['logits'], rtol=1e-5)


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--to=net.xyz'], 'the format is missing'),
    (['--to=net.onnx', '--format=onx'], "did you mean 'onnx'"),
    (['--to=net.tflite', '--format=onnx'], 'the ending of tflite, and format=onnx: change'),
    (['--to=net.tflite', '--batch=any'], 'fixed number of images; give batch=1'),
    (['--to=net.onnx', '--batch=0'], '--batch: '),
    (['--to=net.onnx', '--size=100000'], 'size=100000 must be an integer from 1 to 16384'),
    (['--to=net.onnx', '--photos=there.onnx'], 'there.onnx is unreadable: '),
    (['--to=net', '--format=stablehlo'], 'net.json is there already'),
    (['--to=net.onnx', '--dtype=int8'], 'allowed: float32, bfloat16'),
    (['--to=/proc/nothing/net.onnx'], '/proc/nothing'),
    (['--to=there.onnx'], 'is there already'),
    (['--check=missing.onnx'], 'does not exist'),
    (['--check=there.onnx'], 'is none of stablehlo, onnx'),
    (['--check=text.onnx'], 'is no'),
    (['--check=there.onnx', '--uint8'], 'has no effect with --check'),
    (['--check=there.onnx', '--dtype=bfloat16'], '--dtype has no effect with --check'),
    (['--check=MADE', '--format=tflite'], 'is onnx, not tflite'),
  ],
)
def test_mistakes(arguments, words, made, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'there.onnx').write_bytes(b'not a file of any format')
  (tmp_path / 'text.onnx').write_bytes(b'\x08\x08 and then no more')
  (tmp_path / 'net.json').write_bytes(b'{}')
  arguments = [argument.replace('MADE', str(made[0])) for argument in arguments]
  if not any(argument.startswith(('--check', '--workdir')) for argument in arguments):
    arguments = [SHIPPED, *arguments]
  error = complaint(tool.main, arguments, monkeypatch, capsys)
  assert words in error and error.count('\n') == 1
  assert {path.name for path in tmp_path.iterdir()} == {'there.onnx', 'text.onnx', 'net.json'}
  assert (tmp_path / 'net.json').read_bytes() == b'{}'


def test_weights_of_another_network(made, tmp_path, monkeypatch, capsys):
  model = onnx.load(made[0])
  (digest,) = (entry for entry in model.metadata_props if entry.key == 'params_sha256')
  digest.value = '0' * 64
  path = tmp_path / 'net.onnx'
  onnx.save(model, path)
  error = complaint(tool.main, [f'--check={path}'], monkeypatch, capsys)
  assert f'is of another network than {SHIPPED}' in error and error.count('\n') == 1


def test_images_that_are_too_small():
  model = models.create_model('inception_v3', 10)
  variables = tree_of(model, 75)
  with pytest.raises(UserError, match='images of 32x32 pixels leave nothing'):
    network.graph(model, variables, plain(32))


def test_missing_library(monkeypatch, capsys):
  monkeypatch.setattr(formats.importlib.util, 'find_spec', lambda name: None)
  error = complaint(tool.main, [SHIPPED, '--to=net.onnx'], monkeypatch, capsys)
  assert "pip install 'senet_jax[export]'" in error
  error = complaint(tool.main, [SHIPPED, '--to=net.tflite'], monkeypatch, capsys)
  assert "pip install 'senet_jax[tensorflow]'" in error


def test_damaged_file(made, tmp_path, monkeypatch, capsys):
  data = made[0].read_bytes()
  path = tmp_path / 'net.onnx'
  path.write_bytes(data[: len(data) // 2])
  error = complaint(tool.main, [f'--check={path}'], monkeypatch, capsys)
  assert 'damaged' in error and error.count('\n') == 1


def test_package_and_function_have_one_name(tmp_path):
  call = "senet_jax.export('no such network', 'net.onnx')"
  code = f"""
import senet_jax
for attempt in (1, 2):  # before the package is imported, and behind it
  try:
    {call}
  except senet_jax.errors.UserError as error:
    print(error)
"""
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, check=True,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )  # fmt: skip
  assert done.stdout.count('no such network') == 2
  assert isinstance(sys.modules['senet_jax.export'], types.ModuleType)


@pytest.mark.parametrize(
  ('option', 'words'),
  [
    ('--batch_size=0', "--batch_size: '0' must be an integer of at least 1"),
    ('--checkpoint=latest', '--checkpoint=latest has no effect on a file'),
  ],
)
def test_options_of_runs_with_a_file(option, words, made, tmp_path, monkeypatch, capsys):
  Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
  argv = [str(made[0]), str(tmp_path / 'a.png'), option]
  error = complaint(predict.main, argv, monkeypatch, capsys)
  assert words in error and error.count('\n') == 1


def test_files_that_predict_does_not_run(tmp_path, monkeypatch, capsys):
  Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
  path = tmp_path / 'net.stablehlo'
  exported.export(SHIPPED, path)
  error = complaint(predict.main, [str(path), str(tmp_path / 'a.png')], monkeypatch, capsys)
  assert 'runs ONNX files, and' in error and 'is stablehlo; export it with --format=onnx' in error
  argv = [str(tmp_path / 'a.png'), SHIPPED]
  assert 'a.png is a photo; give the network first' in complaint(
    predict.main, argv, monkeypatch, capsys
  )


def test_embeddings_of_a_file_without_features(tmp_path, monkeypatch, capsys):
  Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
  exported.export(SHIPPED, tmp_path / 'net.onnx')
  argv = [str(tmp_path / 'net.onnx'), str(tmp_path / 'a.png'), f'--embeddings={tmp_path}/x.npz']
  error = complaint(predict.main, argv, monkeypatch, capsys)
  assert 'gives no features; export it with --features' in error and error.count('\n') == 1
  assert not (tmp_path / 'x.npz').exists()


def test_backend_needs_a_file(tmp_path, monkeypatch, capsys):
  Image.new('RGB', (8, 8)).save(tmp_path / 'a.png')
  argv = ['--backend=onnxruntime', f'--workdir={tmp_path}', str(tmp_path / 'a.png')]
  assert 'is none of' in complaint(predict.main, argv, monkeypatch, capsys)
