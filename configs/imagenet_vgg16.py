"""VGG-16 with BN on ImageNet, with the recipe of the paper.

  python -m senet_jax.main --config=configs/imagenet_vgg16.py --workdir=runs/vgg16

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

The recipe of the paper is that of its other networks. If it diverges where fully connected layers
have no BN: --config.schedule.warmup=5.

Hardware: made for 8 GPUs or a TPU slice; 125,114 steps of 1024 images.
Expected wall time: not known before it is run on such hardware.
Published: test error 27.02 % (Table 2, single 224 crop; top-5 8.81 %).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.imagenet('vgg16_bn')
