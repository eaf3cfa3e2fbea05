"""Random keys: no two streams of a run meet; a run begun before keeps its keys and its averages."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from senet_jax.runtime import keys
from senet_jax.training import step as step_lib
from senet_jax.training.loop import train
from senet_jax.training.step import StepOptions
from senet_jax.workdir import run_progress, saved
from tests.helpers import paths
from tests.helpers.small_run import small

SEED = 3


def all_keys(make, first: int, second: int) -> set[tuple[int, int]]:
  """The keys that `make` gives for numbers below `first` and `second`."""
  grid = jnp.meshgrid(jnp.arange(first), jnp.arange(second), indexing='ij')
  found = jax.jit(jax.vmap(make))(*(x.ravel() for x in grid))
  return set(map(tuple, np.asarray(jax.random.key_data(found)).tolist()))


def streams(rules: int) -> list[set[tuple[int, int]]]:
  options = StepOptions(seed=SEED, rules=rules)
  order = keys.stream(SEED, 'order')
  return [
    all_keys(functools.partial(keys.of_example, SEED), 40, 1500),
    all_keys(functools.partial(step_lib.network_key, options), 1000, 64),
    all_keys(lambda epoch, _: jax.random.fold_in(order, epoch), 1000, 1),
  ]


def test_no_two_streams_meet():
  found = streams(run_progress.RULES)
  assert [len(keys) for keys in found] == [60_000, 64_000, 1000]
  assert len(set.union(*found)) == 125_000


def test_those_of_runs_begun_before_did():
  augmentation, network, _ = streams(1)
  # Epoch and example, or step and device.
  assert len(augmentation & network) == 40 * 64
  expected = jax.random.fold_in(jax.random.fold_in(jax.random.key(SEED), 7), 2)
  assert tuple(jax.random.key_data(expected).tolist()) in network


def test_the_decay_of_averages_rises():
  """Against the law, in numbers: a step after the other, with NumPy."""
  options = StepOptions(ema_decay=0.9)
  values, average, expected = np.linspace(1, 5, 200), 0.0, 0.0
  for step, value in enumerate(values):
    decay = float(step_lib.ema_decay(options, jnp.int32(step)))
    average = decay * average + (1 - decay) * value
    law = min(0.9, (1 + step) / (10 + step))
    expected = law * expected + (1 - law) * value
  assert average == pytest.approx(expected, rel=1e-6)
  assert step_lib.ema_decay(StepOptions(ema_decay=0.9, rules=1), jnp.int32(0)) == 0.9


def test_a_short_run_with_averages_is_not_at_chance(tmp_path):
  fields = {'data__fake': False, 'data__train_split': 'train', 'data__eval_split': 'test'}
  config = small(steps=60, optimizer__ema_decay=0.9999, eval__every_epochs=10.0, **fields)
  assert train(config, tmp_path)
  final = json.loads((tmp_path / 'summary.json').read_text())['final']
  assert final['top1_error'] < 60  # 90 is chance


def test_a_run_keeps_the_rules_that_it_began_with(tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(paths.TESTS / 'fixtures' / 'old_workdir', workdir)
  config = saved.read_config(workdir)
  config.epochs, config.steps = 2.0, 46
  made = []

  def create(*args, rules, **options):
    made.append(rules)
    return original(*args, rules=rules, **options)

  original = StepOptions.create
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(StepOptions, 'create', create)
    assert train(config, workdir)
  assert set(made) == {1}
  assert 'began with averages of a constant decay and keeps that' in capsys.readouterr().out
  host = json.loads((workdir / 'checkpoints/46/host/metadata').read_text())
  assert host['rules'] == 1
  found = run_progress.RunProgress.from_json(host)
  assert found.rules == 1
  with pytest.raises(ValueError, match='rules is 3, which this version does not know'):
    run_progress.RunProgress.from_json({**host, 'rules': run_progress.RULES + 1})
