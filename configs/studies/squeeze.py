r"""Tables 11 and 16: squeeze.

  python -m senet_jax.tools.study --study=configs/studies/squeeze.py:small \
      --workdir=runs/study_squeeze

Without `:small`, the runs of the paper, ResNet-50 on ImageNet. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants('ablation_squeeze', ('avg', 'max', 'none', 'original'))
SMALL = {
  'avg': (),
  'max': ('squeeze=max',),
  'none': ('squeeze=none',),
  'original': None,
}


def get_study(size=''):
  return study.study(size, 'Tables 11 and 16: squeeze', ROWS, 'original', SMALL)
