"""Shake-Even 29 2x4x64d on CIFAR-100, with cutout.

  python -m senet_jax.main --config=configs/cifar100_shake_even29.py --workdir=runs/shake29

Hardware: made for one GPU, where it was not run; 2,812,500 steps of 32 images.
Expected wall time: days on CPU, not measured.
Published: test error 15.85 % (Table 5; without cutout, Gastaldi 2017: with it, DeVries and
Taylor 2017 have 15.20 %).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.shake('shake_even29_2x4x64d', 'cifar100')
