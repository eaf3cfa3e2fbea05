r"""Student report, figure 31: reduction ratio.

  python -m senet_jax.tools.study --study=configs/studies/student_ratio.py:small \
      --workdir=runs/study_student_ratio

Without `:small`, the runs of the report, ResNet-46 on CIFAR-10. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants('student_ratio', ('r1', 'r2', 'r4', 'r8', 'r16', 'r32', 'original'))
SMALL = {
  'r1': ('ratio=1',),
  'r2': ('ratio=2',),
  'r4': ('ratio=4',),
  'r8': ('ratio=8',),
  'r16': ('ratio=16',),
  'original': None,
}


def get_study(size=''):
  return study.study(
    size, 'Student report, figure 31: reduction ratio', ROWS, 'original', SMALL, study.HELD_OUT
  )
