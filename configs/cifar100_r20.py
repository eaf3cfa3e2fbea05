"""ResNet-20 on CIFAR-100.

  python -m senet_jax.main --config=configs/cifar100_r20.py --workdir=runs/cifar100_r20

Hardware: made for one GPU, where it was not run; 64,000 steps of 128 images.
Expected wall time: about 5 h on two CPU cores, from results/benchmarks/cifar_cpu_rates.json.
Published: not in the paper.
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('resnet20_cifar', 'cifar100')
