"""Weights from other code bases and for them: torch, Caffe, Keras, TensorFlow Lite."""

from senet_jax.interop.caffe import from_caffe
from senet_jax.interop.keras import from_keras
from senet_jax.interop.names import model_overrides
from senet_jax.interop.tflite import from_tflite
from senet_jax.interop.torch import from_torch, to_torch

__all__ = ['from_caffe', 'from_keras', 'from_tflite', 'from_torch', 'model_overrides', 'to_torch']
