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

from senet_jax import config as config_lib, detection, runtime
from senet_jax.complexity.counts import complexity, count_macs
from senet_jax.measure import programs
from senet_jax.measure.timing import Workload
from senet_jax.models import CLASSIFICATION, list_models, model_info
from senet_jax.training import setup
from senet_jax.workdir.network import build_model, input_size, task_of, variable_shapes

# Of each made-up image; COCO has seven on average.
_OBJECTS = 8


def configuration(
  model: str, *, batch_size: int, dtype: str, image_size: int | None = None
) -> ConfigDict:
  """Returns the configuration of a step on made-up images: the recipe of section 5.1 of the paper.

  Args:
    model: name of the network.
    batch_size: images a step, over all devices.
    dtype: of the computation.
    image_size: side of the images in pixels, of a detector the shorter one; None: as published.

  Raises:
    UserError: there is no such network, or the network cannot take such images.
  """
  info = model_info(model)
  size = image_size or info.image_size
  if info.task == CLASSIFICATION:
    config = config_lib.imagenet(model)
    config.data.image_size = size
  else:
    config = config_lib.coco(model)
    longer = config.data.longer_side / config.data.shorter_side
    config.data.shorter_side, config.data.longer_side = size, round(size * longer)
  config.batch_size = batch_size
  config.model.dtype = dtype
  config.model.num_classes = info.num_classes
  config.data.fake = True
  # No rate matters for speed; a low one keeps the numbers finite however often one batch is seen.
  config.optimizer.learning_rate = 1e-3
  return config


def twin(model: str) -> str | None:
  """Returns the name of a network's twin, with SE or without it; None if it has none."""
  info = model_info(model)
  name = model.removeprefix('se_') if info.se else f'se_{model}'
  return name if name != model and name in list_models(task=info.task) else None


def prepare(config: ConfigDict, mode: str, mesh: Mesh, model: nn.Module | None = None) -> Workload:
  """Compiles the step of a configuration and puts what it needs on the devices.

  `train` is the very program of a run, `steps_per_dispatch` included, with one batch that stays in
  the place of its feed. `inference` gives the logits of that batch, or its detections.

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
    return total + _scores(model.apply(variables, images, train=False))

  def many(total: jax.Array, variables: dict, images: jax.Array) -> jax.Array:
    if steps == 1:
      return one(total, variables, images)
    return jax.lax.fori_loop(0, steps, lambda _, total: one(total, variables, images), total)

  shared = programs.SHARED
  program = runtime.data_parallel(many, mesh, (shared, programs.WHOLE, shared), shared, donate=(0,))
  variables = programs.variables(config, model, mesh)
  shape = programs.image_shapes(config, mesh)
  scores = jax.eval_shape(lambda v, x: _scores(model.apply(v, x, train=False)), variables, shape)
  make_total = _sharded(mesh, lambda: jnp.zeros(scores.shape, jnp.float32))
  arguments = _shapes_of(make_total, mesh), variables, shape
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


def _scores(found: Any) -> jax.Array:
  """Returns logits, or a number for each detection that needs its score and its box."""
  return found['scores'] + found['boxes'].sum(-1) if isinstance(found, dict) else found


def _batch_maker(config: ConfigDict, mesh: Mesh) -> Callable[[], dict[str, Any]]:
  """Returns a function that makes a batch of images, and labels or objects, on the devices."""
  shape = programs.image_shapes(config, mesh).shape

  def make() -> dict[str, Any]:
    key = jax.random.key(config.seed)
    images = jax.random.normal(key, shape)
    if task_of(config) != CLASSIFICATION:
      return {'images': images, **_objects(key, shape, config)}
    labels = jax.random.randint(key, shape[:1], 0, config.model.num_classes)
    return {'images': images, 'labels': labels}

  return _sharded(mesh, make)


def _objects(key: jax.Array, shape: tuple[int, ...], config: ConfigDict) -> dict[str, Any]:
  """Returns sizes and targets of images of `shape`, as of `FasterRCNN`."""
  images, height, width, _ = shape
  most = config.data.max_boxes
  size = jnp.array([width, height], jnp.float32)
  begin, extent = jax.random.uniform(key, (2, images, most, 2))
  begin = 0.5 * begin * size
  labels = jax.random.randint(key, (images, most), 0, config.model.num_classes)
  targets = {
    'boxes': jnp.concatenate([begin, begin + (0.1 + 0.4 * extent) * size], -1),
    'classes': labels,
    'valid': jnp.broadcast_to(jnp.arange(most) < _OBJECTS, (images, most)),
    'crowd': jnp.zeros((images, most), bool),
  }
  sizes = jnp.broadcast_to(jnp.array([height, width], jnp.int32), (images, 2))
  return {'sizes': sizes, 'targets': targets}


def _sharded(mesh: Mesh, make: Callable) -> Callable:
  """Compiles `make` to compute its results where they belong, so that none is on a device twice."""
  return jax.jit(make, out_shardings=NamedSharding(mesh, programs.SHARED))


def _shapes_of(make: Callable, mesh: Mesh) -> Any:
  """Returns the shapes of what `make` computes, sharded over the devices."""
  return programs.placed(jax.eval_shape(make), mesh, programs.SHARED)


def gflops_per_image(config: ConfigDict, mode: str, model: nn.Module | None = None) -> float:
  """Returns the GFLOP of an image: two a multiply-add, and three times that in training.

  What a detector computes in training is counted, as there is no way back into what is frozen.
  """
  model = model or build_model(config)
  if task_of(config) != CLASSIFICATION:
    return 2 * _macs_of_detector(model, config, mode == 'train') / 1e9
  return 2 * _macs(model, input_size(config)) / 1e9 * (3 if mode == 'train' else 1)


def _macs_of_detector(model: nn.Module, config: ConfigDict, training: bool) -> int:
  shape = (1, *programs.image_sides(config), 3)
  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  variables = variable_shapes(config, model)
  if not training:
    return count_macs(lambda v, x: model.apply(v, x, train=False), variables, images)
  key = jax.random.key(0)

  def gradients(variables: dict, images: jax.Array):
    batch = {'images': images, **_objects(key, shape, config)}
    loss = functools.partial(detection.loss_fn, model=model, rngs={'sampling': key})
    return jax.grad(loss, has_aux=True)(variables['params'], variables['batch_stats'], batch)

  return count_macs(gradients, variables, images)


@functools.cache
def _macs(model: nn.Module, image_size: int) -> int:
  return complexity(model, image_size).macs
