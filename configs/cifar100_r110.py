"""ResNet-110 on CIFAR-100.

  python -m senet_jax.main --config=configs/cifar100_r110.py --workdir=runs/cifar100_r110

Hardware: any; 64,000 steps of 128 images, made for one GPU.
Published: test error 26.88 % (Table 5; of unknown origin, not in He et al. 2016).
Measured: not run at full length.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet110_cifar', 'cifar100')
