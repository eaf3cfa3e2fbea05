"""Weights of timm, torchvision and Cadene's pretrained-models, in and out; torch is not needed."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from senet_jax import errors
from senet_jax.interop import mapping
from senet_jax.interop.names import TORCH, variant_of

# Where training scripts keep the weights in what they save, the averaged ones first.
_WRAPPERS = ('state_dict_ema', 'model_ema', 'state_dict', 'model_state_dict', 'model')
# Batches that a BatchNorm has seen: no weights.
_COUNTERS = 'num_batches_tracked'


def from_torch(
  model_name: str,
  state_dict: Mapping[str, Any],
  variant: str | None = None,
  num_classes: int | None = None,
) -> dict[str, Any]:
  """Returns the variables of a network from a torch state dict.

  The network computes what the one in torch does if it is built with `model_overrides`, of images
  with red first even if those there have blue first (`cadene:bninception`):

  >>> variables = from_torch('se_resnet50', state_dict, 'timm:seresnet50')
  >>> model = create_model('se_resnet50', **model_overrides('se_resnet50', 'timm:seresnet50'))

  Args:
    model_name: our name.
    state_dict: NumPy arrays or torch tensors by name; or what a training script saved around them.
    variant: the code base and its name of the network, such as `timm:legacy_seresnet50`,
      `torchvision:resnet50`, `cadene:se_resnet50`; None: what the names look most like.
    num_classes: of the last layer; None is the published number.

  Returns:
    `params` and `batch_stats`, float32 NumPy arrays that share no memory with the tensors.

  Raises:
    UserError: no such network or variant, or the weights are not those of it; the message lists
      all that is missing, extra and misshaped, and says what network it may be instead.
  """
  arrays = as_arrays(state_dict)
  chosen = mapping.choose(arrays, TORCH, model_name, variant)
  return mapping.to_variables(chosen, arrays, num_classes)


def to_torch(model_name: str, variables: Mapping[str, Any], variant: str) -> dict[str, np.ndarray]:
  """Returns the torch state dict of a network, the inverse of `from_torch`, bit for bit.

  The counters of batches are left out, as torch fills them in.

  Args:
    model_name: our name.
    variables: `params` and `batch_stats`.
    variant: as of `from_torch`.

  Raises:
    UserError: no such network or variant, or the variables are not those of it.
  """
  return mapping.to_arrays(variant_of(model_name, variant, TORCH), variables)


def as_arrays(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Returns the weights in a state dict or around one as float32, without counters.

  Raises:
    UserError: there are none, or one is not an array of numbers.
  """
  if not isinstance(state_dict, Mapping):
    raise errors.UserError(
      f'the state dict is of type {type(state_dict).__name__}; give a dict of arrays by name, '
      'such as module.state_dict().'
    )
  for wrapper in _WRAPPERS:
    if isinstance(state_dict.get(wrapper), Mapping):
      state_dict = state_dict[wrapper]
      break
  kept = {str(k): v for k, v in state_dict.items() if not str(k).endswith(_COUNTERS)}
  # Torch's data parallelism puts the network into a module of this name.
  if kept and all(name.startswith('module.') for name in kept):
    kept = {name.removeprefix('module.'): value for name, value in kept.items()}
  if not kept:
    raise errors.UserError('the state dict is empty; give a dict of arrays by name.')
  return {name: _as_array(name, value) for name, value in kept.items()}


def _as_array(name: str, value: Any) -> np.ndarray:
  if hasattr(value, 'detach'):
    value = _from_tensor(name, value.detach())
  value = np.asarray(value)
  if not jnp.issubdtype(value.dtype, jnp.floating):
    raise errors.UserError(
      f'{name!r} in the state dict is {value.dtype}, not an array of floating-point numbers.'
    )
  return value.astype(np.float32, copy=False)


def _from_tensor(name: str, tensor: Any) -> np.ndarray:
  """Returns the numbers in a torch tensor; fractions as float32, as NumPy has no bfloat16."""
  try:
    if tensor.nelement() * tensor.element_size() > tensor.untyped_storage().nbytes():
      # In a file a few bytes can stand for terabytes.
      raise errors.UserError(
        f'{name!r} in the state dict shows the same numbers several times; give it contiguous().'
      )
    return tensor.cpu().float().numpy() if tensor.is_floating_point() else tensor.cpu().numpy()
  except (RuntimeError, TypeError) as error:  # sparse, quantized, without data, ...
    raise errors.UserError(
      f'{name!r} in the state dict is no plain tensor of numbers: {str(error).splitlines()[0]}'
    ) from error
