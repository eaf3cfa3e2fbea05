r"""Student report, figure 33: stages with SE.

  python -m senet_jax.tools.study --study=configs/studies/student_stages.py:small \
      --workdir=runs/study_student_stages

Without `:small`, the runs of the report, ResNet-46 on CIFAR-10. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants('student_stages', ('stage2', 'stage3', 'stage4', 'all', 'original'))
SMALL = {
  'stage2': ('stages=(2,)',),
  'stage3': ('stages=(3,)',),
  'stage4': ('stages=(4,)',),
  'all': (),
  'original': None,
}


def get_study(size=''):
  return study.study(
    size, 'Student report, figure 33: stages with SE', ROWS, 'original', SMALL, study.HELD_OUT
  )
