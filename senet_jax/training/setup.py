"""What a configuration describes, built: the network, its state, the length of the run."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.data.datasets import streamed_info
from senet_jax.data.preprocessing import evaluation_transform
from senet_jax.errors import UserError
from senet_jax.layers import BatchNormConfig, SEConfig
from senet_jax.models import create_model, model_info
from senet_jax.training.optimizer import trained
from senet_jax.training.state import TrainState

# Fields of config.model that are not options of a family.
_NOT_OPTIONS = ('name', 'num_classes', 'dtype', 'se')


def build_model(
  config: ConfigDict, num_classes: int | None = None, *, frozen_bn: bool = False
) -> nn.Module:
  """The network of a configuration.

  Args:
    config: of the run.
    num_classes: of the data; None: what is known about the data set.
    frozen_bn: makes training keep the running statistics of all modules, not only of those of
      `config.optimizer.frozen`.

  Raises:
    UserError: the network or one of its options does not exist.
  """
  model, bn, info = config.model, config.bn, model_info(config.model.name)
  options = {k: v for k, v in model.items() if k not in _NOT_OPTIONS and v is not None}
  if info.se:
    options['se'] = SEConfig(**model.se)
  else:
    _check_no_se_options(model)
  return create_model(
    model.name,
    num_classes=model.num_classes or num_classes or streamed_info(config.data.name).num_classes,
    dtype=model.dtype,
    bn=BatchNormConfig(
      scope=bn.scope,
      ghost_size=bn.ghost_size,
      momentum=bn.momentum,
      epsilon=bn.epsilon or info.bn_epsilon,
      frozen=frozen_bn or tuple(config.optimizer.frozen),
    ),
    **options,
  )


def _check_no_se_options(model: ConfigDict) -> None:
  """SE options on a network without SE would be ignored in silence."""
  for field, value in config_lib.default().model.se.items():
    if model.se[field] != value:
      raise UserError(
        f'config.model.se.{field}={model.se[field]!r} has no effect on {model.name!r}, which has '
        f"no SE; name the network 'se_{model.name}' or leave the field out."
      )


def check_model(config: ConfigDict) -> None:
  """Checks, without any computation, that the network of a configuration can be built and run.

  Raises:
    UserError: its options do not fit together, or not the image size, or what is frozen is nothing
      or all of it.
  """
  _check_frozen(config, variable_shapes(config, build_model(config))['params'])


def _check_frozen(config: ConfigDict, params: dict) -> None:
  frozen = tuple(config.optimizer.frozen)
  for beginning in frozen:
    if not any(name.startswith(beginning) for name in params):
      names = dict.fromkeys(re.sub(r'\d+$', '', name) for name in params)  # one for all blocks
      raise UserError(
        f'config.optimizer.frozen={frozen}: no module of {config.model.name} begins with '
        f'{beginning!r}; they begin with {", ".join(names)}.'
      )
  if not trained(params, frozen):
    raise UserError(
      f'config.optimizer.frozen={frozen} leaves no module of {config.model.name} to be trained; '
      'leave some out.'
    )


def input_size(config: ConfigDict) -> int:
  """Side of the network's square input images, in pixels."""
  return evaluation_transform(config).image_size


def variable_shapes(config: ConfigDict, model: nn.Module) -> dict:
  """`params` and `batch_stats` as `jax.ShapeDtypeStruct`s; nothing is computed."""
  size = input_size(config)
  init = functools.partial(model.init, train=False)
  images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return jax.eval_shape(init, jax.random.key(0), images)


def init_variables(config: ConfigDict, model: nn.Module, mesh: Mesh) -> dict:
  """Fresh `params` and `batch_stats`, whole on every device."""
  size = input_size(config)
  init = functools.partial(model.init, images=jnp.zeros((1, size, size, 3)), train=False)
  init = jax.jit(init, out_shardings=runtime.replicated(mesh))
  return init(jax.random.key(config.seed))


def init_state(
  config: ConfigDict,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  plateau: optax.GradientTransformationExtraArgs | None,
  mesh: Mesh,
  variables: dict | None = None,
) -> TrainState:
  """The state before the first step, with `variables` or, without them, fresh ones."""
  if variables is None:
    variables = init_variables(config, model, mesh)

  build = functools.partial(new_state, config, optimizer, plateau)
  return jax.jit(build, out_shardings=runtime.replicated(mesh))(variables)


def new_state(
  config: ConfigDict,
  optimizer: optax.GradientTransformation,
  plateau: optax.GradientTransformationExtraArgs | None,
  variables: dict,
) -> TrainState:
  """The state before the first step, with `variables`."""
  params = variables['params']
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=variables['batch_stats'],
    opt_state=optimizer.init(trained(params, tuple(config.optimizer.frozen))),
    ema=jax.tree.map(jnp.copy, variables) if config.optimizer.ema_decay > 0 else None,
    plateau=plateau.init(params) if plateau else None,
  )


def check_batch(config: ConfigDict, devices: int) -> None:
  """Checks that devices, micro-batches and ghost groups divide the batch, and cutout the image.

  Raises:
    UserError: they do not.
  """
  local = runtime.per_device(config.batch_size, devices)
  k = config.optimizer.accumulate
  if local % k:
    raise UserError(
      f'config.optimizer.accumulate={k} does not divide the {local} images a device has of each '
      f'batch of {config.batch_size}.'
    )
  if config.data.cutout >= 2 * input_size(config):
    raise UserError(
      f'config.data.cutout={config.data.cutout} would blank out most images of side '
      f'{input_size(config)}; use a smaller one.'
    )
  size = config.bn.ghost_size
  if config.bn.scope == 'ghost' and local // k % max(size, 1):
    raise UserError(
      f'config.bn.ghost_size={size} does not divide the {local // k} images that a device '
      'normalises together; change config.bn.ghost_size or config.batch_size.'
    )


def total_steps(config: ConfigDict, num_examples: int) -> int:
  """Length of the run: `config.steps`, or the steps in which each epoch is complete."""
  if config.steps is not None:
    return config.steps
  if config.epochs * num_examples / config.batch_size >= 2**31:
    raise UserError(f'config.epochs={config.epochs} makes more than 2**31 steps; use fewer.')
  return math.ceil(config.epochs * num_examples / config.batch_size - 1e-9)


def eval_steps(config: ConfigDict, total: int, steps_per_epoch: float) -> list[int]:
  """The steps after which to evaluate, rising; the last one is the end of the run."""
  every = config.eval.every_epochs * steps_per_epoch
  count = int(total / every)
  steps = {max(math.ceil(k * every - 1e-9), 1) for k in range(1, count + 1)}
  return sorted({step for step in steps if step < total} | {total})
