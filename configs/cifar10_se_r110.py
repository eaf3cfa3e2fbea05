"""SE-ResNet-110 on CIFAR-10.

  python -m senet_jax.main --config=configs/cifar10_se_r110.py --workdir=runs/cifar10_se_r110

Hardware: any; 64,000 steps of 128 images, made for one GPU.
Published: test error 5.21 % (Table 4).
Measured: not run at full length.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('se_resnet110_cifar', 'cifar10')
