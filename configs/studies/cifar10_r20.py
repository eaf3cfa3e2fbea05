r"""ResNet-20 and SE-ResNet-20 on CIFAR-10.

  python -m senet_jax.tools.study --study=configs/studies/cifar10_r20.py:short \
      --workdir=runs/study_cifar10_r20

Without a size, the recipe of the CIFAR networks, 164 epochs; `:short` is 30 epochs with a cosine,
and `:small` a tenth of CIFAR-10 at 16x16 pixels, about a minute a run on two CPU cores.
"""

import dataclasses

from senet_jax.config import study

TITLE = 'CIFAR-10: ResNet-20 with SE and without'
ROWS = study.pairs(('cifar10_r20',))
SMALL = {'cifar10_r20': None, 'cifar10_se_r20': ()}
_SHORT = (
  '--config.epochs=30',
  '--config.schedule.name=cosine',
  '--config.eval.every_epochs=5',
  '--config.log.tensorboard=False',
)


def get_study(size=''):
  made = study.study('' if size == 'short' else size, TITLE, ROWS, study.twins(ROWS), SMALL)
  if size != 'short':
    return made
  rows = tuple(dataclasses.replace(row, overrides=_SHORT) for row in made.rows)
  return dataclasses.replace(made, title=f'{TITLE} (30 epochs)', rows=rows)
