"""Real public weights give their published errors, on the images of `../shared/data`.

Each row takes a minute or two: these are not in the first tier.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

import senet_jax
from senet_jax import runtime
from senet_jax.data import photos
from senet_jax.interop import shipped
from senet_jax.tools import convert, evaluate, prepare_data
from tests.helpers.paths import ROOT

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
SHARED = ROOT.parent / 'shared' / 'data'
WEIGHTS = SHARED / 'weights'

if not WEIGHTS.is_dir():
  pytest.skip(f'needs {WEIGHTS}', allow_module_level=True)


@pytest.fixture(scope='module')
def unpacked(tmp_path_factory):
  path = tmp_path_factory.mktemp('images')
  names = ('cifar10', 'imagenet_sample_100')
  subprocess.run([sys.executable, SHARED / 'unpack.py', path, *names], check=True)
  return path


@pytest.fixture(scope='module')
def arrays(unpacked):
  directory = unpacked / 'arrays'
  prepare_data.main(
    ['--dataset=cifar10', f'--source={unpacked}', f'--data_dir={directory}', '--arrays_only']
  )
  return directory


@pytest.mark.parametrize(
  ('name', 'facts'), [(name, shipped.facts(name)) for name in senet_jax.list_pretrained()]
)
def test_networks_in_the_package(name, facts, arrays, capsys):
  evaluate.main([f'--workdir={name}', f'--data_dir={arrays}'])
  assert f'top1_error   {facts["test_error_percent"]:.4f} %' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('name', 'error'),
  [
    ('resnet20-12fca82f.th', 8.27),
    pytest.param('resnet56-4bfd9763.th', 6.61, marks=pytest.mark.slow),
  ],
)
def test_cifar_networks_of_akamaster(name, error, arrays, tmp_path, capsys):
  convert.main([f'--from={WEIGHTS / name}', f'--to={tmp_path}/run'])
  evaluate.main([f'--workdir={tmp_path}/run', f'--data_dir={arrays}'])
  assert f'top1_error    {error:.4f} %' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['mobilenet_v1_0.75_192', 'mobilenet_v1_0.5_160'])
def test_mobilenets_of_tensorflow(name, unpacked, tmp_path):
  path = WEIGHTS / f'{name}_quant.tflite'
  convert.main([f'--from={path}', f'--to={tmp_path}/run'])
  network = senet_jax.load(tmp_path / 'run', batch_size=20)
  files = sorted((unpacked / 'imagenet_sample_100').glob('*.JPEG'))
  labels = [network.class_names.index(file.name.partition('_')[0]) for file in files]
  right = (network.probabilities(files).argmax(1) == labels).sum()
  interpreter = runtime.import_tensorflow().lite.Interpreter(str(path))
  interpreter.allocate_tensors()
  (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
  theirs, plain = 0, network.preprocessing
  for file, label in zip(files, labels, strict=True):
    crop = photos.central_crop(photos.open_rgb(file.read_bytes()), plain.resize, plain.shape[0])
    interpreter.set_tensor(given['index'], crop[None])
    interpreter.invoke()
    theirs += int(np.argmax(interpreter.get_tensor(made['index'])) == label)
  assert right >= theirs - 2, (right, theirs)
