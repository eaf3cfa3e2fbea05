"""Layers: squeeze-and-excitation, normalisation, convolution, pooling."""

from senet_jax.layers.conv import HEAD, classifier, conv
from senet_jax.layers.normalization import BatchNorm, BatchNormConfig
from senet_jax.layers.pooling import max_pool
from senet_jax.layers.squeeze_excite import SEConfig, SqueezeExcite, excitations

__all__ = [
  'HEAD',
  'BatchNorm',
  'BatchNormConfig',
  'SEConfig',
  'SqueezeExcite',
  'classifier',
  'conv',
  'excitations',
  'max_pool',
]
