"""Every configuration: its header, its network, and two steps of it on made-up data."""

import ast
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from senet_jax import config as config_lib, flags
from senet_jax.models import list_models, model_info
from senet_jax.training import setup
from senet_jax.training.loop import train

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = sorted((ROOT / 'configs').glob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_header_and_network(path):
  header = ast.get_docstring(ast.parse(path.read_text()))
  assert f'python -m senet_jax.main --config=configs/{path.name} --workdir=runs/' in header
  for line in ('Hardware', 'Expected wall time', 'Published', 'Measured'):
    assert re.search(f'^{line}: .+', header, re.MULTILINE), line
  config = flags.load(str(path), [])
  config_lib.check(config)
  assert config.model.name in list_models()
  size = setup.input_size(config)
  model = setup.build_model(config)
  images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
  init = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False), images)
  classes = {'cifar100': 100, 'imagenet2012': 1000}.get(config.data.name, 10)
  assert init[0].shape == (2, classes)


def test_every_cifar_network_has_its_configurations():
  expected = {
    f'cifar{classes}_{se}r{depth}'
    for classes in (10, 100)
    for se in ('', 'se_')
    for depth in (20, 110, 164)
  }
  assert expected == {p.stem for p in CONFIGS if p.stem.startswith('cifar')}
  for name in expected:
    config = flags.load(str(ROOT / 'configs' / f'{name}.py'), [])
    dataset, network = name.replace('_r', '_resnet').replace('_se_r', '_se_r').split('_', 1)
    assert config.data.name == dataset and config.model.name == f'{network}_cifar'
    assert setup.total_steps(config, 50_000) == 64_000


def test_every_imagenet_network_has_its_configurations():
  networks = {'r50': 'resnet50', 'r101': 'resnet101', 'r152': 'resnet152'}
  networks |= {f'resnext{depth}': f'resnext{depth}_32x4d' for depth in (50, 101)}
  expected = {f'imagenet_{se}{n}': se + m for se in ('', 'se_') for n, m in networks.items()}
  assert expected.keys() == {p.stem for p in CONFIGS if p.stem.startswith('imagenet_')}
  for name, network in expected.items():
    path = ROOT / 'configs' / f'{name}.py'
    config = flags.load(str(path), [])
    assert config.model.name == network
    assert (config.batch_size, config.optimizer.learning_rate) == (1024, 0.6)
    assert setup.total_steps(config, 1_281_167) == 125_114
    published = model_info(network).published['table_2']
    header = ast.get_docstring(ast.parse(path.read_text()))
    figures = f'{published["top1_error"]:.2f} % (Table 2, single 224 crop; top-5 '
    assert f'{figures}{published["top5_error"]:.2f} %)' in header


def test_the_imagenet_configuration_runs_on_fake_data(tmp_path):
  overrides = ['--config.data.fake=True', '--config.steps=1', '--config.log.tensorboard=False']
  overrides += ['--config.model.width=8', '--config.batch_size=8', '--config.data.image_size=64']
  overrides += ['--config.data.eval_split=validation[:16]']
  config = flags.load(str(ROOT / 'configs' / 'imagenet_se_r50.py'), overrides)
  assert train(config, tmp_path)
  assert json.loads((tmp_path / 'classes.json').read_text())['num_classes'] == 1000


def test_a_configuration_runs_on_fake_data(tmp_path):
  overrides = ['--config.data.fake=True', '--config.steps=2', '--config.log.tensorboard=False']
  overrides += ['--config.model.width=8', '--config.model.se.ratio=8', '--config.batch_size=16']
  config = flags.load(str(ROOT / 'configs' / 'cifar100_se_r20.py'), overrides)
  assert train(config, tmp_path)
  assert (tmp_path / 'summary.json').exists()


@pytest.mark.parametrize('name', ['README.md', 'configs/README.md'])
def test_files_named_in_the_documentation_exist(name):
  page = ROOT / name
  text = page.read_text()
  for link in re.findall(r'\]\(([^)#:]+)\)', text):
    assert (page.parent / link).exists(), link
  for config in re.findall(r'configs/(\w+\.py)', text):
    assert config == 'NAME.py' or (ROOT / 'configs' / config).exists(), config
