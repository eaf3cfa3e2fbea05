"""SENet-154 on ImageNet, trained with crops of 320 pixels.

  python -m senet_jax.main --config=configs/imagenet_senet154_320.py --workdir=runs/senet154_320

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005 --config.bn.freeze_last_epochs=0

The paper gives the size alone; the rest is as of imagenet_senet154.py. Evaluated on the middle 320
pixels of images whose shorter side is 366, which is 320 x 256 / 224.

Hardware: made for 64 GPUs or a TPU slice of as many chips; 62,557 steps of 2048 images.
Expected wall time: not known before it is run on such hardware.
Published: test error 16.88 % (Table 9, single 320 crop; top-5 3.58 %).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  config = defaults.senet154()
  config.data.image_size = 320
  return config
