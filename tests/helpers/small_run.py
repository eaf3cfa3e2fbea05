"""A small run for the tests of runs, and its interruption."""

import json
import os
import signal
import time

import jax

from senet_jax import config as config_lib
from senet_jax.data.device_feed import DeviceFeed
from senet_jax.runtime import coordination
from senet_jax.training import run

# Where JAX's runtime lets each process say how far it is, once word of a preemption has come to it;
# none takes a step then before they know where all stop.
_TOLD = 'PREEMPTION_CURRENT_COUNTER'

# One small program for all runs: 8 steps an epoch, 20 steps in all.
SMALL = {
  'model.name': 'se_resnet20_cifar',
  'model.width': 8,
  'model.depths': (1, 1, 1),
  'model.se.ratio': 4,
  'data.name': 'digits',
  'data.fake': True,
  'data.train_split': 'train[:512]',
  'data.eval_split': 'test[:128]',
  'data.pad': 1,
  'batch_size': 64,
  'steps': 20,
  'schedule.name': 'constant',
  'optimizer.learning_rate': 0.05,
  'checkpoint.every_steps': 5,
  'checkpoint.keep': 10,
  'log.every_steps': 4,
  'log.tensorboard': False,
}


def configured(values, **fields):
  """The defaults with `values` by field, and then with those of `fields`: `model__width=8`."""
  config = config_lib.default()
  config.update_from_flattened_dict(values)
  config.update_from_flattened_dict({k.replace('__', '.'): v for k, v in fields.items()})
  return config


def small(**fields):
  return configured(SMALL, **fields)


def summary(workdir) -> dict:
  """What a run says of itself at its end."""
  return json.loads((workdir / 'summary.json').read_text())


def programs_by_step(monkeypatch) -> list[tuple[int, int]]:
  """Returns a list that grows: steps taken, and how many programs were compiled by then."""
  compiled, at_step = [], []
  compile_, train_until = jax.stages.Lowered.compile, run.Run.train_until
  monkeypatch.setattr(
    jax.stages.Lowered, 'compile', lambda self, *a: compiled.append(0) or compile_(self, *a)
  )

  def counting(self, stop):
    went_on = train_until(self, stop)
    at_step.append((self.step, len(compiled)))
    return went_on

  monkeypatch.setattr(run.Run, 'train_until', counting)
  return at_step


def kill_at(monkeypatch, step: int, signal_number=signal.SIGTERM, feed=DeviceFeed):
  """Sends a signal to this process when the run asks its feed for the inputs of `step`.

  Of several processes none takes another step before all have word of it.
  """
  inputs = feed.inputs

  def killing(self, first, limit):
    if first == step:
      os.kill(os.getpid(), signal_number)
      while coordination.connected() and not _all_know():
        time.sleep(0.05)
    return inputs(self, first, limit)

  monkeypatch.setattr(feed, 'inputs', killing)


def _all_know() -> bool:
  return len(coordination.values_under(_TOLD)) == coordination.process_count()
