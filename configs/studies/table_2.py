r"""Table 2: networks on ImageNet.

  python -m senet_jax.tools.study --study=configs/studies/table_2.py:small \
      --workdir=runs/study_table_2

Without `:small`, all of them. With it, ResNet-20 on a tenth of CIFAR-10 at
16x16 pixels in place of one of the pairs, about a minute a run on two CPU cores.
"""

from senet_jax.config import study

ROWS = study.pairs(
  (
    'imagenet_r50',
    'imagenet_r101',
    'imagenet_r152',
    'imagenet_resnext50',
    'imagenet_resnext101',
    'imagenet_vgg16',
    'imagenet_bn_inception',
    'imagenet_inception_resnet_v2',
  )
)
SMALL = {'imagenet_r50': None, 'imagenet_se_r50': ()}


def get_study(size=''):
  return study.study(size, 'Table 2: networks on ImageNet', ROWS, study.twins(ROWS), SMALL)
