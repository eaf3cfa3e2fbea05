r"""Tables 14 and 15: place of SE in a unit.

  python -m senet_jax.tools.study --study=configs/studies/integration.py:small \
      --workdir=runs/study_integration

Without `:small`, the runs of the paper, ResNet-50 on ImageNet. With it, ResNet-20 on a tenth of
CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.variants('ablation_integration', ('se', 'pre', 'post', 'identity', 'conv3x3'))
SMALL = {
  'se': (),
  'pre': ('position=pre',),
  'post': ('position=post',),
  'identity': ('position=identity',),
}


def get_study(size=''):
  return study.study(size, 'Tables 14 and 15: place of SE in a unit', ROWS, 'se', SMALL)
