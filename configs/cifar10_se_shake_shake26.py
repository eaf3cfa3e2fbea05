"""SE-Shake-Shake 26 2x96d on CIFAR-10, with cutout.

  python -m senet_jax.main --config=configs/cifar10_se_shake_shake26.py --workdir=runs/se_shake26

SE is on each branch, in front of the random coefficients; the paper does not say where. On their
mix: --config.model.se_at=mix.

Hardware: made for one GPU, where it was not run; 703,125 steps of 128 images.
Expected wall time: days on CPU, not measured.
Published: test error 2.12 % (Table 4).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.shake('se_shake_shake26_2x96d', 'cifar10')
