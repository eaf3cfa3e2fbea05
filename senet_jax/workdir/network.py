"""The network of a configuration, and the variables that it has."""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn, traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.data.datasets import streamed_info
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, SEConfig
from senet_jax.models import CLASSIFICATION, create_model, model_info
from senet_jax.models.common import named_by

# More make 40 GB of float32 alone, and no network of images has a tenth of them.
_MOST_PARAMETERS = 10**10
# Side of the images for which variables are made of a network that takes images of any size.
_ANY_SIDE = 64
# Fields of config.model that are not options of a family.
_NOT_OPTIONS = ('name', 'num_classes', 'dtype', 'se')


def network_options(config: ConfigDict) -> dict[str, Any]:
  """Returns the fields of the network, by name, that differ from their defaults.

  Not among them: its name, classes and dtype, the scope of BN, and fields of an SE it has not.
  """
  found = config_lib.changed(config, ('model.', 'bn.', 'deterministic'))
  named = {'model.name', 'model.num_classes', 'model.dtype', 'bn.scope'}
  se = model_info(config.model.name).se
  return {k: v for k, v in found.items() if k not in named and (se or 'model.se.' not in k)}


def build_model(
  config: ConfigDict, num_classes: int | None = None, *, frozen_bn: bool = False
) -> nn.Module:
  """Returns the network of a configuration.

  Args:
    config: of the run.
    num_classes: of the data; None: what is known about the data set.
    frozen_bn: makes training keep the running statistics of all modules, not only of those of
      `config.optimizer.frozen`.

  Raises:
    UserError: the network or one of its options does not exist.
  """
  model, bn, info = config.model, config.bn, model_info(config.model.name)
  if info.task == CLASSIFICATION:
    known = streamed_info(config.data.name).num_classes
  else:
    known = info.num_classes
  options = {k: v for k, v in model.items() if k not in _NOT_OPTIONS and v is not None}
  if info.se:
    options['se'] = SEConfig(**model.se)
  else:
    _check_no_se_options(model)
  return create_model(
    model.name,
    num_classes=model.num_classes or num_classes or known,
    dtype=model.dtype,
    bn=BatchNormConfig(
      scope=bn.scope,
      ghost_size=bn.ghost_size,
      momentum=bn.momentum,
      epsilon=info.bn_epsilon if bn.epsilon is None else bn.epsilon,
      frozen=frozen_bn or tuple(config.optimizer.frozen),
    ),
    **options,
  )


def _check_no_se_options(model: ConfigDict) -> None:
  """Refuses SE options on a network without SE, which would be ignored in silence."""
  for field, value in config_lib.default().model.se.items():
    if model.se[field] != value:
      raise UserError(
        f'config.model.se.{field}={model.se[field]!r} has no effect on {model.name!r}, which has '
        f"no SE; name the network 'se_{model.name}' or leave the field out."
      )


def check_model(config: ConfigDict) -> None:
  """Checks, without any computation, that the network of a configuration can be built and run.

  Raises:
    UserError: its options do not fit together, or not the image size, it is too large, or what is
      frozen is nothing or all of it.
  """
  model = build_model(config)
  params = variable_shapes(config, model)['params']
  for size in config.data.train_size or ():
    variable_shapes(config, model, size)  # or images are too small for it
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(params))
  if count > _MOST_PARAMETERS:
    raise UserError(
      f'config.model makes a {config.model.name} of {count:,} parameters, more than '
      f'{_MOST_PARAMETERS:,}; use a smaller width, depths, num_classes or se.hidden_divisor.'
    )
  _check_frozen(config, model, params)


def _check_frozen(config: ConfigDict, model: nn.Module, params: dict) -> None:
  given = tuple(config.optimizer.frozen)
  paths = list(traverse_util.flatten_dict(params))
  for beginning in given:
    if not any(named_by(path, (beginning,)) for path in paths):
      names = dict.fromkeys(re.sub(r'\d+$', '', name) for name in params)  # one for all blocks
      raise UserError(
        f'config.optimizer.frozen={given}: no module of {config.model.name} begins with '
        f'{beginning!r}; they begin with {", ".join(names)}.'
      )
  if not trained(params, frozen(config, model)):
    raise UserError(
      f'config.optimizer.frozen={given} leaves no module of {config.model.name} to be trained; '
      'leave some out.'
    )


def task_of(config: ConfigDict) -> str:
  """Returns what the network of a configuration does, `classification` or `detection`."""
  return model_info(config.model.name).task


def input_size(config: ConfigDict) -> int:
  """Returns the side of the network's square input images, in pixels.

  Detectors take images of any size; theirs is a small one, which makes the same variables.
  """
  if task_of(config) != CLASSIFICATION:
    return _ANY_SIDE
  return evaluation_transform(config).image_size


def variable_shapes(config: ConfigDict, model: nn.Module, size: int | None = None) -> dict:
  """Returns `params` and `batch_stats` as `jax.ShapeDtypeStruct`s; computes nothing.

  Args:
    config: of the run.
    model: its network.
    size: side of the images; None: that of evaluations.
  """
  size = size or input_size(config)
  init = functools.partial(model.init, train=False)
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return jax.eval_shape(init, jax.random.key(0), images)


def init_variables(config: ConfigDict, model: nn.Module, mesh: Mesh) -> dict:
  """Returns fresh `params` and `batch_stats`, whole on every device."""
  size = input_size(config)
  init = functools.partial(model.init, images=jnp.zeros((1, size, size, 3)), train=False)
  program = jax.jit(init, out_shardings=runtime.replicated(mesh))
  return program(jax.random.key(config.seed))


def frozen(config: ConfigDict, model: nn.Module) -> tuple[str, ...]:
  """Returns the beginnings of the paths of the variables that training leaves as they are.

  They are those of `config.optimizer.frozen`, and those that the network says itself.
  """
  return (*config.optimizer.frozen, *getattr(model, 'frozen', ()))


def trained(variables: dict[str, Any], frozen: tuple[str, ...]) -> dict[str, Any]:
  """Returns the trained variables; gradients and the optimizer's state are of these alone.

  Args:
    variables: nested by module.
    frozen: beginnings of the paths of those that are not trained, as of `models.common.named_by`.
  """
  if not frozen:
    return variables
  flat = traverse_util.flatten_dict(variables)
  return traverse_util.unflatten_dict(
    {path: value for path, value in flat.items() if not named_by(path, frozen)}
  )


def replaced(variables: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
  """Returns nested variables with the values of `new`, which has some of them."""
  flat = traverse_util.flatten_dict(variables, keep_empty_nodes=True)
  return traverse_util.unflatten_dict(
    {**flat, **traverse_util.flatten_dict(new, keep_empty_nodes=True)}
  )
