"""The configuration of a run.

A file under `configs/` starts from `default()` or a recipe and sets what differs; the command line
overrides single fields (`--config.batch_size=256`).
"""

from senet_jax.config.checks import check, check_fields, differences, flatten, from_dict
from senet_jax.config.defaults import default
from senet_jax.config.recipes import cifar, imagenet

__all__ = ['check', 'check_fields', 'cifar', 'default', 'differences', 'flatten', 'from_dict',
           'imagenet']  # fmt: skip
