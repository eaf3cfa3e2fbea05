"""The networks of the paper and of its student reproduction, by name."""

from senet_jax.models import (  # noqa: F401  (they register the families)
  inception,
  inception_resnet,
  mobilenet,
  resnet_table,
  shake,
  shufflenet,
  vgg,
)
from senet_jax.models.registry import (
  CLASSIFICATION,
  DETECTION,
  ModelInfo,
  Preprocessing,
  all_models,
  create_model,
  list_models,
  model_info,
)

__all__ = [
  'CLASSIFICATION',
  'DETECTION',
  'ModelInfo',
  'Preprocessing',
  'all_models',
  'create_model',
  'list_models',
  'model_info',
]
