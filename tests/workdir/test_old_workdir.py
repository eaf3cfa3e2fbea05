"""A workdir of an earlier version: it resumes, evaluates and predicts, and names stay as they were.

`fixtures/old_workdir` is what commit 2ec5485 left on eight CPU devices after two epochs of digits,
with averaged weights and a plateau schedule, so that every part of the state is there:

  python -m senet_jax.main --config=configs/digits_se_r20.py --config.epochs=2
    --config.model.depths='(1,1,1)' --config.model.width=8 --config.model.se.ratio=4
    --config.schedule.name=plateau --config.schedule.warmup=0 --config.optimizer.ema_decay=0.9
    --config.eval.every_epochs=1 --config.checkpoint.keep=1 --config.log.every_steps=20
    --config.log.tensorboard=False

The numbers expected here are those of that commit.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits

import senet_jax
from senet_jax.tools import evaluate as evaluate_tool
from senet_jax.training.loop import train
from senet_jax.workdir import saved
from senet_jax.workdir.records import read_records
from tests.helpers import paths
from tests.helpers.small_run import small

OLD = paths.TESTS / 'fixtures' / 'old_workdir'
# Of the class that the network of then gave to each of the first ten digits.
CLASSES = [0, 1, 1, 3, 4, 3, 6, 7, 8, 9]
PROBABILITIES = [0.9933, 0.9540, 0.2748, 0.2492, 0.7055, 0.2180, 0.3761, 0.7761, 0.2601, 0.2254]


def keys(value) -> dict | None:
  """The names in nested JSON, without what they stand for."""
  return {k: keys(v) for k, v in value.items()} if isinstance(value, dict) else None


def host_of(workdir: pathlib.Path, step: int) -> dict:
  return json.loads((workdir / f'checkpoints/{step}/host/metadata').read_text())


def items_of(workdir: pathlib.Path, step: int) -> set[str]:
  return {path.name for path in (workdir / f'checkpoints/{step}').iterdir()}


def test_it_resumes(tmp_path, capsys):
  workdir = tmp_path / 'run'
  shutil.copytree(OLD, workdir)
  config = saved.read_config(workdir)
  config.epochs = 3.0
  assert train(config, workdir)
  assert 'resumed from step 45 of 68' in capsys.readouterr().out
  found = json.loads((workdir / 'summary.json').read_text())
  # Other CPUs and compiler flags differ in the last bits, which 23 steps blow up.
  assert found['final']['loss'] == pytest.approx(0.7297, abs=0.05)
  assert found['final']['top1_error'] == pytest.approx(22.22, abs=4)
  assert found['steps'] == 68 and found['examples_seen'] == 68 * 64
  evaluated = [r['step'] for r in read_records(workdir / 'metrics.jsonl') if r['kind'] == 'eval']
  assert evaluated == [23, 45, 68]


def test_it_evaluates(tmp_path):
  output = tmp_path / 'e.json'
  evaluate_tool.main([f'--workdir={OLD}', f'--output={output}'])
  row = json.loads(output.read_text())
  final = json.loads((OLD / 'summary.json').read_text())['final']
  assert row['step'] == 45 and row['loss'] == pytest.approx(final['loss'], rel=1e-3)
  assert row['top1_error'] == pytest.approx(final['top1_error'], abs=0.3)  # one image of 360


def test_it_predicts():
  predictor = senet_jax.load(OLD)
  images = (load_digits().images[:10] * 15.9).astype(np.uint8)[..., None]
  probabilities = predictor.probabilities(images)
  assert predictor.step == 45 and predictor.class_names == tuple('0123456789')
  assert probabilities.argmax(-1).tolist() == CLASSES
  np.testing.assert_allclose(probabilities.max(-1), PROBABILITIES, atol=2e-3)


def test_names_on_disk_are_those_of_then(tmp_path):
  config = small(steps=2, data__fake=False, schedule__name='plateau', optimizer__ema_decay=0.9)
  assert train(config, tmp_path)
  assert items_of(tmp_path, 2) == items_of(OLD, 45)
  new, old = host_of(tmp_path, 2), host_of(OLD, 45)
  for host in (new, old):
    del host['identity']  # the configuration, which has tests of its own
  # Those that came later need not be there.
  for name in ('host_checksum', 'metrics', 'orbax'):
    del new[name]
  assert new.pop('rules') == 2 and 'rules' not in old
  assert keys(new) == keys(old)
  for name in ('summary.json', 'classes.json'):
    new, old = (json.loads((workdir / name).read_text()) for workdir in (tmp_path, OLD))
    assert keys(new) == keys(old), name
  new, old = (
    {r['kind']: list(r) for r in read_records(workdir / 'metrics.jsonl')}
    for workdir in (tmp_path, OLD)
  )
  assert new == old
