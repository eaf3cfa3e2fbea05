r"""Table 4: CIFAR-10.

  python -m senet_jax.tools.study --study=configs/studies/table_4.py:small \
      --workdir=runs/study_table_4

Without `:small`, all of them. With it, ResNet-20 on a tenth of CIFAR-10 at
16x16 pixels in place of one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.pairs(('cifar10_r110', 'cifar10_r164', 'cifar10_wrn16_8', 'cifar10_shake_shake26'))
SMALL = {'cifar10_r110': None, 'cifar10_se_r110': ()}


def get_study(size=''):
  return study.study(size, 'Table 4: CIFAR-10', ROWS, study.twins(ROWS), SMALL)
