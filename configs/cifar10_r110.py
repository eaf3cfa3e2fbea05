"""ResNet-110 on CIFAR-10.

  python -m senet_jax.main --config=configs/cifar10_r110.py --workdir=runs/cifar10_r110

Hardware: made for one GPU, where it was not run; 64,000 steps of 128 images.
Expected wall time: about 28 h on two CPU cores, from results/benchmarks/cifar_cpu_rates.json.
Published: test error 6.37 % (Table 4; He et al. 2016, median of 5).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet110_cifar', 'cifar10')
