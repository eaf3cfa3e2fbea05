"""SE-ResNet-50 on ImageNet, with FFCV's recipe: images that grow from 160 to 192 pixels.

  python -m senet_jax.main --config=configs/imagenet_se_r50_ffcv.py:e16 --workdir=runs/se_ffcv

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=4
--config.data.train_size='(32, 64)' --config.data.train_size_boundaries='()'
--config.data.image_size=64 --config.data.resize=64

Hardware: made for 8 GPUs or a TPU slice; e16 has 5,005, e40 12,512 and e88 27,526 steps of 4096.
Expected wall time: not known before it is run on such hardware.
Published: none with SE; without it FFCV has 26.2 % (e16), 22.8 % (e40) and 21.6 % (e88).
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {'e16': 16, 'e40': 40, 'e88': 88}


def get_config(variant=''):
  return defaults.ffcv('se_resnet50', defaults.variant(variant, VARIANTS))
