"""Trained networks for photos in files and images in memory: classes and objects that they show."""

from senet_jax.prediction.classifier import Prediction, Predictor, gates
from senet_jax.prediction.detector import Detections, Detector
from senet_jax.prediction.loading import load
from senet_jax.prediction.network import TrainedNetwork
from senet_jax.prediction.photo import Photo

__all__ = [
  'Detections',
  'Detector',
  'Photo',
  'Prediction',
  'Predictor',
  'TrainedNetwork',
  'gates',
  'load',
]
