"""ResNet-164 on CIFAR-100.

  python -m senet_jax.main --config=configs/cifar100_r164.py --workdir=runs/cifar100_r164

Hardware: any; 64,000 steps of 128 images, made for one GPU.
Published: test error 24.33 % (Table 5; He et al. 2016, median of 5).
Measured: not run at full length.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet164_cifar', 'cifar100')
