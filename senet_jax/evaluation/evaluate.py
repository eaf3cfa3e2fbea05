"""Evaluation of a network on a split: every example once, on any number of devices."""

import math
from collections.abc import Callable
from typing import Any, overload

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec

from senet_jax import runtime
from senet_jax.data.feeds import EvaluationFeed
from senet_jax.errors import UserError
from senet_jax.evaluation import outcomes
from senet_jax.evaluation.ensemble import Ensemble
from senet_jax.evaluation.metrics import Metrics, cross_entropy
from senet_jax.evaluation.outcomes import Outcomes


def eval_step(
  variables: dict | tuple[dict, ...], batch: dict[str, Any], *, model: nn.Module | Ensemble
) -> tuple[Metrics, jax.Array]:
  """Returns metrics and logits `[N, K]` of one device's share of a batch.

  Args:
    variables: `params` and `batch_stats`; of each network for an ensemble.
    batch: `images` `[N, H, W, 3]` or what the ensemble takes, `labels` `[N]`, `mask` `[N]`.
    model: the network.
  """
  apply: Callable[..., Any] = model.apply
  logits = apply(variables, batch['images'], train=False)
  return Metrics.of_batch(cross_entropy(logits, batch['labels']), logits, batch), logits


def eval_program(
  model: nn.Module | Ensemble,
  feed: EvaluationFeed,
  mesh: Mesh,
  *,
  deterministic: bool = False,
  each: bool = False,
) -> jax.stages.Wrapped:
  """Compiles `(totals, variables, inputs) -> totals`, which adds one batch of all devices.

  Args:
    model: the network.
    feed: the data.
    mesh: the devices.
    deterministic: that of `runtime.data_parallel`.
    each: the result is `(totals, outcomes)`, with the outcome of each image of the batch.
  """

  def add_batch(totals: Metrics, variables: dict, inputs: dict):
    batch = feed.batch(inputs)
    metrics, logits = eval_step(variables, batch, model=model)
    metrics = jax.lax.psum(metrics, runtime.DATA_AXIS)
    totals = jax.tree.map(jnp.add, totals, metrics)
    return (totals, outcomes.of_batch(logits, batch)) if each else totals

  whole = PartitionSpec()
  specs = whole, whole, feed.input_spec
  results = (whole, PartitionSpec(runtime.DATA_AXIS)) if each else whole
  return runtime.data_parallel(add_batch, mesh, specs, results, deterministic=deterministic)


@overload
def evaluate(
  program: Callable, variables: dict | tuple[dict, ...], feed: EvaluationFeed
) -> dict[str, float]: ...


@overload
def evaluate(
  program: Callable,
  variables: dict | tuple[dict, ...],
  feed: EvaluationFeed,
  interrupted: Callable[[], bool],
) -> dict[str, float] | None: ...


def evaluate(
  program: Callable,
  variables: dict | tuple[dict, ...],
  feed: EvaluationFeed,
  interrupted: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Returns loss and errors in percent over the whole split.

  Args:
    program: from `eval_program`.
    variables: `params` and `batch_stats`.
    feed: the data.
    interrupted: asked before each batch; if it says yes, the evaluation is given up.

  Returns:
    `loss`, `top1_error`, `top3_error`, `top5_error`, or None if it was given up.

  Raises:
    UserError: no image could be read.
  """
  totals = zero_metrics()
  for step in range(len(feed)):
    if interrupted():
      return None
    previous = totals
    totals = program(previous, variables, feed.inputs(step))
    # At most two batches in flight: an interruption never waits for the whole split.
    jax.block_until_ready(previous)
  if not float(totals.loss.count):
    raise UserError(
      'none of the images to evaluate on could be read; change the data or the split.'
    )
  return totals.report()


def evaluate_each(
  model: nn.Module | Ensemble, variables: dict | tuple[dict, ...], feed: EvaluationFeed, mesh: Mesh
) -> tuple[dict[str, float], Outcomes]:
  """Returns what `evaluate` does, and the outcome of each image; for one process.

  Raises:
    UserError: no image could be read, or the loss is no finite number.
  """
  compiled = eval_program(model, feed, mesh, each=True)
  batches = []

  def program(totals: Metrics, variables: dict, inputs: dict) -> Metrics:
    totals, batch = compiled(totals, variables, inputs)
    batches.append(batch)
    return totals

  results = evaluate(program, variables, feed)
  if not math.isfinite(results['loss']):
    raise UserError(f'the loss is {results["loss"]}: no numbers come out; use another checkpoint.')
  return results, Outcomes.joined(jax.device_get(batches))


def zero_metrics() -> Metrics:
  """Returns the metrics of no examples."""
  return jax.tree.map(lambda x: jnp.zeros((), jnp.float32), Metrics.empty())
