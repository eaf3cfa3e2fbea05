"""SE-ResNet-46 of the student report on CIFAR-10: SE in single stages.

  python -m senet_jax.main --config=configs/student_stages.py:stage2 --workdir=runs/stage2

The figures are of the test images, with the weights that the held-out images chose:

  python -m senet_jax.tools.evaluate --workdir=runs/stage2 --split=test

Its notebook has 18.65 % for `stage2`, less than the 19.30 % of `original`. `all` and `original` are
the same runs as `se_resnet46` and `resnet46` of student_cifar10.py.

Hardware: made for one GPU, where it was not run; at most 75,000 steps of 128 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (student report, figures 33 and 39):
  stage2    19.65 % (top-3 4.22 %, top-5 1.36 %)
  stage3    19.74 % (top-3 4.47 %, top-5 1.17 %)
  stage4    16.70 % (top-3 3.40 %, top-5 1.10 %)
  all       17.39 % (top-3 3.34 %, top-5 1.11 %)
  original  19.30 % (top-3 4.14 %, top-5 1.25 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'stage2': {'stages': (2,)},
  'stage3': {'stages': (3,)},
  'stage4': {'stages': (4,)},
  'all': {},
  'original': None,
}


def get_config(variant=''):
  return defaults.student_ablation(defaults.variant(variant, VARIANTS))
