"""ResNet-164 on CIFAR-10.

  python -m senet_jax.main --config=configs/cifar10_r164.py --workdir=runs/cifar10_r164

Hardware: made for one GPU, where it was not run; 64,000 steps of 128 images.
Expected wall time: days on CPU, not measured.
Published: test error 5.46 % (Table 4; He et al. 2016, median of 5).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet164_cifar', 'cifar10')
