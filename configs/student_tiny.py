"""The networks of the student report on Tiny ImageNet; `da` is with data augmentation.

  python -m senet_jax.main --config=configs/student_tiny.py:resnet18 --workdir=runs/resnet18

The data, from DIR with tiny-imagenet-200.zip, or with --source=download:

  python -m senet_jax.tools.prepare_data --dataset=tiny_imagenet --source=DIR

The figures are of the official validation images without the grey ones, which come last, with the
weights that the held-out images chose:

  python -m senet_jax.tools.evaluate --workdir=runs/resnet18 --split='validation[:9832]'

Its notebooks have a top-3 error of 44.26 % for `resnet34_da`.

Hardware: made for one GPU, where it was not run; at most 43,678 steps of 128 images.
Expected wall time: under 2.5 h on the Tesla T4 of the report; here not known.
Published: test error by variant (student report, figure 28):
  resnet18        71.69 % (top-3 56.24 %, top-5 48.20 %)
  se_resnet18     67.91 % (top-3 51.97 %, top-5 44.09 %)
  resnet18_da     57.93 % (top-3 39.27 %, top-5 31.35 %)
  se_resnet18_da  57.19 % (top-3 39.88 %, top-5 32.52 %)
  resnet34        71.45 % (top-3 54.45 %, top-5 44.90 %)
  se_resnet34     68.88 % (top-3 51.99 %, top-5 44.04 %)
  resnet34_da     61.66 % (top-3 44.59 %, top-5 36.16 %)
  se_resnet34_da  58.62 % (top-3 40.94 %, top-5 32.72 %)
  resnet50        76.19 % (top-3 60.03 %, top-5 51.09 %)
  se_resnet50     71.81 % (top-3 55.51 %, top-5 47.71 %)
  resnet50_da     70.20 % (top-3 52.81 %, top-5 44.03 %)
  se_resnet50_da  64.08 % (top-3 46.02 %, top-5 38.53 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  f'{se}resnet{depth}{da}': f'{se}resnet{depth}_tiny'
  for depth in (18, 34, 50)
  for da in ('', '_da')
  for se in ('', 'se_')
}


def get_config(variant=''):
  model = defaults.variant(variant, VARIANTS)
  return defaults.student_tiny(model, augmented=variant.endswith('_da'))
