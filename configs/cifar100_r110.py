"""ResNet-110 on CIFAR-100.

  python -m senet_jax.main --config=configs/cifar100_r110.py --workdir=runs/cifar100_r110

Hardware: made for one GPU, where it was not run; 64,000 steps of 128 images.
Expected wall time: about 28 h on two CPU cores, from results/benchmarks/cifar_cpu_rates.json.
Published: test error 26.88 % (Table 5; of unknown origin, not in He et al. 2016).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet110_cifar', 'cifar100')
