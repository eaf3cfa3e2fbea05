"""WRN-16-8 on CIFAR-100.

  python -m senet_jax.main --config=configs/cifar100_wrn16_8.py --workdir=runs/wrn16_8

Hardware: made for one GPU, where it was not run; 78,125 steps of 128 images.
Expected wall time: days on CPU, not measured.
Published: test error 20.43 % (Table 5; Zagoruyko and Komodakis 2016, median of 5).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.wide_resnet('wrn16_8', 'cifar100')
