"""SE-ResNet-50 on ImageNet, with procedure A3 of "ResNet strikes back".

  python -m senet_jax.main --config=configs/imagenet_se_r50_a3.py --workdir=runs/se_r50_a3

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.data.train_size=64 --config.data.image_size=64 --config.data.resize=64

Hardware: made for 8 GPUs or a TPU slice; 62,557 steps of 2048 images of 160x160 pixels.
Expected wall time: not known before it is run on such hardware.
Published: test error 22.98 % (timm's `seresnet50.a3_in1k`, top-1 77.02 %, single 224 crop).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.strikes_back('se_resnet50', 'a3')
