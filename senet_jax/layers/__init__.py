"""Layers: channel attention, normalisation, convolution, pooling, shake."""

from senet_jax.layers.add_squeeze_excite import add_squeeze_excite
from senet_jax.layers.attention import BlockAttention, register_attention
from senet_jax.layers.channel_gate import ChannelGate
from senet_jax.layers.conv import HEAD, classifier, conv, depthwise_conv
from senet_jax.layers.derivatives import plain_derivatives
from senet_jax.layers.drop_path import DropPath
from senet_jax.layers.normalization import BatchNorm, BatchNormConfig, DeferredAffine, materialize
from senet_jax.layers.pooling import avg_pool, max_pool
from senet_jax.layers.shake import shake
from senet_jax.layers.squeeze_excite import SEConfig, SqueezeExcite, excitations

__all__ = [
  'HEAD',
  'BatchNorm',
  'BatchNormConfig',
  'BlockAttention',
  'ChannelGate',
  'DeferredAffine',
  'DropPath',
  'SEConfig',
  'SqueezeExcite',
  'add_squeeze_excite',
  'avg_pool',
  'classifier',
  'conv',
  'depthwise_conv',
  'excitations',
  'materialize',
  'max_pool',
  'plain_derivatives',
  'register_attention',
  'shake',
]
