r"""Table 10: reduction ratio.

  python -m senet_jax.tools.study --study=configs/studies/ratio.py:small \
      --workdir=runs/study_ratio

Without `:small`, the runs of the paper, ResNet-50 on ImageNet. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
The narrowest blocks of ResNet-20 have 16 channels, so that `r32` is not among the small runs.
"""

from senet_jax.config import study

ROWS = study.variants('ablation_ratio', ('r2', 'r4', 'r8', 'r16', 'r32', 'original'))
SMALL = {
  'r2': ('ratio=2',),
  'r4': ('ratio=4',),
  'r8': ('ratio=8',),
  'r16': ('ratio=16',),
  'original': None,
}


def get_study(size=''):
  return study.study(size, 'Table 10: reduction ratio', ROWS, 'original', SMALL)
