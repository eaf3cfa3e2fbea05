"""SE-ResNeXt-101 32x4d on ImageNet, with NVIDIA's recipe (DeepLearningExamples).

  python -m senet_jax.main --config=configs/imagenet_se_resnext101_nvidia.py:e90 --workdir=runs/e90

Hardware: made for 8 GPUs; e90 has 112,603 and e250 312,785 steps of 1024 images.
Expected wall time: not known before it is run on such hardware.
Published: test error by variant (NVIDIA DeepLearningExamples, mixed precision, 8 A100, 224 crop):
  e90   19.97 % (top-1 80.03 +- 0.11 %)
  e250  19.1 % (top-1 80.9 +- 0.08 %), with mixup
Measured: not run.
"""

from senet_jax import config as defaults

VARIANTS = {'e90': 90.0, 'e250': 250.0}


def get_config(variant=''):
  return defaults.nvidia('se_resnext101_32x4d', defaults.variant(variant, VARIANTS))
