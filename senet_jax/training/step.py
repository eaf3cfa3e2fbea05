"""The training step: one device's gradients, one collective, one update."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn, struct
from jax.sharding import Mesh, PartitionSpec
from ml_collections import ConfigDict

from senet_jax import runtime
from senet_jax.runtime import keys
from senet_jax.training.task import Task
from senet_jax.workdir import network
from senet_jax.workdir.network import replaced, trained
from senet_jax.workdir.run_progress import RULES
from senet_jax.workdir.state import TrainState

_NEVER = jnp.iinfo(jnp.int32).max
# Flax's collections of keys that networks draw from.
_RANDOM, _SHARED = ('dropout', 'shake'), ('drop_path', 'sampling')


class StepMetrics(struct.PyTreeNode):
  """The report of several steps.

  Attributes:
    metrics: of the task, summed over the examples of the steps.
    grad_norm: summed over the steps.
    steps: how many they were, float32.
    diverged_at: first step whose loss or gradient was not finite, int32; the largest if none.
  """

  metrics: Any
  grad_norm: jax.Array
  steps: jax.Array
  diverged_at: jax.Array

  @classmethod
  def zero(cls, metrics: Any) -> 'StepMetrics':
    """Returns the report of no steps, given the task's metrics of no examples."""
    zero = jnp.zeros((), jnp.float32)
    return cls(metrics, zero, zero, jnp.full((), _NEVER, jnp.int32))

  def add(self, other: 'StepMetrics') -> 'StepMetrics':
    """Returns the report of the steps of both."""
    total = jax.tree.map(jnp.add, self, other)
    return total.replace(diverged_at=jnp.minimum(self.diverged_at, other.diverged_at))

  def first_bad_step(self) -> int | None:
    """Returns the step at which the run diverged, None if it did not; waits for the device."""
    step = int(self.diverged_at)
    return None if step == _NEVER else step

  def report(self) -> dict[str, float]:
    """Returns averages as Python numbers; waits for the device."""
    here = jax.device_get(self)
    return {**here.metrics.report(), 'grad_norm': float(here.grad_norm / here.steps)}


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """Options of the step that are fixed at compile time.

  Attributes:
    accumulate: micro-batches that the device's share of a batch is cut into.
    ema_decay: of the averaged variables at last, see `ema_decay`; 0: none.
    seed: of dropout and of what else is random inside the network.
    rules: see `workdir.run_progress.RULES`.
    frozen: beginnings of the paths of the variables that stay as they are, see `network.frozen`;
      the network's `BatchNormConfig.frozen` has those of `config.optimizer.frozen` too.
    frozen_bn: all modules keep their running statistics.
    unroll: write accumulation out instead of looping; on CPU XLA runs convolutions in loops 20-34
      times slower.
  """

  accumulate: int = 1
  ema_decay: float = 0.0
  seed: int = 0
  rules: int = RULES
  frozen: tuple[str, ...] = ()
  frozen_bn: bool = False
  unroll: bool = False

  @classmethod
  def create(
    cls,
    config: ConfigDict,
    model: nn.Module,
    mesh: Mesh,
    *,
    frozen_bn: bool = False,
    rules: int = RULES,
  ) -> 'StepOptions':
    """Returns the options of a run."""
    return cls(
      accumulate=config.optimizer.accumulate,
      ema_decay=config.optimizer.ema_decay,
      seed=config.seed,
      rules=rules,
      frozen=network.frozen(config, model),
      frozen_bn=frozen_bn,
      unroll=mesh.devices.flat[0].platform == 'cpu',
    )


def network_key(options: StepOptions, step: jax.Array, device: jax.Array) -> jax.Array:
  """Returns the key of what a network draws in the step after `step` on a device."""
  of_seed = jax.random.key(options.seed)
  base = of_seed if options.rules == 1 else keys.stream(options.seed, 'network')
  return jax.random.fold_in(jax.random.fold_in(base, step), device)


def shared_keys(options: StepOptions, step: jax.Array) -> dict[str, jax.Array]:
  """Returns the keys of the step after `step` that all devices share, by Flax's collections.

  What is drawn from them belongs to an image by its place in the whole batch: the units that it
  skips, and the boxes that are in a detector's loss.
  """
  return {name: jax.random.fold_in(keys.stream(options.seed, name), step) for name in _SHARED}


def ema_decay(options: StepOptions, step: jax.Array) -> jax.Array | float:
  """Returns the decay of the averages in the step after `step`.

  It rises to `options.ema_decay` as that of TensorFlow's `ExponentialMovingAverage`,
  `(1 + step) / (10 + step)`, or a run of fewer steps than an average reaches back would be judged
  by its first weights.
  """
  if options.rules == 1:
    return options.ema_decay
  return jnp.minimum(options.ema_decay, (1 + step) / (10 + step))


def gradients(state: TrainState, batch, *, task: Task, model: nn.Module, options: StepOptions):
  """Returns gradients, running statistics and metrics of this device's images; no collective.

  The gradients are those of the trained modules; the backward pass of what lies in front of all of
  them is not even built.

  With accumulation the images are taken in equal micro-batches, one after the other: the gradients
  are averaged, and BN normalises each micro-batch by itself.
  """
  params = trained(state.params, options.frozen)
  key = network_key(options, state.step, jax.lax.axis_index(runtime.DATA_AXIS))
  shared = shared_keys(options, state.step)

  def loss(params, batch_stats, micro_batch, key, shared):
    rngs = dict(zip(_RANDOM, jax.random.split(key, len(_RANDOM)), strict=True))
    params = replaced(state.params, params)
    rngs |= shared
    return task.loss(params, batch_stats, micro_batch, model=model, rngs=rngs)

  def one(batch_stats, micro_batch, key, shared):
    grad = jax.value_and_grad(loss, has_aux=True)
    (_, (batch_stats, metrics)), grads = grad(params, batch_stats, micro_batch, key, shared)
    return grads, batch_stats, metrics

  k = options.accumulate
  if k == 1:
    return one(state.batch_stats, batch, key, shared)
  micro_batches = jax.tree.map(lambda x: x.reshape(k, x.shape[0] // k, *x.shape[1:]), batch)
  sums = (jax.tree.map(jnp.zeros_like, params), state.batch_stats, task.zero_metrics())

  def body(sums, given):
    grads, batch_stats, metrics = one(sums[1], *given)
    grads, metrics = jax.tree.map(jnp.add, (sums[0], sums[2]), (grads, metrics))
    return (grads, batch_stats, metrics), None

  each = {name: jax.random.split(of_all, k) for name, of_all in shared.items()}
  given = (micro_batches, jax.random.split(key, k), each)
  (grads, batch_stats, metrics), _ = jax.lax.scan(body, sums, given, unroll=options.unroll)
  return jax.tree.map(lambda g: g / k, grads), batch_stats, metrics


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  task: Task,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  options: StepOptions,
) -> tuple[TrainState, StepMetrics]:
  """Takes a step of data-parallel training; runs on each device of `runtime.DATA_AXIS`.

  Args:
    state: before the step, the same on every device.
    batch: this device's share, as the training feed makes it.
    task: has the loss.
    model: the network.
    optimizer: of the parameters.
    options: see there.

  Returns:
    The state after the step and the metrics of the whole batch, the same on every device.
  """
  grads, batch_stats, metrics = gradients(state, batch, task=task, model=model, options=options)
  local = grads, trained(batch_stats, options.frozen), metrics
  grads, batch_stats, metrics = runtime.sum_over_devices(local)
  devices = jax.lax.axis_size(runtime.DATA_AXIS)
  grads, batch_stats = jax.tree.map(lambda x: x / devices, (grads, batch_stats))
  batch_stats = replaced(state.batch_stats, batch_stats)
  if options.frozen_bn:  # equal on all devices, but their mean need not be, in the last bit
    batch_stats = state.batch_stats

  with jax.named_scope('optimizer'):
    params = trained(state.params, options.frozen)
    updates, opt_state = optimizer.update(grads, state.opt_state, params)
    updates = jax.tree.map(lambda u: u * state.scale, updates)
    params = replaced(state.params, optax.apply_updates(params, updates))
    ema = state.ema
    if ema is not None:
      new = {'params': params, 'batch_stats': batch_stats}
      new = optax.incremental_update(new, ema, 1 - ema_decay(options, state.step))
      # What is frozen is its own average, but computed it would not be, in the last bit.
      ema = {kind: replaced(ema[kind], trained(new[kind], options.frozen)) for kind in ema}

    grad_norm = optax.tree.norm(grads)
    # The new variables too: they are what the next checkpoint keeps. Of the updates the biases
    # are enough beside the gradients; to read all once more costs 1.1 of 49 GB in a step of
    # SE-ResNet-50.
    biases = [update for update in jax.tree.leaves(updates) if update.ndim < 2]
    norms = (grad_norm, optax.tree.norm(biases), optax.tree.norm(batch_stats))
    sizes = (*jax.tree.leaves(metrics), *norms)
    finite = jnp.isfinite(jnp.stack(sizes)).all()
    diverged_at = jnp.where(finite, _NEVER, state.step + 1).astype(jnp.int32)
  report = StepMetrics(metrics, grad_norm, jnp.ones((), jnp.float32), diverged_at)
  state = state.replace(
    step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema
  )
  return state, report


def training_program(
  task: Task,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  feed,
  mesh: Mesh,
  *,
  looped: bool,
  frozen_bn: bool = False,
  rules: int = RULES,
) -> jax.stages.Wrapped:
  """Returns the `train_program` of a task.

  Args:
    task: and in it the configuration.
    model: its network.
    optimizer: of the parameters.
    feed: gives the batches, inside the program.
    mesh: the devices.
    looped: see `train_program`.
    frozen_bn: see `StepOptions`.
    rules: see `workdir.run_progress.RULES`.
  """
  step = functools.partial(
    train_step,
    task=task,
    model=model,
    optimizer=optimizer,
    options=StepOptions.create(task.config, model, mesh, frozen_bn=frozen_bn, rules=rules),
  )
  deterministic = task.config.deterministic
  zero = task.zero_metrics
  return train_program(step, feed, mesh, zero, looped=looped, deterministic=deterministic)


def train_program(
  step: Callable,
  feed,
  mesh: Mesh,
  zero_metrics: Callable[[], Any],
  *,
  looped: bool,
  deterministic: bool = False,
) -> jax.stages.Wrapped:
  """Compiles `(state, inputs, steps) -> (state, metrics)`; the state's memory is donated.

  Args:
    step: `train_step` with its options bound.
    feed: gives the batches, inside the program.
    mesh: the devices.
    zero_metrics: of the task.
    looped: run `steps` steps in one dispatch; otherwise `steps` must be 1. The two kinds of
      program differ in the last bits.
    deterministic: see `runtime.data_parallel`.
  """

  def one(state: TrainState, inputs) -> tuple[TrainState, StepMetrics]:
    with jax.named_scope('input'):
      batch = feed.batch(inputs, state.step)
    return step(state, batch)

  def many(state: TrainState, inputs, steps: jax.Array) -> tuple[TrainState, StepMetrics]:
    def body(_, carry):
      state, report = one(carry[0], inputs)
      return state, carry[1].add(report)

    return jax.lax.fori_loop(0, steps, body, (state, StepMetrics.zero(zero_metrics())))

  def single(state: TrainState, inputs, steps: jax.Array) -> tuple[TrainState, StepMetrics]:
    del steps
    return one(state, inputs)

  whole = PartitionSpec()
  return runtime.data_parallel(
    many if looped else single,
    mesh,
    (whole, feed.input_spec, whole),
    whole,
    donate=(0,),
    deterministic=deterministic,
  )
