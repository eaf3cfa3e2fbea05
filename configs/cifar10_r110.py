"""ResNet-110 on CIFAR-10.

  python -m senet_jax.main --config=configs/cifar10_r110.py --workdir=runs/cifar10_r110

Hardware: any; 64,000 steps of 128 images, made for one GPU.
Published: test error 6.37 % (Table 4; He et al. 2016, median of 5).
Measured: not run at full length.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet110_cifar', 'cifar10')
