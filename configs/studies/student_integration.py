r"""Student report, figure 32: place of SE in a unit.

  python -m senet_jax.tools.study --study=configs/studies/student_integration.py:small \
      --workdir=runs/study_student_integration

Without `:small`, the runs of the report, ResNet-46 on CIFAR-10. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants('student_integration', ('se', 'pre', 'post', 'identity', 'original'))
SMALL = {
  'se': (),
  'pre': ('position=pre',),
  'post': ('position=post',),
  'identity': ('position=identity',),
  'original': None,
}


def get_study(size=''):
  return study.study(
    size,
    'Student report, figure 32: place of SE in a unit',
    ROWS,
    'original',
    SMALL,
    study.HELD_OUT,
  )
