"""Reports of a run: who sees its records."""

from senet_jax.training.progress import Reporter

RECORD = {'kind': 'eval', 'step': 5, 'epoch': 1.0, 'loss': 0.5}


def test_a_watcher_sees_each_record_once_it_is_written(tmp_path):
  seen = []

  def watch(record):
    seen.append((record, (tmp_path / 'metrics.jsonl').read_text().count('\n')))

  with Reporter(tmp_path, lambda record: '', tensorboard=False, watch=watch) as reporter:
    reporter.write(RECORD)
    reporter.write({**RECORD, 'step': 10})
  assert seen == [(RECORD, 1), ({**RECORD, 'step': 10}, 2)]
  with Reporter(tmp_path, str, tensorboard=False, silent=True, watch=watch) as reporter:
    reporter.write(RECORD)
  assert len(seen) == 2


def test_lines_in_a_notebook_are_plain_text(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('rich.console._is_jupyter', lambda: True)
  with Reporter(tmp_path, lambda record: 'loss 0.5', tensorboard=False) as reporter:
    reporter.write(RECORD)
  assert capsys.readouterr().out == 'eval   epoch    1.00  step      5  loss 0.5\n'
