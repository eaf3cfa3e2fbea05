"""SE-Inception-ResNet-v2 on ImageNet, with the recipe of the paper.

  python -m senet_jax.main --config=configs/imagenet_se_inception_resnet_v2.py --workdir=runs/se_inc

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

The multiply-adds are 13.16 G, as of the published code; the paper says 11.75, which no public
definition has. Crops of 299x299, in an evaluation from images of 352 pixels.
SE is on the branch of each residual block, in front of its scale; the paper does not say where.
Also on the modules between the stages: --config.model.se_mixed=True.

Hardware: made for 8 GPUs or a TPU slice; 125,114 steps of 1024 images.
Expected wall time: not known before it is run on such hardware.
Published: test error 19.80 % (Table 2, single 299 crop; top-5 4.79 %).
Measured: not run.
"""

from senet_jax import config as defaults


def get_config():
  return defaults.imagenet('se_inception_resnet_v2')
