"""A run takes network and preprocessing from its `init_from`, unless told otherwise."""

import functools
import json
import re
import shlex
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from senet_jax import config as config_lib, main as main_command
from senet_jax.errors import UserError
from senet_jax.interop import mapping, storage
from senet_jax.tools import convert
from senet_jax.training import initial
from senet_jax.training.loop import train
from senet_jax.workdir import saved
from senet_jax.workdir.network import build_model
from tests.helpers.small_run import configured

NETWORK = {
  'model.name': 'se_resnet20_cifar', 'model.width': 4, 'model.depths': (1, 1, 1),
  'model.se.ratio': 2, 'model.preact': False, 'model.shortcut': 'pad_both',
  'data.mean': (1.0, 2.0, 3.0), 'data.std': (50.0, 60.0, 70.0), 'bn.epsilon': 1e-3,
}  # fmt: skip
RUN = {
  'data.name': 'cifar10', 'data.fake': True, 'data.train_split': 'train[:32]',
  'data.eval_split': 'test[:32]', 'batch_size': 16, 'steps': 2, 'log.tensorboard': False,
  'checkpoint.every_steps': 1, 'schedule.name': 'constant',
}  # fmt: skip


def config_of(**fields):
  return configured(RUN, **fields)


@pytest.fixture
def source(tmp_path):
  """A network of other options than the default ones, of 5 classes."""
  config = config_lib.default()
  config.update_from_flattened_dict({**NETWORK, 'model.dtype': 'bfloat16'})
  model = build_model(config, 5)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), np.zeros((1, 32, 32, 3)))
  path = tmp_path / 'source'
  saved.write(path, config, jax.tree.map(np.asarray, variables), 5, None, {'converted_from': 'x'})
  return path


def test_nothing_but_the_source_need_be_said_and_it_may_go(source, tmp_path, capsys):
  given = config_of(init_from=str(source), new_head=True)
  assert train(given, tmp_path / 'run')
  assert 'model.shortcut=pad_both' in capsys.readouterr().out
  kept = dict(config_lib.flatten(saved.read_config(tmp_path / 'run')))
  assert {field: kept[field] for field in NETWORK} == NETWORK
  assert kept['model.dtype'] == 'float32' and kept['data.name'] == 'cifar10'
  shutil.rmtree(source)
  assert train(config_of(init_from=str(source), new_head=True, steps=3), tmp_path / 'run')
  with pytest.raises(UserError, match='source holds no run'):
    train(given, tmp_path / 'another')


def test_what_is_said_stays(source, tmp_path):
  given = config_of(init_from=str(source), new_head=True, data__mean=(9.0, 9.0, 9.0))
  inherited = initial.inherit(given, tmp_path / 'run')
  assert inherited.data.mean == (9.0, 9.0, 9.0) and inherited.data.std == (50.0, 60.0, 70.0)
  with pytest.raises(UserError, match=r'another function .* data\.mean is \(1\.0, 2\.0, 3\.0\)'):
    train(given, tmp_path / 'run')


def test_streams_take_the_size_of_images_as_well(source, tmp_path):
  path = source / 'config.json'
  there = json.loads(path.read_text())
  there['data'] |= {'image_size': 24, 'resize': 30, 'interpolation': 'bicubic', 'feed': 'stream'}
  path.write_text(json.dumps(there))
  size = ('image_size', 'resize', 'interpolation')
  for fields, expected in (
    ({'data__feed': 'stream'}, (24, 30, 'bicubic')),
    ({'data__feed': 'stream', 'data__image_size': 16}, (16, None, 'bilinear')),
    ({}, (None, None, 'bilinear')),
  ):
    config = initial.inherit(config_of(init_from=str(source), **fields), tmp_path / 'run')
    assert tuple(config.data[field] for field in size) == expected


@pytest.mark.thorough
def test_the_printed_command_can_be_copied_whole(tmp_path, capsys):
  rng = np.random.default_rng(0)
  arrays = {
    e.name: rng.uniform(0.5, 1, e.shape).astype(np.float32) * 0.1
    for e in mapping.entries('akamaster:resnet20', 10)
  }
  weights, photos = tmp_path / 'weights.safetensors', tmp_path / 'my photos'
  storage.write_safetensors(weights, arrays, {})
  for split in ('train', 'val'):
    for name in ('cat', 'dog'):
      (photos / split / name).mkdir(parents=True)
      for i in range(8):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(photos / split / name / f'{i}.png')
  to = tmp_path / 'with space'
  convert.main([f'--from={weights}', f'--to={to}'])
  (line,) = re.findall(r'fine-tune: python -m senet_jax\.main (.+)', capsys.readouterr().out)
  arguments = [a.replace('PHOTOS', str(photos)) for a in shlex.split(line)]
  shorter = ['--config.steps=1', '--config.batch_size=16', '--config.log.tensorboard=False']
  assert main_command.main([*arguments, *shorter]) == 0
  kept = saved.read_config(tmp_path / 'with space_photos')
  assert (kept.model.name, kept.model.shortcut) == ('resnet20_cifar', 'pad_both')
  assert kept.data.mean == (123.675, 116.28, 103.53)
