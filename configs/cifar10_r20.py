"""ResNet-20 on CIFAR-10.

  python -m senet_jax.main --config=configs/cifar10_r20.py --workdir=runs/cifar10_r20

Hardware: any; 64,000 steps of 128 images, made for one GPU.
Published: not in the paper.
Measured: not run at full length.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet20_cifar', 'cifar10')
