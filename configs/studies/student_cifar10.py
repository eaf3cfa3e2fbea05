r"""Student report, figure 25: CIFAR-10.

  python -m senet_jax.tools.study --study=configs/studies/student_cifar10.py:small \
      --workdir=runs/study_student_cifar10

Without `:small`, all of them. With it, ResNet-20 on a tenth of CIFAR-10 at
16x16 pixels in place of one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants(
  'student_cifar10',
  ('resnet46', 'se_resnet46', 'resnext29', 'se_resnext29', 'inception_v3', 'se_inception_v3'),
)
SMALL = {'resnet46': None, 'se_resnet46': ()}


def get_study(size=''):
  return study.study(
    size, 'Student report, figure 25: CIFAR-10', ROWS, study.twins(ROWS), SMALL, study.HELD_OUT
  )
