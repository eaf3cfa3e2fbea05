"""ResNet-50 on ImageNet: SE with other gates.

  python -m senet_jax.main --config=configs/ablation_excitation.py:sigmoid --workdir=runs/sigmoid

A trial without the data: --config.data.fake=True --config.batch_size=8 --config.steps=3
--config.optimizer.learning_rate=0.005

`sigmoid` is the same run as `r16` of ablation_ratio.py.

Hardware: made for 8 GPUs or a TPU slice; 1,501,368 steps of 256 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (Table 12):
  sigmoid  22.28 % (top-5 6.03 %)
  tanh     23.00 % (top-5 6.38 %)
  relu     23.47 % (top-5 6.98 %)
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {
  'sigmoid': {},
  'tanh': {'excitation': 'tanh'},
  'relu': {'excitation': 'relu'},
}


def get_config(variant=''):
  return defaults.ablation(defaults.variant(variant, VARIANTS))
