"""SE-Shake-Even 29 2x4x64d on CIFAR-100, with cutout.

  python -m senet_jax.main --config=configs/cifar100_se_shake_even29.py --workdir=runs/se_shake29

SE is on each branch, in front of the random coefficients; the paper does not say where. On their
mix: --config.model.se_at=mix.

Hardware: made for one GPU, where it was not run; 2,812,500 steps of 32 images.
Expected wall time: days on CPU, not measured.
Published: test error 15.41 % (Table 5).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.shake('se_shake_even29_2x4x64d', 'cifar100')
