"""ResNet-50 on ImageNet: SE with other squeezes, or none.

  python -m senet_jax.main --config=configs/ablation_squeeze.py:avg --workdir=runs/avg

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

`none` is NoSqueeze of section 7.1, whose two layers act on every pixel; `original` has no SE. `avg`
and `original` are the same runs as `r16` and `original` of ablation_ratio.py.

Hardware: made for 8 GPUs or a TPU slice; 1,501,368 steps of 256 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (Tables 11 and 16):
  avg       22.28 % (top-5 6.03 %)
  max       22.57 % (top-5 6.09 %)
  none      22.93 % (top-5 6.39 %)
  original  23.30 % (top-5 6.55 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'avg': {},
  'max': {'squeeze': 'max'},
  'none': {'squeeze': 'none'},
  'original': None,
}


def get_config(variant=''):
  return defaults.ablation(defaults.variant(variant, VARIANTS))
