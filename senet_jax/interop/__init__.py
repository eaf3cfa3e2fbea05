"""Weights from other code bases and for them: torch (timm, torchvision, Cadene) and Caffe."""

from senet_jax.interop.caffe import from_caffe
from senet_jax.interop.names import model_overrides
from senet_jax.interop.torch import from_torch, to_torch

__all__ = ['from_caffe', 'from_torch', 'model_overrides', 'to_torch']
