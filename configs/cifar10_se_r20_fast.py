"""SE-ResNet-20 on CIFAR-10 in 15 epochs.

  python -m senet_jax.main --config=configs/cifar10_se_r20_fast.py --workdir=runs/se_r20_fast

Hardware: two CPU cores, or one GPU, where it was not run; 5,860 steps of 128 images.
Expected wall time: about half an hour on two CPU cores, at the rate of cifar10_se_r20.
Published: not in the paper. Other networks of the speed records have 6 % in 2.6 s on an A100.
Measured: 11.44 % with seed 0 (results/cifar10_se_r20_fast.json), in the study does_se_pay:small.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.fast_cifar('se_resnet20_cifar')
