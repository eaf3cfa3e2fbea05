r"""Table 12: excitation.

  python -m senet_jax.tools.study --study=configs/studies/excitation.py:small \
      --workdir=runs/study_excitation

Without `:small`, the runs of the paper, ResNet-50 on ImageNet. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants('ablation_excitation', ('sigmoid', 'tanh', 'relu'))
SMALL = {
  'sigmoid': (),
  'tanh': ('excitation=tanh',),
  'relu': ('excitation=relu',),
}


def get_study(size=''):
  return study.study(size, 'Table 12: excitation', ROWS, 'sigmoid', SMALL)
