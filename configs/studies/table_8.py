r"""Tables 8 and 9: SENet-154, trained with crops of 224 and of 320 pixels.

  python -m senet_jax.tools.study --study=configs/studies/table_8.py:small \
      --workdir=runs/study_table_8

Without `:small`, both of them. With it, SE-ResNet-20 on a tenth of CIFAR-10 at 16x16 pixels in
place of the first, about a minute a run on two CPU cores. The error of the first with crops of 320
in evaluation, as in Table 8, is what tools.evaluate makes of its runs.
"""

from senet_jax.config import study

ROWS = {name: f'configs/{name}.py' for name in ('imagenet_senet154', 'imagenet_senet154_320')}
SMALL = {'imagenet_senet154': ()}


def get_study(size=''):
  return study.study(size, 'Tables 8 and 9: SENet-154', ROWS, 'imagenet_senet154', SMALL)
