r"""Table 6: Places365.

  python -m senet_jax.tools.study --study=configs/studies/table_6.py:small \
      --workdir=runs/study_table_6

Without `:small`, both of them, on the set of the paper. With it, ResNet-20 on a tenth of CIFAR-10
at 16x16 pixels in place of one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = {f'places365_{se}r152': f'configs/places365_{se}r152.py:challenge' for se in ('', 'se_')}
SMALL = {'places365_r152': None, 'places365_se_r152': ()}


def get_study(size=''):
  return study.study(size, 'Table 6: Places365', ROWS, study.twins(ROWS), SMALL)
