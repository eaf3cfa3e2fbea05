"""ResNet-50 on ImageNet: SE elsewhere in a residual unit.

  python -m senet_jax.main --config=configs/ablation_integration.py:se --workdir=runs/se

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

`conv3x3` is SE_3x3, behind the BN and ReLU of the 3x3 convolution; the paper says behind the
convolution. `se` is the same run as `r16` of ablation_ratio.py.

Hardware: made for 8 GPUs or a TPU slice; 1,501,368 steps of 256 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (Tables 14 and 15):
  se        22.28 % (top-5 6.03 %)
  pre       22.23 % (top-5 6.00 %)
  post      22.78 % (top-5 6.35 %)
  identity  22.20 % (top-5 6.15 %)
  conv3x3   22.48 % (top-5 6.02 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'se': {},
  'pre': {'position': 'pre'},
  'post': {'position': 'post'},
  'identity': {'position': 'identity'},
  'conv3x3': {'position': 'conv3x3'},
}


def get_config(variant=''):
  return defaults.ablation(defaults.variant(variant, VARIANTS))
