"""A run with all parts of the modern recipes: stopped and resumed, bit for bit; on a stream too."""

import numpy as np
import pytest
from PIL import Image

from senet_jax.errors import UserError
from senet_jax.training.loop import train
from senet_jax.workdir.network import check_model
from tests.helpers.photos import small_photo
from tests.helpers.small_run import SMALL, configured, kill_at, summary

EVERYTHING = {
  'loss': 'bce', 'label_smoothing': 0.1, 'model.depths': (2,), 'model.drop_path': 0.3,
  'model.remat': (2,), 'data.mixup': 0.2, 'data.cutmix': 1.0, 'data.erasing': 0.3,
  'data.name': 'cifar10', 'data.randaugment': 'rand-m7-mstd0.5-inc1',
  'data.repeats': 3, 'data.train_size': (12, 16), 'data.image_size': 16, 'optimizer.name': 'lamb',
  'optimizer.clip_norm': 1.0, 'optimizer.ema_decay': 0.99, 'schedule.name': 'cosine',
  'schedule.unit': 'steps', 'schedule.warmup': 3.0, 'bn.scope': 'local',
}  # fmt: skip


def everything(**fields):
  return configured({**SMALL, **EVERYTHING}, **fields)


@pytest.mark.thorough
def test_two_halves_are_the_whole(tmp_path, monkeypatch):
  assert train(everything(steps=20), tmp_path / 'whole')
  with monkeypatch.context() as patch:
    kill_at(patch, 9)
    assert train(everything(steps=20), tmp_path / 'parts') is False
  assert train(everything(steps=20), tmp_path / 'parts')
  whole, parts = summary(tmp_path / 'whole'), summary(tmp_path / 'parts')
  assert whole['params_sha256'] == parts['params_sha256'] and whole['final'] == parts['final']


@pytest.mark.thorough
def test_a_stream_with_randaugment(tmp_path):
  for split, count in (('train', 24), ('val', 8)):
    for i in range(count):
      folder = tmp_path / 'photos' / split / 'ab'[i % 2]
      folder.mkdir(parents=True, exist_ok=True)
      Image.fromarray(small_photo(i, 40, 48)).save(folder / f'{i}.png')
  fields = {
    'data.name': 'image_folder', 'data.dir': str(tmp_path / 'photos'), 'data.fake': False,
    'data.feed': 'stream', 'data.train_split': 'train', 'data.eval_split': 'val', 'data.pad': 0,
    'data.crop_area': (0.3, 1.0), 'data.crop_interpolation': 'bicubic',
    'data.train_size_boundaries': (3.0,), 'batch_size': 16,
  }  # fmt: skip

  def config(steps):
    return everything(**fields, steps=steps, schedule__name='constant')

  assert train(config(4), tmp_path / 'whole')
  assert train(config(2), tmp_path / 'parts') and train(config(4), tmp_path / 'parts')
  whole, parts = summary(tmp_path / 'whole'), summary(tmp_path / 'parts')
  assert whole['params_sha256'] == parts['params_sha256']
  assert np.isfinite(whole['final']['loss'])


def test_a_size_that_the_network_cannot_take():
  config = everything()
  config.update_from_flattened_dict({'model.depths': None, 'model.width': None})
  config.model.update({'name': 'se_vgg16_bn', 'drop_path': None, 'remat': None})
  config.model.se.ratio, config.data.image_size, config.data.train_size = 16, 64, (64, 16)
  with pytest.raises(UserError, match='images of 16x16 pixels leave nothing behind') as caught:
    check_model(config)
  assert '\n' not in str(caught.value)
