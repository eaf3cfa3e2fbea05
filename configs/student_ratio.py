"""SE-ResNet-46 of the student report on CIFAR-10: several reduction ratios.

  python -m senet_jax.main --config=configs/student_ratio.py:r1 --workdir=runs/r1

The figures are of the test images, with the weights that the held-out images chose:

  python -m senet_jax.tools.evaluate --workdir=runs/r1 --split=test

`r16` and `original` are the same runs as `se_resnet46` and `resnet46` of student_cifar10.py. Other
figures of the report have a top-5 error of 1.11 % for `r16`.

Hardware: made for one GPU, where it was not run; at most 75,000 steps of 128 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (student report, figures 31 and 37):
  r1        17.52 % (top-3 3.86 %, top-5 0.88 %)
  r2        17.33 % (top-3 3.54 %, top-5 0.90 %)
  r4        18.43 % (top-3 3.90 %, top-5 1.25 %)
  r8        17.68 % (top-3 3.84 %, top-5 1.04 %)
  r16       17.39 % (top-3 3.34 %, top-5 1.01 %)
  r32       17.94 % (top-3 3.67 %, top-5 1.05 %)
  original  19.30 % (top-3 4.14 %, top-5 1.25 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'r1': {'ratio': 1},
  'r2': {'ratio': 2},
  'r4': {'ratio': 4},
  'r8': {'ratio': 8},
  'r16': {},
  'r32': {'ratio': 32},
  'original': None,
}


def get_config(variant=''):
  return defaults.student_ablation(defaults.variant(variant, VARIANTS))
