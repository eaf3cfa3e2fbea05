"""ResNet-50 and SE-ResNet-50 on ImageNet: the ablations with a fixed schedule.

  python -m senet_jax.main --config=configs/ablation_schedule.py:se --workdir=runs/se

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

Learning rate 0.1, divided by 10 after 125, 200 and 250 of 270 epochs.

Hardware: made for 8 GPUs or a TPU slice; 1,351,231 steps of 256 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (section 6, footnote 2):
  se        22.20 % (top-5 6.00 %)
  original  23.21 % (top-5 6.53 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'se': {},
  'original': None,
}


def get_config(variant=''):
  config = defaults.ablation(defaults.variant(variant, VARIANTS))
  config.epochs = 270.0
  config.schedule.name = 'multistep'
  config.schedule.boundaries = (125.0, 200.0, 250.0)
  return config
