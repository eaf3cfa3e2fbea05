"""Programs of detectors are profiled and measured as those of classifiers."""

import json
import math
import re
import stat
import sys

import jax
import numpy as np
import pytest

from senet_jax import config as config_lib, runtime
from senet_jax.errors import UserError
from senet_jax.measure import cases, compiled, hlo, networks, programs, throughput, torch_detectors
from senet_jax.tools import benchmark
from senet_jax.workdir import network

NAMES = 'faster_rcnn_r50_fpn,se_faster_rcnn_r50_fpn'
# A narrow ResNet-18 and few proposals.
SMALL = (
  '--config.model.trunk=resnet18',
  '--config.model.width=8',
  '--config.model.se.ratio=4',
  '--config.model.settings=small',
  '--config.data.longer_side=64',
)


def configuration(**fields):
  config = throughput.configuration(
    'se_faster_rcnn_r50_fpn', batch_size=2, dtype='float32', image_size=64
  )
  given = {'model.trunk': 'resnet18', 'model.width': 8, 'model.se.ratio': 4,
           'model.settings': 'small', 'data.longer_side': 64, **fields}  # fmt: skip
  config.update_from_flattened_dict(given)
  config_lib.check(config)
  return config


def test_images_are_of_the_widest_shape():
  config = throughput.configuration('faster_rcnn_r50_fpn', batch_size=2, dtype='bfloat16')
  assert programs.image_sides(config) == (800, 1344)
  images = programs.image_shapes(config, runtime.data_mesh(1))
  assert images.shape == (2, 800, 1344, 3)
  config = throughput.configuration(
    'faster_rcnn_r50_fpn', batch_size=2, dtype='bfloat16', image_size=480
  )
  assert (config.data.shorter_side, config.data.longer_side) == (480, 800)


def test_the_training_step():
  """All-reduced are gradients of what is trained and the losses, at once; all shapes are static."""
  config = configuration()
  program = compiled.compile_program(config, jax.devices()[:2], 'train')
  text = program.compiled.as_text()
  module = hlo.Module(text)
  model = network.build_model(config)
  params = network.variable_shapes(config, model)['params']
  trained = network.trained(params, network.frozen(config, model))
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(trained))
  assert count < sum(math.prod(x.shape) for x in jax.tree.leaves(params))
  metrics = 5  # four losses and the number of images
  assert module.collectives() == {'all-reduce': {'count': 1, 'bytes': 4 * (count + metrics)}}
  assert not re.search(r'\[[\d,]*<=', text)  # no bounded dynamic dimension, `f32[<=8]`
  assert 'callback' not in text and 'infeed' not in text and 'outfeed' not in text
  found = compiled.report(program, None)
  assert found['batch_per_device'] == 1 and found['bytes'] > 4 * count
  layers = ' '.join(found['layers'])
  for part in ('backbone/stage2_block1', 'fpn', 'rpn', 'roi_align', 'roi_head'):
    assert part in layers


@pytest.mark.slow
def test_operations_of_an_image():
  """Nearly all of inference are convolutions and products, twice and more that of training."""
  config = configuration()
  infer = throughput.gflops_per_image(config, 'inference')
  train = throughput.gflops_per_image(config, 'train')
  assert infer < train < 3 * infer
  full = throughput.configuration('faster_rcnn_r50_fpn', batch_size=1, dtype='bfloat16')
  # fvcore counts some 134 G multiply-adds for torchvision's at 800 x 800, of fewer pixels.
  assert 2 * 134 < throughput.gflops_per_image(full, 'inference') < 2 * 250


@pytest.mark.slow
def test_made_up_weights_find_as_much_as_trained_ones():
  config = configuration(**{'model.settings': 'torchvision', 'model.trunk': 'resnet50'})
  model = network.build_model(config)
  variables = programs.made_up_variables(config, model)
  images = np.random.default_rng(0).standard_normal((1, 128, 128, 3), np.float32)
  found = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
  assert found['valid'].sum() == model.options.detections


@pytest.mark.slow
def test_benchmark(tmp_path):
  output = tmp_path / 'rates.json'
  arguments = [f'--models={NAMES}', '--batch=1', '--image_size=64', '--devices=1', '--repeats=1',
               '--seconds=0.01', f'--output={output}', *SMALL]  # fmt: skip
  assert benchmark.main(arguments) == 0
  record = json.loads(output.read_text())
  assert {(row['network'], row['mode']) for row in record['rows']} == {
    (name, mode) for name in NAMES.split(',') for mode in ('train', 'inference')
  }
  for row in record['rows']:
    assert row['image_size'] == [64, 64] and row['images_per_second']['mean'] > 0
  assert [(tax['network'], tax['mode']) for tax in record['se_tax']] == [
    ('se_faster_rcnn_r50_fpn', 'train'),
    ('se_faster_rcnn_r50_fpn', 'inference'),
  ]


# --- beside torchvision --------------------------------------------------------------------------


def fake_python(tmp_path, body: str):
  """An executable that is given what a Python with torchvision would be."""
  path = tmp_path / 'python'
  path.write_text(f'#!{sys.executable}\nimport json, sys\n{body}')
  path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return str(path)


ANSWERS = """
if sys.argv[-1] == 'versions':
  print(json.dumps({'torch': '1', 'torchvision': '2', 'blas': 'libopenblas.so', 'cuda': False}))
else:
  options = json.loads(sys.argv[-1])
  import numpy as np
  assert 'backbone.body.conv1.weight' in np.load(options['weights']).files
  assert (options['height'], options['width'], options['mode']) == (64, 64, 'inference')
  print(json.dumps({'ready': 0.5, 'counts': {}}), flush=True)
  for line in sys.stdin:
    print(json.dumps({'done': int(line)}), flush=True)
"""


def test_torchvision_runs_in_its_own_python(tmp_path, monkeypatch):
  python = fake_python(tmp_path, ANSWERS)
  monkeypatch.setenv('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  monkeypatch.setenv('OMP_WAIT_POLICY', 'PASSIVE')
  bench = cases.Bench.create(1, 64, 'torch', torch_python=python, task='detection')
  assert bench.versions == {'torch': '1', 'torchvision': '2', 'blas': 'libopenblas.so'}
  wanted = networks.networks(NAMES)
  assert bench.not_in_torch(wanted) == ['se_faster_rcnn_r50_fpn']
  found = bench.cases(
    wanted,
    mode='inference',
    dtype='float32',
    batch_size=1,
    overrides=['--config.data.longer_side=64'],
  )
  assert [(case.network.name, case.framework) for case in found] == [
    ('faster_rcnn_r50_fpn', 'senet_jax'),
    ('faster_rcnn_r50_fpn', 'torch'),
    ('se_faster_rcnn_r50_fpn', 'senet_jax'),
  ]
  assert {case.config.model.settings for case in found} == {'torchvision'}


@pytest.mark.slow
def test_torchvision_gets_the_same_weights(tmp_path):
  config = throughput.configuration(
    'faster_rcnn_r50_fpn', batch_size=1, dtype='float32', image_size=64
  )
  config.data.longer_side = 64
  python = fake_python(tmp_path, ANSWERS)
  workload = torch_detectors.prepare(config, 'inference', 'cpu', python)
  for _ in range(3):
    workload.dispatch()
  workload.wait()
  assert workload.images == 1 and workload.compile_s == 0.5


@pytest.mark.parametrize(
  ('body', 'message'),
  [
    ('sys.exit("ModuleNotFoundError: no torch")', r'has no torchvision that works \(Mod.*no torch'),
    ('sys.exit(3)', r'no torchvision that works \(it failed\)'),
  ],
)
def test_a_python_without_torchvision(body, message, tmp_path):
  with pytest.raises(UserError, match=message):
    torch_detectors.check(fake_python(tmp_path, body))
  with pytest.raises(UserError, match=r'--torch_python=/nowhere/python does not run'):
    torch_detectors.check('/nowhere/python')


def test_mistakes():
  create = cases.Bench.create
  with pytest.raises(UserError, match='--torch_python is for detectors with --against=torch'):
    create(1, torch_python='python')
  with pytest.raises(UserError, match='--against=torch alone, and without --torch_compile'):
    create(1, against='torch', torch_compile='default', task='detection')
  with pytest.raises(UserError, match='networks for classification and detection'):
    benchmark.main(['--models=resnet50,faster_rcnn_r50_fpn'])
  with pytest.raises(UserError, match='--logits compares classifiers'):
    benchmark.main(['--models=faster_rcnn_r50_fpn', '--logits'])
