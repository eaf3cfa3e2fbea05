"""Weights of timm, torchvision and Cadene's pretrained-models, in and out; torch is not needed."""

import re
import zipfile
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from senet_jax import errors
from senet_jax.interop import mapping, torch_files
from senet_jax.interop.names import TORCH, variant_of

# Where training scripts keep the weights in what they save, the averaged ones first.
_WRAPPERS = ('state_dict_ema', 'model_ema', 'ema_state_dict', 'state_dict', 'model_state_dict',
             'model', 'net', 'network', 'weights')  # fmt: skip
_MOST_WRAPPERS = 3  # around each other
# What a network is called in a module around it: of data parallelism, of torch.compile, of the
# modules that Lightning and others train.
_PREFIXES = ('module.', '_orig_mod.', 'model.', 'net.', 'network.', 'backbone.', 'encoder.')
# No weights: counters of batches, thop's of operations, what detectron2 does to images.
_COUNTERS = ('num_batches_tracked', 'total_ops', 'total_params', 'pixel_mean', 'pixel_std')
_ANCHORS = re.compile(r'.*anchor_generator\.cell_anchors\.\d+')
# Names of torchvision's detectors before version 0.14, in which their published files are.
_OLDER_NAMES = (
  (re.compile(r'(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(\w+)'), r'\1.0.\2'),
  (re.compile(r'(rpn\.head\.conv)\.(\w+)'), r'\1.0.0.\2'),
)
# Where files say what network they are of; and in it, what options a script was called with.
_ARCHITECTURES, _OPTIONS = ('arch', 'architecture', 'model_name'), ('args', 'hyper_parameters')


def from_torch(
  model_name: str,
  state_dict: Mapping[str, Any],
  variant: str | None = None,
  num_classes: int | None = None,
) -> dict[str, Any]:
  """The variables of a network from a torch state dict.

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
  chosen = mapping.choose(arrays, TORCH, model_name, variant, architecture(state_dict))
  return mapping.to_variables(chosen, arrays, num_classes)


def to_torch(model_name: str, variables: Mapping[str, Any], variant: str) -> dict[str, np.ndarray]:
  """The torch state dict of a network, the inverse of `from_torch`, bit for bit.

  The counters of batches are left out, as torch fills them in.

  Args:
    model_name: our name.
    variables: `params` and `batch_stats`.
    variant: as of `from_torch`.

  Raises:
    UserError: no such network or variant, or the variables are not those of it.
  """
  return mapping.to_arrays(variant_of(model_name, variant, TORCH), variables)


def as_arrays(content: Any) -> dict[str, np.ndarray]:
  """The weights in a state dict or around one as float32, without counters.

  Raises:
    UserError: there are none, or one is not an array of numbers.
  """
  if isinstance(content, torch_files.Placeholder):
    raise errors.UserError(
      f'the file holds Python objects, a {content.what}, not weights by name; nothing of it is '
      'run. Save module.state_dict() alone.'
    )
  if not isinstance(content, Mapping):
    raise errors.UserError(
      f'the state dict is of type {type(content).__name__}; give a dict of arrays by name, '
      'such as module.state_dict().'
    )
  state_dict: Any = content
  for _ in range(_MOST_WRAPPERS):
    inner = (state_dict[w] for w in _WRAPPERS if isinstance(state_dict.get(w), Mapping))
    state_dict = next(inner, state_dict)
  kept = {
    str(k): v
    for k, v in state_dict.items()
    if not str(k).endswith(_COUNTERS) and not _ANCHORS.fullmatch(str(k))
  }
  while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in kept) and kept), None):
    kept = {name.removeprefix(prefix): value for name, value in kept.items()}
  if not kept:
    raise errors.UserError('the state dict is empty; give a dict of arrays by name.')
  return {_newer(name): _as_array(name, value) for name, value in kept.items()}


def _newer(name: str) -> str:
  for pattern, newer in _OLDER_NAMES:
    if match := pattern.fullmatch(name):
      return match.expand(newer)
  return name


def architecture(content: Any) -> str | None:
  """The name of the network that a file says it is of; None if it says nothing."""
  if not isinstance(content, Mapping):
    return None
  options = [content.get(name) for name in _OPTIONS]
  options = [o.state if isinstance(o, torch_files.Placeholder) else o for o in options]
  names = [content.get(name) for name in _ARCHITECTURES]
  names += [o.get(n) for o in options if isinstance(o, Mapping) for n in ('model', 'arch')]
  return next((name for name in names if isinstance(name, str) and name), None)


def _as_array(name: str, value: Any) -> np.ndarray:
  if isinstance(value, torch_files.Placeholder):
    raise errors.UserError(
      f'{name!r} in the state dict is one of the Python objects that are not read, a {value.what}; '
      'save arrays alone, as of module.state_dict().'
    )
  if isinstance(value, torch_files.Tensor):
    try:
      value = value.array()
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
      raise errors.UserError(f'{name!r} in the file is damaged: {error}') from error
  elif hasattr(value, 'detach'):
    value = _from_tensor(name, value.detach())
  elif isinstance(value, Mapping | str):
    raise errors.UserError(f'{name!r} in the state dict is {type(value).__name__}, no array.')
  value = np.asarray(value)
  if not jnp.issubdtype(value.dtype, jnp.floating):
    raise errors.UserError(
      f'{name!r} in the state dict is {value.dtype}, not an array of floating-point numbers.'
    )
  return value.astype(np.float32, copy=False)


def _from_tensor(name: str, tensor: Any) -> np.ndarray:
  """The numbers in a torch tensor; fractions as float32, since NumPy has no bfloat16."""
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
