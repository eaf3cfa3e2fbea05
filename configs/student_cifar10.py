"""The networks of the student report on CIFAR-10.

  python -m senet_jax.main --config=configs/student_cifar10.py:resnet46 --workdir=runs/resnet46

The figures are of the test images, with the weights that the held-out images chose:

  python -m senet_jax.tools.evaluate --workdir=runs/resnet46 --split=test

and --checkpoint=latest for Inception-v3, of which the report could save nothing but the weights of
the end. Of SE-ResNet-46 its notebooks, and one of its tables, have a top-5 error of 1.01 %. The
notebook of Inception-v3 shows other runs, of 95.93 % accuracy after 9 epochs and, with SE, 44.05 %
after a part of one. It trains with Adam, as here; the text says SGD.

Hardware: made for one GPU, where it was not run; at most 75,000 steps of 128 images, for
Inception-v3 25,000 steps of 32.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (student report, figure 25):
  resnet46         19.30 % (top-3 4.14 %, top-5 1.25 %)
  se_resnet46      17.39 % (top-3 3.34 %, top-5 1.11 %)
  resnext29        17.13 % (top-3 3.48 %, top-5 0.91 %)
  se_resnext29     16.91 % (top-3 3.40 %, top-5 0.86 %)
  inception_v3     16.25 % (top-3 3.54 %, top-5 0.80 %)
  se_inception_v3  22.75 % (top-3 5.29 %, top-5 1.59 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'resnet46': 'resnet46',
  'se_resnet46': 'se_resnet46',
  'resnext29': 'resnext29_8x64d',
  'se_resnext29': 'se_resnext29_8x64d',
  'inception_v3': 'inception_v3_cifar',
  'se_inception_v3': 'se_inception_v3_cifar',
}


def get_config(variant=''):
  model = defaults.variant(variant, VARIANTS)
  if 'inception' in model:
    return defaults.student_inception(model)
  return defaults.student_cifar(model, 'cifar10')
