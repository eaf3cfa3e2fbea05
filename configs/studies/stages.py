r"""Table 13: stages with SE.

  python -m senet_jax.tools.study --study=configs/studies/stages.py:small \
      --workdir=runs/study_stages

Without `:small`, the runs of the paper, ResNet-50 on ImageNet. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
ResNet-20 has no stage 5, and its stage 4 is the last.
"""

from senet_jax.config import study

ROWS = study.variants(
  'ablation_stages', ('stage2', 'stage3', 'stage4', 'all', 'no_stage5', 'original')
)
SMALL = {
  'stage2': ('stages=(2,)',),
  'stage3': ('stages=(3,)',),
  'stage4': ('stages=(4,)',),
  'all': (),
  'original': None,
}


def get_study(size=''):
  return study.study(size, 'Table 13: stages with SE', ROWS, 'original', SMALL)
