"""The networks of the paper and of its student reproduction, by name."""

from senet_jax.models import resnet  # noqa: F401  (registers the family)
from senet_jax.models.registry import (
  ModelInfo,
  Preprocessing,
  create_model,
  list_models,
  model_info,
)

__all__ = ['ModelInfo', 'Preprocessing', 'create_model', 'list_models', 'model_info']
