"""SE-ResNet-152 on Places365-Standard, a smaller set than that of the paper.

  python -m senet_jax.main --config=configs/places365_se_r152.py --workdir=runs/places365_se_r152

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

The smaller set: 1.8 million training images instead of 8, and the same validation images. Not
built: class-aware sampling, and the larger set. tfds prepares the data, by download:

  import tensorflow_datasets as tfds
  tfds.builder('places365_small').download_and_prepare()

Hardware: made for 8 GPUs or a TPU slice; 176,120 steps of 1024 images.
Expected wall time: not known before it is run on such hardware.
Published: test error 40.37 % (Table 6, single 224 crop; top-5 11.01 %), of the larger
set.
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.places365('se_resnet152')
