"""Recipes of today against the tables of their publications, field by field."""

import ast
import json
import math
import re

import numpy as np
import pytest

from senet_jax import config as config_lib
from senet_jax.config import reading
from senet_jax.config.length import total_steps
from senet_jax.training import setup
from senet_jax.training.loop import train
from senet_jax.training.optimizer import make_schedule
from senet_jax.workdir.network import build_model
from tests.helpers.paths import ROOT

IMAGES = 1_281_167
# "ResNet strikes back", its table of ingredients.
STRIKES_BACK = {
  'batch_size': 2048, 'loss': 'bce', 'bce_threshold': None, 'optimizer.name': 'lamb',
  'optimizer.decay_mask': 'kernels', 'schedule.name': 'cosine', 'schedule.warmup': 5.0,
  'schedule.warmup_start': 1e-4, 'data.crop_area': (0.08, 1.0), 'data.crop_interpolation':
  'bicubic', 'data.flip': True, 'data.cutmix': 1.0, 'data.cutmix_share': 0.5, 'data.mix_share': 1.0,
  'data.mix_each': False, 'data.image_size': 224, 'data.resize': 236, 'data.interpolation':
  'bicubic', 'data.erasing': 0.0,
}  # fmt: skip
COLUMNS = (
  'epochs',
  'data.train_size',
  'optimizer.learning_rate',
  'optimizer.weight_decay',
  'label_smoothing',
  'data.mixup',
  'data.randaugment',
  'data.repeats',
  'model.drop_path',
)
PROCEDURES = {
  'a1': (600.0, None, 5e-3, 0.01, 0.1, 0.2, 'rand-m7-mstd0.5-inc1', 3, 0.05),
  'a2': (300.0, None, 5e-3, 0.02, 0.0, 0.1, 'rand-m7-mstd0.5-inc1', 3, 0.05),
  'a3': (100.0, (160,), 8e-3, 0.02, 0.0, 0.1, 'rand-m6-mstd0.5-inc1', 1, None),
}  # fmt: skip
# Not in the table: the network and the clipping of the code that the weights are from.
OF_CODE = {
  'model.stride_in': '3x3', 'model.pool_align': 'torch', 'model.zero_init_last_bn': True,
  'optimizer.clip_norm': 1.0, 'data.mean': (123.675, 116.28, 103.53),
  'data.std': (58.395, 57.12, 57.375),
}  # fmt: skip
# Top-1 at 224 px, of timm's results and model cards.
TOP_1 = {'se_r50': (80.01, 80.08, 77.02), 'r50': (80.38, 79.85, 78.06)}
NVIDIA = {
  'batch_size': 1024, 'optimizer.name': 'sgd', 'optimizer.momentum': 0.875,
  'optimizer.learning_rate': 0.256, 'optimizer.base_batch': 256, 'schedule.name': 'cosine',
  'schedule.warmup': 8.0, 'optimizer.weight_decay': 1 / 16384, 'optimizer.decay_mask': 'kernels',
  'label_smoothing': 0.1, 'data.crop_area': (0.08, 1.0), 'model.stride_in': '3x3',
  'model.pool_align': 'torch', 'data.mean': (123.675, 116.28, 103.53),
  'data.std': (58.395, 57.12, 57.375),
}  # fmt: skip

# What the configurations of libffcv/ffcv-imagenet for ResNet-50 share; 512 images on each GPU.
FFCV = {
  'batch_size': 4096, 'optimizer.name': 'sgd', 'optimizer.momentum': 0.9,
  'optimizer.learning_rate': 1.7, 'optimizer.weight_decay': 1e-4, 'optimizer.decay_mask': 'kernels',
  'schedule.name': 'linear', 'schedule.warmup': 2.0, 'schedule.warmup_start': 1e-4,
  'label_smoothing': 0.1, 'data.train_size': (160, 192), 'data.image_size': 256,
  'data.resize': round(256 / (224 / 256)), 'data.crop_area': (0.08, 1.0),
  'data.crop_aspect': (3 / 4, 4 / 3), 'model.stride_in': '3x3', 'model.pool_align': 'torch',
  'data.mean': (123.675, 116.28, 103.53), 'data.std': (58.395, 57.12, 57.375),
}  # fmt: skip


def load(name: str, *overrides: str):
  return reading.load(f'{ROOT}/configs/{name}', [f'--config.{o}' for o in overrides])


def fields(config) -> dict:
  return dict(config_lib.flatten(config))


def header(name: str) -> str:
  return ast.get_docstring(ast.parse((ROOT / 'configs' / name).read_text()))


@pytest.mark.parametrize('procedure', PROCEDURES)
@pytest.mark.parametrize('network', TOP_1)
def test_resnet_strikes_back(network, procedure):
  config = load(f'imagenet_{network}_{procedure}.py')
  config_lib.check(config)
  expected = {**STRIKES_BACK, **OF_CODE, **dict(zip(COLUMNS, PROCEDURES[procedure], strict=True))}
  given = fields(config)
  assert {name: given[name] for name in expected} == expected
  changed = config_lib.changed(config).keys() - {*expected, 'model.name'}
  assert changed == {'data.name', 'data.feed', 'data.eval_split', 'data.pad',
                     'schedule.final', 'eval.every_epochs', 'log.every_steps'}  # fmt: skip
  assert config.model.name == {'r50': 'resnet50', 'se_r50': 'se_resnet50'}[network]
  assert build_model(config).drop_path == (expected['model.drop_path'] or 0.0)
  # The learning rate: up from 1e-4 of the peak for five epochs, down to 1e-6.
  per_epoch, total = IMAGES / 2048, total_steps(config, IMAGES)
  rate, peak = make_schedule(config, total, per_epoch), config.optimizer.learning_rate
  assert float(rate(0)) == pytest.approx(1e-4 * peak, rel=1e-3)
  assert float(rate(round(5 * per_epoch))) == pytest.approx(peak, rel=1e-4)
  assert float(rate(total)) == pytest.approx(1e-6, rel=1e-3)
  text = header(f'imagenet_{network}_{procedure}.py')
  top = TOP_1[network][list(PROCEDURES).index(procedure)]
  assert f'{total:,} steps of 2048' in text and f'top-1 {top:.2f} %' in text
  assert f'Published: test error {100 - top:.2f} %' in text


@pytest.mark.parametrize(('epochs', 'mixup', 'top'), [(90, 0.0, 80.03), (250, 0.2, 80.9)])
def test_nvidia(epochs, mixup, top):
  config = load(f'imagenet_se_resnext101_nvidia.py:e{epochs}')
  expected = {**NVIDIA, 'epochs': float(epochs), 'data.mixup': mixup}
  given = fields(config)
  assert {name: given[name] for name in expected} == expected
  changed = config_lib.changed(config).keys() - {*expected, 'model.name'}
  assert changed == {'data.name', 'data.feed', 'data.eval_split', 'data.pad', 'log.every_steps'}
  assert config.model.name == 'se_resnext101_32x4d' and setup.peak_rate(config) == 1.024
  # From nothing to 1.024 in eight epochs, and to nothing at the end.
  per_epoch, total = IMAGES / 1024, total_steps(config, IMAGES)
  rate = make_schedule(config, total, per_epoch)
  at = {epoch: float(rate(round(epoch * per_epoch))) for epoch in (0, 4, 8, epochs)}
  peak = 1.024
  assert at == pytest.approx({0: 0.0, 4: peak / 2, 8: peak, epochs: 0.0}, abs=2e-3)
  text = ' '.join(header('imagenet_se_resnext101_nvidia.py').split())
  assert f'{total_steps(config, IMAGES):,}' in text and f'top-1 {top} ' in text


@pytest.mark.parametrize(
  ('epochs', 'grows_at', 'top'), [(16, 12.0, 73.8), (40, 32.0, 77.2), (88, 71.0, 78.4)]
)
@pytest.mark.parametrize('network', ['r50', 'se_r50'])
def test_ffcv(network, epochs, grows_at, top):
  """Of its configurations `rn50_16_epochs.yaml` and the like, and its table of results."""
  config = load(f'imagenet_{network}_ffcv.py:e{epochs}')
  config_lib.check(config)
  expected = {**FFCV, 'epochs': float(epochs), 'data.train_size_boundaries': (grows_at,)}
  given = fields(config)
  assert {name: given[name] for name in expected} == expected
  changed = config_lib.changed(config).keys() - {*expected, 'model.name'}
  assert changed == {'data.name', 'data.feed', 'data.eval_split', 'data.pad',
                     'log.every_steps'}  # fmt: skip
  # From a ten-thousandth of the peak up in two epochs, and in a line to nothing.
  per_epoch, total = IMAGES / 4096, total_steps(config, IMAGES)
  rate = make_schedule(config, total, per_epoch)
  at = {epoch: float(rate(round(epoch * per_epoch))) for epoch in (0, 1, 2, 9, epochs)}
  lines = {epoch: np.interp(epoch, [0, 2, epochs], [1.7e-4, 1.7, 0]) for epoch in at}
  assert at == pytest.approx(lines, abs=2e-3)
  text = ' '.join(header(f'imagenet_{network}_ffcv.py').split())
  assert f'{total:,}' in text and f'{100 - top:.1f} %' in text


def test_fast_cifar():
  configs = [fields(load(f'cifar10_{se}r20_fast.py')) for se in ('', 'se_')]
  differing = {name for name in configs[0] if configs[0][name] != configs[1][name]}
  assert differing == {'model.name'}
  config = load('cifar10_se_r20_fast.py')
  total = total_steps(config, 50_000)
  rate = make_schedule(config, total, 50_000 / 128)
  assert f'{total:,} steps of 128' in header('cifar10_se_r20_fast.py')
  assert [float(rate(s)) for s in (0, total // 5, total)] == pytest.approx([0, 0.2, 0], abs=1e-6)


@pytest.mark.thorough
def test_everything_takes_a_step(tmp_path):
  config = load(
    'imagenet_se_r50_a1.py', 'data.fake=True', 'batch_size=16', 'steps=1', 'data.image_size=40',
    'data.train_size=32', 'data.resize=40', 'model.depths=(1,1)', 'model.width=8',
    'model.se.ratio=8', 'data.eval_split=validation[:16]', 'log.tensorboard=False',
  )  # fmt: skip
  assert train(config, tmp_path)
  summary = json.loads((tmp_path / 'summary.json').read_text())
  assert math.isfinite(summary['final']['loss'])
  assert re.fullmatch(r'[0-9a-f]{64}', summary['params_sha256'])
