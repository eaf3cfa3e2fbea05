"""ResNet-50 on ImageNet: SE of several reduction ratios.

  python -m senet_jax.main --config=configs/ablation_ratio.py:r2 --workdir=runs/r2

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

The SE blocks have no biases, as in all of section 6; `original` has no SE. `r16` is the baseline of
all ablations: `avg`, `sigmoid`, `all` and `se` in the other files are the same run.

Hardware: made for 8 GPUs or a TPU slice; 1,501,368 steps of 256 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (Table 10):
  r2        22.29 % (top-5 6.00 %)
  r4        22.25 % (top-5 6.09 %)
  r8        22.26 % (top-5 5.99 %)
  r16       22.28 % (top-5 6.03 %)
  r32       22.72 % (top-5 6.20 %)
  original  23.30 % (top-5 6.55 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'r2': {'ratio': 2},
  'r4': {'ratio': 4},
  'r8': {'ratio': 8},
  'r16': {},
  'r32': {'ratio': 32},
  'original': None,
}


def get_config(variant=''):
  return defaults.ablation(defaults.variant(variant, VARIANTS))
