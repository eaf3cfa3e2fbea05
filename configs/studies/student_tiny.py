r"""Student report, figure 28: Tiny ImageNet.

  python -m senet_jax.tools.study --study=configs/studies/student_tiny.py:small \
      --workdir=runs/study_student_tiny

Without `:small`, all of them. With it, ResNet-20 on a tenth of CIFAR-10 at 16x16 pixels in place of
one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

NAMES = [f'{se}resnet{n}{da}' for n in (18, 34, 50) for da in ('', '_da') for se in ('', 'se_')]
ROWS = study.variants('student_tiny', NAMES)
SMALL = {'resnet18': None, 'se_resnet18': ()}


def get_study(size=''):
  return study.study(
    size, 'Student report, figure 28: Tiny ImageNet', ROWS, study.twins(ROWS), SMALL, study.HELD_OUT
  )
