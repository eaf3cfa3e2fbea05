"""ResNet-50 on ImageNet: SE in single stages, and in all but the last.

  python -m senet_jax.main --config=configs/ablation_stages.py:stage2 --workdir=runs/stage2

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

The paper does not say with which recipe it left the last stage out (`no_stage5`); here it is that
of section 6. `all` and `original` are the same runs as `r16` and `original` of ablation_ratio.py.

Hardware: made for 8 GPUs or a TPU slice; 1,501,368 steps of 256 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (Table 13):
  stage2     23.03 % (top-5 6.48 %)
  stage3     23.04 % (top-5 6.32 %)
  stage4     22.68 % (top-5 6.22 %)
  all        22.28 % (top-5 6.03 %)
  no_stage5  no figure; section 4 says less than 0.1 % of top-5 error above `all`
  original   23.30 % (top-5 6.55 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'stage2': {'stages': (2,)},
  'stage3': {'stages': (3,)},
  'stage4': {'stages': (4,)},
  'all': {},
  'no_stage5': {'stages': (2, 3, 4)},
  'original': None,
}


def get_config(variant=''):
  return defaults.ablation(defaults.variant(variant, VARIANTS))
