r"""Table 5: CIFAR-100.

  python -m senet_jax.tools.study --study=configs/studies/table_5.py:small \
      --workdir=runs/study_table_5

Without `:small`, all of them. With it, ResNet-20 on a tenth of CIFAR-10 at
16x16 pixels in place of one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.pairs(('cifar100_r110', 'cifar100_r164', 'cifar100_wrn16_8', 'cifar100_shake_even29'))
SMALL = {'cifar100_r110': None, 'cifar100_se_r110': ()}


def get_study(size=''):
  return study.study(size, 'Table 5: CIFAR-100', ROWS, study.twins(ROWS), SMALL)
