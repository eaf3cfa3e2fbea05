"""A second task through the same loop, and which evaluation counts as the best."""

import json

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from jax.sharding import PartitionSpec

from senet_jax import runtime
from senet_jax.training import classification, patience
from senet_jax.training.classification import Classification
from senet_jax.training.loop import train
from senet_jax.training.task import Task
from senet_jax.workdir import network, saved
from senet_jax.workdir.objective import TOP1, Objective
from senet_jax.workdir.records import read_records
from senet_jax.workdir.run_progress import RunProgress
from tests.helpers.small_run import kill_at, small


class Squares(struct.PyTreeNode):
  """Squared errors of predictions: their sum and count."""

  total: jax.Array
  count: jax.Array

  @classmethod
  def of_batch(cls, predictions, batch):
    errors = (predictions[:, 0] - batch['images'].mean((1, 2, 3))) ** 2
    mask = batch.get('mask', jnp.ones_like(errors))
    return cls((errors * mask).sum(), mask.sum())

  def report(self):
    loss = float(self.total / self.count)
    return {'loss': loss, 'score': 1 / (1 + loss)}


class Brightness(Task):
  """Regression of the mean of an image; the highest score is the best."""

  objective = Objective('score', 'max')
  headline_metric = 'score'
  higher_is_better = frozenset({'score'})
  scripted = ()  # scores of the evaluations, one after the other, instead of the real ones

  def check(self):
    pass

  def open(self, mesh):
    return Classification(self.config).open(mesh)

  def build_model(self, feeds, *, frozen_bn=False):
    return network.build_model(self.config, 1, frozen_bn=frozen_bn)

  def loss(self, params, batch_stats, batch, *, model, rngs):
    variables = {'params': params, 'batch_stats': batch_stats}
    predictions, new = model.apply(
      variables, batch['images'], train=True, mutable=['batch_stats'], rngs=rngs
    )
    squares = Squares.of_batch(predictions, batch)
    return squares.total / squares.count, (new['batch_stats'], squares)

  def zero_metrics(self):
    return Squares(jnp.zeros(()), jnp.zeros(()))

  def evaluator(self, model, feeds):
    return BrightnessEvaluator(self, model, feeds)

  def describe(self, record):
    return f'loss {record["loss"]:.4f}'

  def headline(self, results):
    return f'{results["score"]:.3f}'

  def plot(self, records, path, title):
    path.write_text(title)

  def leave(self, workdir, feeds):
    saved.write_classes(workdir, 1, None)


class BrightnessEvaluator:
  def __init__(self, task, model, feeds):
    self.task, self.feed, self.scripted = task, feeds.eval, list(task.scripted)

    def add(totals, variables, inputs):
      batch = feeds.eval.batch(inputs)
      squares = Squares.of_batch(model.apply(variables, batch['images'], train=False), batch)
      return jax.tree.map(jnp.add, totals, jax.lax.psum(squares, runtime.DATA_AXIS))

    whole = PartitionSpec()
    self.program = runtime.data_parallel(
      add, feeds.mesh, (whole, whole, feeds.eval.input_spec), whole
    )

  def compile(self, variables):
    self.program.lower(self.task.zero_metrics(), variables, self.feed.inputs(0)).compile()

  def __call__(self, variables, interrupted):
    totals = self.task.zero_metrics()
    for step in range(len(self.feed)):
      if interrupted():
        return None
      totals = self.program(totals, variables, self.feed.inputs(step))
    results = totals.report()
    return {**results, 'score': self.scripted.pop(0)} if self.scripted else results


def run(workdir, task_class=Brightness, **fields) -> bool:
  config = small(**fields)
  return train(config, workdir, task_class(config))


def summary(workdir) -> dict:
  return json.loads((workdir / 'summary.json').read_text())


def kept(workdir) -> set[int]:
  return {int(path.name) for path in (workdir / 'checkpoints').iterdir()}


def test_a_second_task_trains_evaluates_and_resumes(tmp_path, monkeypatch, capsys):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  fields = {'optimizer__learning_rate': 0.01, 'optimizer__accumulate': 2}
  assert run(whole, **fields)
  out = capsys.readouterr().out
  assert 'test[:128] score 0.' in out and 'top-1' not in out
  records = read_records(whole / 'metrics.jsonl')
  losses = [r['loss'] for r in records if r['kind'] == 'train']
  assert losses[-1] < 0.7 * losses[0]
  found = summary(whole)
  assert list(found['final']) == ['step', 'epoch', 'loss', 'score']
  assert found['best']['score'] == max(r['score'] for r in records if r['kind'] == 'eval')
  assert (whole / 'curves.png').read_text().startswith('se_resnet20_cifar on digits')
  with monkeypatch.context() as patch:
    kill_at(patch, 11)
    assert run(parts, **fields) is False
  assert run(parts, **fields)
  assert 'resumed from step 12 of 20' in capsys.readouterr().out
  assert summary(parts)['params_sha256'] == found['params_sha256']
  assert summary(parts)['best'] == found['best']


def test_the_highest_score_is_kept_as_the_best(tmp_path):
  class Scripted(Brightness):
    scripted = (0.2, 0.9, 0.5)  # of steps 8, 16 and 20

  assert run(tmp_path, Scripted, checkpoint__keep=1, checkpoint__every_steps=0)
  assert kept(tmp_path) == {16, 20}
  assert summary(tmp_path)['best']['step'] == 16
  mesh = runtime.data_mesh()
  assert saved.load(tmp_path, 'best', mesh, Brightness.objective).step == 16
  # Judged the other way, the last of the two that are left is the lower one.
  assert saved.load(tmp_path, 'best', mesh, Objective('score', 'min')).step == 20


@pytest.mark.parametrize(
  ('errors', 'best'), [((50.0, 20.0, 40.0), 16), ((20.0, 50.0, 40.0), 8), ((20.0, 20.0, 40.0), 16)]
)
def test_the_lowest_error_is_kept_as_the_best(errors, best, tmp_path, monkeypatch):
  left = [{'loss': 1.0, 'top1_error': e, 'top3_error': e, 'top5_error': e} for e in errors]
  monkeypatch.setattr(classification, 'evaluate', lambda *_: left.pop(0))
  assert train(small(checkpoint__keep=1, checkpoint__every_steps=0), tmp_path)
  assert {best, 20} == kept(tmp_path)
  assert summary(tmp_path)['best']['step'] == best
  assert saved.load(tmp_path, 'best', runtime.data_mesh()).step == best


def test_early_stopping_on_a_metric_that_rises():
  config = small(early_stopping__patience=2)
  config.early_stopping.metric = 'score'
  task, progress = Brightness(config), RunProgress({})
  for step, (score, count) in enumerate(((0.1, 0), (0.5, 0), (0.4, 1), (0.45, 2)), start=1):
    record = {'step': step, 'loss': -float(step), 'score': score}
    progress = patience.judged(task, progress, record)
    assert progress.early_stopping.patience_count == count
    assert patience.early_stopping(config, progress).should_stop == (step == 4)
  assert progress.best['step'] == 2 and progress.final['step'] == 4


def test_objective():
  low, high = {'top1_error': 10.0}, {'top1_error': 20.0}
  assert TOP1.as_good(low, high) and not TOP1.as_good(high, low)
  assert TOP1.as_good(low, low) and TOP1.as_good(high, None)
  highest = Objective('top1_error', 'max')
  assert highest.as_good(high, low) and not highest.as_good(low, high)
  with pytest.raises(ValueError, match="mode='lowest' must be min or max"):
    Objective('loss', 'lowest')
