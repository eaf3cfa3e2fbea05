r"""Table 3: mobile networks on ImageNet.

  python -m senet_jax.tools.study --study=configs/studies/table_3.py:small \
      --workdir=runs/study_table_3

Without `:small`, both of them. With it, ResNet-20 on a tenth of CIFAR-10 at
16x16 pixels in place of one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.pairs(('imagenet_mobilenet', 'imagenet_shufflenet'))
SMALL = {'imagenet_mobilenet': None, 'imagenet_se_mobilenet': ()}


def get_study(size=''):
  return study.study(size, 'Table 3: mobile networks on ImageNet', ROWS, study.twins(ROWS), SMALL)
