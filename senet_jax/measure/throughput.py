"""Prepares steps of training and of inference on made-up images, to be timed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from senet_jax import config as config_lib, runtime
from senet_jax.complexity.counts import complexity
from senet_jax.measure import programs
from senet_jax.measure.timing import Workload
from senet_jax.models import list_models, model_info
from senet_jax.training import setup
from senet_jax.workdir.network import build_model, input_size


def configuration(
  model: str, *, batch_size: int, dtype: str, image_size: int | None = None
) -> ConfigDict:
  """Returns the configuration of a step on made-up images: the recipe of section 5.1 of the paper.

  Args:
    model: name of the network.
    batch_size: images a step, over all devices.
    dtype: of the computation.
    image_size: side of the images in pixels; None: as published.

  Raises:
    UserError: there is no such network, or the network cannot take such images.
  """
  info = model_info(model)
  config = config_lib.imagenet(model)
  config.batch_size = batch_size
  config.model.dtype = dtype
  config.model.num_classes = info.num_classes
  config.data.fake = True
  config.data.image_size = image_size or info.image_size
  # No rate matters for speed; a low one keeps the numbers finite however often one batch is seen.
  config.optimizer.learning_rate = 1e-3
  return config


def twin(model: str) -> str | None:
  """Returns the name of a network's twin, with SE or without it; None if it has none."""
  info = model_info(model)
  name = model.removeprefix('se_') if info.se else f'se_{model}'
  return name if name != model and name in list_models() else None


def prepare(config: ConfigDict, mode: str, mesh: Mesh, model: nn.Module | None = None) -> Workload:
  """Compiles the step of a configuration and puts what it needs on the devices.

  `train` is the very program of a run, `steps_per_dispatch` included, with one batch that stays in
  the place of its feed. `inference` gives the logits of that batch.

  Args:
    config: of `configuration`.
    mode: `train` or `inference`.
    mesh: the devices.
    model: another network than the configuration's.

  Raises:
    UserError: the configuration has a mistake.
    MemoryError: the machine has no memory for it (CPU only; others raise what XLA raises).
  """
  config_lib.check(config)
  setup.check_batch(config, mesh.size)
  model = model or build_model(config)
  return (_training if mode == 'train' else _inference)(config, model, mesh)


class _FixedFeed:
  """One batch again and again, in the place of a training feed."""

  input_spec = programs.SHARED

  def batch(self, inputs: dict[str, jax.Array], step: jax.Array) -> dict[str, jax.Array]:
    # Nothing that is done to the images may be done once for all steps of a dispatch.
    return jax.lax.optimization_barrier((inputs, step))[0]


def _training(config: ConfigDict, model: nn.Module, mesh: Mesh) -> Workload:
  steps = config.steps_per_dispatch or 1
  step = programs.training_step(
    config,
    model,
    _FixedFeed(),
    mesh,
    total_steps=10**6,
    steps_per_epoch=1e4,
    looped=steps > 1,
  )
  make_batch = _batch_maker(config, mesh)
  arguments = step.state, _shapes_of(make_batch, mesh), np.int32(steps)
  compiled, facts = programs.compile_timed(step.program, *arguments)
  state, batch = step.first_state(programs.variables(config, model, mesh)), make_batch()

  def dispatch() -> None:
    nonlocal state
    state, _ = compiled(state, batch, np.int32(steps))

  return Workload(
    images=steps * config.batch_size,
    dispatch=dispatch,
    wait=lambda: jax.block_until_ready(state),
    **facts,
  )


def _inference(config: ConfigDict, model: nn.Module, mesh: Mesh) -> Workload:
  steps = config.steps_per_dispatch or 1

  def one(total: jax.Array, variables: dict, images: jax.Array) -> jax.Array:
    # Each step needs the one before: steps neither overlap nor are done once for all.
    images, total = jax.lax.optimization_barrier((images, total))
    logits: Any = model.apply(variables, images, train=False)
    return total + logits

  def many(total: jax.Array, variables: dict, images: jax.Array) -> jax.Array:
    if steps == 1:
      return one(total, variables, images)
    return jax.lax.fori_loop(0, steps, lambda _, total: one(total, variables, images), total)

  shared = programs.SHARED
  program = runtime.data_parallel(many, mesh, (shared, programs.WHOLE, shared), shared, donate=(0,))
  variables = programs.variables(config, model, mesh)
  make_total = _sharded(
    mesh, lambda: jnp.zeros((config.batch_size, config.model.num_classes), jnp.float32)
  )
  arguments = _shapes_of(make_total, mesh), variables, programs.image_shapes(config, mesh)
  compiled, facts = programs.compile_timed(program, *arguments)
  total, images = make_total(), _batch_maker(config, mesh)()['images']

  def dispatch() -> None:
    nonlocal total
    total = compiled(total, variables, images)

  return Workload(
    images=steps * config.batch_size,
    dispatch=dispatch,
    wait=lambda: jax.block_until_ready(total),
    **facts,
  )


def _batch_maker(config: ConfigDict, mesh: Mesh) -> Callable[[], dict[str, jax.Array]]:
  """Returns a function that makes a batch of images and labels on the devices."""
  shape = programs.image_shapes(config, mesh).shape

  def make() -> dict[str, jax.Array]:
    key = jax.random.key(config.seed)
    labels = jax.random.randint(key, shape[:1], 0, config.model.num_classes)
    return {'images': jax.random.normal(key, shape), 'labels': labels}

  return _sharded(mesh, make)


def _sharded(mesh: Mesh, make: Callable) -> Callable:
  """Compiles `make` to compute its results where they belong, so that none is on a device twice."""
  return jax.jit(make, out_shardings=NamedSharding(mesh, programs.SHARED))


def _shapes_of(make: Callable, mesh: Mesh) -> Any:
  """Returns the shapes of what `make` computes, sharded over the devices."""
  return programs.placed(jax.eval_shape(make), mesh, programs.SHARED)


def gflops_per_image(config: ConfigDict, mode: str, model: nn.Module | None = None) -> float:
  """Returns the GFLOP of an image: two a multiply-add, and three times that in training."""
  macs = _macs(model or build_model(config), input_size(config))
  return 2 * macs / 1e9 * (3 if mode == 'train' else 1)


@functools.cache
def _macs(model: nn.Module, image_size: int) -> int:
  return complexity(model, image_size).macs
