"""The configuration of a run.

A file under `configs/` starts from `default()` or a recipe and sets what differs; the command line
overrides single fields (`--config.batch_size=256`).
"""

from senet_jax.config.checks import changed, check, check_fields, differences, flatten, from_dict
from senet_jax.config.defaults import FIELDS, default
from senet_jax.config.modern import fast_cifar, ffcv, nvidia, strikes_back
from senet_jax.config.recipes import (
  ablation,
  cifar,
  coco,
  imagenet,
  mobile,
  places365,
  senet154,
  shake,
  student_ablation,
  student_cifar,
  student_inception,
  student_tiny,
  variant,
  wide_resnet,
)

__all__ = ['FIELDS', 'ablation', 'changed', 'check', 'check_fields', 'cifar', 'coco', 'default',
           'differences', 'fast_cifar', 'ffcv', 'flatten', 'from_dict', 'imagenet', 'mobile',
           'nvidia', 'places365', 'senet154', 'shake', 'strikes_back', 'student_ablation',
           'student_cifar', 'student_inception', 'student_tiny', 'variant',
           'wide_resnet']  # fmt: skip
