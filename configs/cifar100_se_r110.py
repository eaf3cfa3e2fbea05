"""SE-ResNet-110 on CIFAR-100.

  python -m senet_jax.main --config=configs/cifar100_se_r110.py --workdir=runs/cifar100_se_r110

Hardware: made for one GPU, where it was not run; 64,000 steps of 128 images.
Expected wall time: about 29 h on two CPU cores, from results/benchmarks/cifar_cpu_rates.json.
Published: test error 23.85 % (Table 5).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.cifar('se_resnet110_cifar', 'cifar100')
