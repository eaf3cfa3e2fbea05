r"""Table 6: Places365, the smaller set.

  python -m senet_jax.tools.study --study=configs/studies/table_6.py:small \
      --workdir=runs/study_table_6

Without `:small`, both of them. With it, ResNet-20 on a tenth of CIFAR-10 at
16x16 pixels in place of one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.pairs(('places365_r152',))
SMALL = {'places365_r152': None, 'places365_se_r152': ()}


def get_study(size=''):
  return study.study(size, 'Table 6: Places365, the smaller set', ROWS, study.twins(ROWS), SMALL)
