"""Shake-Shake 26 2x96d on CIFAR-10, with cutout.

  python -m senet_jax.main --config=configs/cifar10_shake_shake26.py --workdir=runs/shake26

Hardware: made for one GPU, where it was not run; 703,125 steps of 128 images.
Expected wall time: days on CPU, not measured.
Published: test error 2.56 % (Table 4; DeVries and Taylor 2017, mean of 3).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.shake('shake_shake26_2x96d', 'cifar10')
