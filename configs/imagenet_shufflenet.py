"""ShuffleNet 1x (g=3) on ImageNet, with the recipe of the paper for mobile nets.

  python -m senet_jax.main --config=configs/imagenet_shufflenet.py --workdir=runs/shufflenet

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

Hardware: made for 8 GPUs or a TPU slice; 2,001,824 steps of 256 images.
Expected wall time: not known before it is run on such hardware.
Published: test error 32.6 % (Table 3, single 224 crop; top-5 12.5 %).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.mobile('shufflenet_v1_g3')
