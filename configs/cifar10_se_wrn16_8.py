"""SE-WRN-16-8 on CIFAR-10.

  python -m senet_jax.main --config=configs/cifar10_se_wrn16_8.py --workdir=runs/se_wrn16_8

Hardware: made for one GPU, where it was not run; 78,125 steps of 128 images.
Expected wall time: days on CPU, not measured.
Published: test error 3.88 % (Table 4).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.wide_resnet('se_wrn16_8', 'cifar10')
