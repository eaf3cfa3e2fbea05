r"""Section 6, footnote 2: a fixed schedule.

  python -m senet_jax.tools.study --study=configs/studies/schedule.py:small \
      --workdir=runs/study_schedule

Without `:small`, the runs of the paper, ResNet-50 on ImageNet. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants('ablation_schedule', ('original', 'se'))
SMALL = {
  'original': None,
  'se': (),
}


def get_study(size=''):
  return study.study(size, 'Section 6, footnote 2: a fixed schedule', ROWS, 'original', SMALL)
