"""SE-ResNeXt-50 (32x4d) on ImageNet, with the recipe of the paper.

  python -m senet_jax.main --config=configs/imagenet_se_resnext50.py --workdir=runs/se_resnext50

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

Hardware: made for 8 GPUs or a TPU slice; 125,114 steps of 1024 images.
Expected wall time: not known before it is run on such hardware.
Published: test error 21.10 % (Table 2, single 224 crop; top-5 5.49 %).
Measured: not run at full length.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.imagenet('se_resnext50_32x4d')
