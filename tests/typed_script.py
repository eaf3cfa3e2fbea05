"""What a script of a user's gets from the types; `make lint` checks it, and nothing runs it."""

from typing import assert_type

import flax.linen as nn
import numpy as np

import senet_jax
from senet_jax.models import ModelInfo, create_model, list_models, model_info
from senet_jax.prediction import Detections, Detector, Prediction, Predictor


def predict(photos: list[str]) -> None:
  network = senet_jax.load('runs/flowers', 'latest', batch_size=8)
  assert_type(network, Predictor)
  assert_type(network.top_k(photos, k=1), list[list[Prediction]])
  assert_type(network.top_k(photos)[0][0].probability, float)
  assert_type(network.probabilities(photos[0]), np.ndarray)
  network.top_k(3)  # type: ignore[arg-type]  # which is found


def detect(photos: list[str]) -> None:
  network = senet_jax.load('runs/coco', task='detection')
  assert_type(network, Detector)
  assert_type(network.detect(photos, threshold=0.7), list[Detections])


def networks() -> None:
  assert_type(senet_jax.list_pretrained(), list[str])
  assert_type(list_models('se_*'), list[str])
  assert_type(model_info('se_resnet50'), ModelInfo)
  assert_type(create_model('se_resnet50', dtype='bfloat16', attention='eca'), nn.Module)
