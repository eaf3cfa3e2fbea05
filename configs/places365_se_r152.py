"""SE-ResNet-152 on Places365: the set of the paper, of the challenge of 2016, or a smaller one.

  python -m senet_jax.main --config=configs/places365_se_r152.py:challenge --workdir=runs/places365

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

`challenge`, which is also what a run without a variant takes, has 8 million training images, drawn
with class-aware sampling; its official archives are prepared with

  python -m senet_jax.tools.prepare_data --dataset=places365_challenge --source=DIR

`small` is Places365-Standard, 1.8 million training images and the same validation images; tfds
prepares it, by download:

  import tensorflow_datasets as tfds
  tfds.builder('places365_small').download_and_prepare()

Hardware: made for 8 GPUs or a TPU slice, where it was not run; 783,851 steps of 1024 images, and
176,120 steps of 1024 of `small`.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (Table 6, single 224 crop), none of the smaller set:
  challenge  40.37 % (top-5 11.01 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {'challenge': False, 'small': True}


def get_config(variant=''):
  small = defaults.variant(variant or 'challenge', VARIANTS)
  return defaults.places365('se_resnet152', small=small)
