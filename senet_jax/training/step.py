"""The training step: one device's gradients, one collective, one update."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn, struct
from jax.sharding import Mesh, PartitionSpec

from senet_jax import runtime
from senet_jax.data.feeds import TrainingFeed
from senet_jax.evaluation.evaluate import zero_metrics
from senet_jax.evaluation.metrics import Metrics, cross_entropy
from senet_jax.training.state import TrainState

_NEVER = jnp.iinfo(jnp.int32).max


class StepMetrics(struct.PyTreeNode):
  """What a run of steps reports.

  Attributes:
    metrics: summed over the examples of the steps.
    grad_norm: summed over the steps.
    steps: how many they were, float32.
    diverged_at: first step whose loss or gradient was not finite, int32; the largest if none.
  """

  metrics: Metrics
  grad_norm: jax.Array
  steps: jax.Array
  diverged_at: jax.Array

  @classmethod
  def zero(cls) -> 'StepMetrics':
    """Of no steps."""
    zero = jnp.zeros((), jnp.float32)
    return cls(zero_metrics(), zero, zero, jnp.full((), _NEVER, jnp.int32))

  def add(self, other: 'StepMetrics') -> 'StepMetrics':
    """Of both."""
    total = jax.tree.map(jnp.add, self, other)
    return total.replace(diverged_at=jnp.minimum(self.diverged_at, other.diverged_at))

  def first_bad_step(self) -> int | None:
    """The step at which the run diverged, None if it did not; waits for the device."""
    step = int(self.diverged_at)
    return None if step == _NEVER else step

  def report(self) -> dict[str, float]:
    """Averages as Python numbers, errors in percent; waits for the device."""
    here = jax.device_get(self)
    return {**here.metrics.report(), 'grad_norm': float(here.grad_norm / here.steps)}


@dataclasses.dataclass(frozen=True)
class StepOptions:
  """Options of the step that are fixed at compile time.

  Attributes:
    label_smoothing: of the targets.
    accumulate: micro-batches that the device's share of a batch is cut into.
    ema_decay: of the averaged variables; 0: none.
    frozen_bn: the network keeps its running statistics.
    unroll: write accumulation out instead of looping; on CPU XLA runs convolutions in loops 20-34
      times slower.
  """

  label_smoothing: float = 0.0
  accumulate: int = 1
  ema_decay: float = 0.0
  frozen_bn: bool = False
  unroll: bool = False


def loss_fn(params, batch_stats, batch, *, model: nn.Module, label_smoothing: float):
  """Mean loss of a batch in training mode.

  Args:
    params: of the network.
    batch_stats: running statistics before the batch.
    batch: `images` `[N, H, W, 3]` float32, `labels` `[N]` int32.
    model: the network.
    label_smoothing: of the targets.

  Returns:
    The loss, float32, and `(batch_stats, metrics)` after the batch.
  """
  variables = {'params': params, 'batch_stats': batch_stats}
  logits, new = model.apply(variables, batch['images'], train=True, mutable=['batch_stats'])
  loss = cross_entropy(logits, batch['labels'], label_smoothing)
  return loss.mean(), (new['batch_stats'], Metrics.of_batch(loss, logits, batch))


def gradients(state: TrainState, batch, *, model: nn.Module, options: StepOptions):
  """Gradients, running statistics and metrics of this device's images; no collective.

  With accumulation the images are taken in equal micro-batches, one after the other: the gradients
  are averaged, and BN normalises each micro-batch by itself.
  """

  def one(batch_stats, micro_batch):
    grad = jax.value_and_grad(loss_fn, has_aux=True)
    smoothing = options.label_smoothing
    (_, (batch_stats, metrics)), grads = grad(
      state.params, batch_stats, micro_batch, model=model, label_smoothing=smoothing
    )
    return grads, batch_stats, metrics

  k = options.accumulate
  if k == 1:
    return one(state.batch_stats, batch)
  micro_batches = jax.tree.map(lambda x: x.reshape(k, x.shape[0] // k, *x.shape[1:]), batch)
  sums = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats, zero_metrics())

  def body(sums, micro_batch):
    grads, batch_stats, metrics = one(sums[1], micro_batch)
    grads, metrics = jax.tree.map(jnp.add, (sums[0], sums[2]), (grads, metrics))
    return (grads, batch_stats, metrics), None

  (grads, batch_stats, metrics), _ = jax.lax.scan(body, sums, micro_batches, unroll=options.unroll)
  return jax.tree.map(lambda g: g / k, grads), batch_stats, metrics


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  options: StepOptions,
) -> tuple[TrainState, StepMetrics]:
  """One step of data-parallel training; runs on each device of `runtime.DATA_AXIS`.

  Args:
    state: before the step, the same on every device.
    batch: this device's share: `images` `[N, H, W, 3]` float32, `labels` `[N]` int32.
    model: the network.
    optimizer: of the parameters.
    options: see there.

  Returns:
    The state after the step and the metrics of the whole batch, the same on every device.
  """
  local = gradients(state, batch, model=model, options=options)
  grads, batch_stats, metrics = runtime.sum_over_devices(local)
  devices = jax.lax.axis_size(runtime.DATA_AXIS)
  grads, batch_stats = jax.tree.map(lambda x: x / devices, (grads, batch_stats))
  if options.frozen_bn:  # equal on all devices, but their mean need not be, in the last bit
    batch_stats = state.batch_stats

  updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
  updates = jax.tree.map(lambda u: u * state.scale, updates)
  params = optax.apply_updates(state.params, updates)
  ema = state.ema
  if ema is not None:
    new = {'params': params, 'batch_stats': batch_stats}
    ema = optax.incremental_update(new, ema, 1 - options.ema_decay)

  grad_norm = optax.tree.norm(grads)
  # The new variables too: they are what the next checkpoint keeps.
  sizes = (metrics.loss.total, grad_norm, optax.tree.norm(updates), optax.tree.norm(batch_stats))
  finite = jnp.isfinite(jnp.stack(sizes)).all()
  diverged_at = jnp.where(finite, _NEVER, state.step + 1).astype(jnp.int32)
  report = StepMetrics(metrics, grad_norm, jnp.ones((), jnp.float32), diverged_at)
  state = state.replace(
    step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, ema=ema
  )
  return state, report


def train_program(step: Callable, feed: TrainingFeed, mesh: Mesh, *, looped: bool) -> Callable:
  """Compiles `(state, inputs, steps) -> (state, metrics)`; the state's memory is donated.

  Args:
    step: `train_step` with its options bound.
    feed: gives the batches, inside the program.
    mesh: the devices.
    looped: run `steps` steps in one dispatch; otherwise `steps` must be 1. The two kinds of
      program differ in the last bits.
  """

  def one(state: TrainState, inputs) -> tuple[TrainState, StepMetrics]:
    return step(state, feed.batch(inputs, state.step))

  def many(state: TrainState, inputs, steps: jax.Array) -> tuple[TrainState, StepMetrics]:
    def body(_, carry):
      state, report = one(carry[0], inputs)
      return state, carry[1].add(report)

    return jax.lax.fori_loop(0, steps, body, (state, StepMetrics.zero()))

  def single(state: TrainState, inputs, steps: jax.Array) -> tuple[TrainState, StepMetrics]:
    del steps
    return one(state, inputs)

  whole = PartitionSpec()
  return runtime.data_parallel(
    many if looped else single, mesh, (whole, feed.input_spec, whole), whole, donate=(0,)
  )
