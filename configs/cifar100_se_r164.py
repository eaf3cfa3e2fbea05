"""SE-ResNet-164 on CIFAR-100.

  python -m senet_jax.main --config=configs/cifar100_se_r164.py --workdir=runs/cifar100_se_r164

Hardware: made for one GPU, where it was not run; 64,000 steps of 128 images.
Expected wall time: days on CPU, not measured.
Published: test error 21.31 % (Table 5).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('se_resnet164_cifar', 'cifar100')
