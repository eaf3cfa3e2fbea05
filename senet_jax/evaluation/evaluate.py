"""Evaluation of a network on a split: every example once, on any number of devices."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from senet_jax import runtime
from senet_jax.data.feeds import EvaluationFeed
from senet_jax.evaluation.metrics import Metrics, cross_entropy


def eval_step(variables: dict, batch: dict[str, jax.Array], *, model: nn.Module) -> Metrics:
  """Metrics of one device's share of a batch.

  Args:
    variables: `params` and `batch_stats`.
    batch: `images` `[N, H, W, 3]`, `labels` `[N]`, `mask` `[N]`.
    model: the network.
  """
  logits = model.apply(variables, batch['images'], train=False)
  return Metrics.of_batch(cross_entropy(logits, batch['labels']), logits, batch)


def eval_program(
  model: nn.Module, feed: EvaluationFeed, mesh: Mesh, *, deterministic: bool = False
) -> Callable:
  """Compiles `(totals, variables, inputs) -> totals`, which adds one batch of all devices.

  `deterministic` is that of `runtime.data_parallel`.
  """

  def add_batch(totals: Metrics, variables: dict, inputs: dict) -> Metrics:
    metrics = eval_step(variables, feed.batch(inputs), model=model)
    metrics = jax.lax.psum(metrics, runtime.DATA_AXIS)
    return jax.tree.map(jnp.add, totals, metrics)

  whole = PartitionSpec()
  specs = whole, whole, feed.input_spec
  return runtime.data_parallel(add_batch, mesh, specs, whole, deterministic=deterministic)


def evaluate(
  program: Callable,
  variables: dict,
  feed: EvaluationFeed,
  interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Loss and errors in percent over the whole split.

  Args:
    program: from `eval_program`.
    variables: `params` and `batch_stats`.
    feed: the data.
    interrupted: asked before each batch; if it says yes, the evaluation is given up.

  Returns:
    `loss`, `top1_error`, `top3_error`, `top5_error`, or None if it was given up.
  """
  totals = zero_metrics()
  for step in range(len(feed)):
    if interrupted():
      return None
    previous = totals
    totals = program(previous, variables, feed.inputs(step))
    # At most two batches in flight: an interruption never waits for the whole split.
    jax.block_until_ready(previous)
  return totals.report()


def zero_metrics() -> Metrics:
  """Metrics of no examples."""
  return jax.tree.map(lambda x: jnp.zeros((), jnp.float32), Metrics.empty())
