"""Every configuration: its header, its network, and two steps of it on made-up data."""

import ast
import pathlib
import re

import jax
import jax.numpy as jnp
import pytest

from senet_jax import config as config_lib, flags
from senet_jax.models import list_models
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
  classes = {'digits': 10, 'cifar10': 10, 'cifar100': 100}[config.data.name]
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
