"""SE-ResNet-46 of the student report on CIFAR-10: SE elsewhere in a residual unit.

  python -m senet_jax.main --config=configs/student_integration.py:se --workdir=runs/se

The figures are of the test images, with the weights that the held-out images chose:

  python -m senet_jax.tools.evaluate --workdir=runs/se --split=test

The figures are as the report has them; its notebook has those of `pre` and `post` the other way
round. `se` and `original` are the same runs as `se_resnet46` and `resnet46` of student_cifar10.py.

Hardware: made for one GPU, where it was not run; at most 75,000 steps of 128 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (student report, figures 32 and 38):
  se        17.39 % (top-3 3.34 %, top-5 1.11 %)
  pre       20.02 % (top-3 5.45 %, top-5 1.96 %)
  post      21.08 % (top-3 4.60 %, top-5 1.11 %)
  identity  43.78 % (top-3 15.48 %, top-5 6.03 %)
  original  19.30 % (top-3 4.14 %, top-5 1.25 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'se': {},
  'pre': {'position': 'pre'},
  'post': {'position': 'post'},
  'identity': {'position': 'identity'},
  'original': None,
}


def get_config(variant=''):
  return defaults.student_ablation(defaults.variant(variant, VARIANTS))
