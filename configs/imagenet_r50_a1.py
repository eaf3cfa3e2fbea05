"""ResNet-50 on ImageNet, with procedure A1 of "ResNet strikes back".

  python -m senet_jax.main --config=configs/imagenet_r50_a1.py --workdir=runs/r50_a1

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.data.image_size=64 --config.data.resize=64

Hardware: made for 8 GPUs or a TPU slice; 375,342 steps of 2048 images of 224x224 pixels.
Expected wall time: not known before it is run on such hardware.
Published: test error 19.62 % (timm's `resnet50.a1_in1k`, top-1 80.38 %, single 224 crop).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.strikes_back('resnet50', 'a1')
