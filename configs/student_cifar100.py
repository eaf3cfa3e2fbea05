"""The networks of the student report on CIFAR-100.

  python -m senet_jax.main --config=configs/student_cifar100.py:resnet46 --workdir=runs/resnet46

The figures are of the test images, with the weights that the held-out images chose:

  python -m senet_jax.tools.evaluate --workdir=runs/resnet46 --split=test

Its notebooks have 50.01 % (top-3 30.89 %) for ResNet-46 and 45.37 % for ResNeXt-29.

Hardware: made for one GPU, where it was not run; at most 75,000 steps of 128 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (student report, figure 26):
  resnet46      50.00 % (top-3 31.99 %, top-5 23.18 %)
  se_resnet46   45.83 % (top-3 27.97 %, top-5 20.84 %)
  resnext29     45.27 % (top-3 25.97 %, top-5 19.05 %)
  se_resnext29  44.72 % (top-3 26.14 %, top-5 18.84 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'resnet46': 'resnet46',
  'se_resnet46': 'se_resnet46',
  'resnext29': 'resnext29_8x64d',
  'se_resnext29': 'se_resnext29_8x64d',
}


def get_config(variant=''):
  return defaults.student_cifar(defaults.variant(variant, VARIANTS), 'cifar100')
