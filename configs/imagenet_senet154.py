"""SENet-154 on ImageNet, with the recipe of the paper.

  python -m senet_jax.main --config=configs/imagenet_senet154.py --workdir=runs/senet154

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005 --config.bn.freeze_last_epochs=0

The paper also evaluates with larger crops, from images whose size it does not give:

  python -m senet_jax.tools.evaluate --workdir=runs/senet154 --size=320

Hardware: made for 64 GPUs or a TPU slice of as many chips; 62,557 steps of 2048 images.
Expected wall time: not known before it is run on such hardware.
Published: test error 18.68 % (Table 8, single 224 crop; top-5 4.47 %); with a crop of 320,
17.28 % (top-5 3.79 %).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.senet154()
