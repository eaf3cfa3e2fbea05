"""One bad file of a workdir does not end what its whole checkpoints allow."""

import json

import pytest

from senet_jax.errors import UserError
from senet_jax.training.progress import Reporter
from senet_jax.workdir import results, saved
from senet_jax.workdir.records import damaged_lines, read_records

GOOD = [
  {'kind': kind, 'step': step, 'epoch': step / 8} for step in (4, 8) for kind in ('train', 'eval')
]


def write(path, lines):
  path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines))


@pytest.mark.parametrize(
  'bad',
  [
    'null', '[]', '{"kind": "trian", "step": 4, "epoch": 1}', '{"step": 4, "epoch": 1}',
    '{"kind": "eval", "step": null, "epoch": 1}', '{"kind": ["eval"], "step": 1, "epoch": 1}',
    '\x00\x01', '[' * 100_000,
  ],
)  # fmt: skip
def test_damaged_records_are_kept_beside_the_others(bad, tmp_path, capsys):
  path = tmp_path / 'metrics.jsonl'
  write(path, [*GOOD[:2], bad, *GOOD[2:], '{"kind": "tr'])
  assert read_records(path) == GOOD and damaged_lines(path) == 1
  before = path.read_bytes()
  with Reporter(tmp_path, str, tensorboard=False) as reporter:
    reporter.resume(lambda record: record['step'] <= 4)
  assert [json.loads(line) for line in path.read_text().splitlines()] == GOOD[:2]
  assert (tmp_path / 'metrics.jsonl.damaged').read_bytes() == before
  assert '1 lines of' in capsys.readouterr().out


def test_a_record_cut_short_by_a_kill_is_no_damage(tmp_path):
  write(tmp_path / 'metrics.jsonl', [*GOOD, '{"kind"'])
  assert read_records(tmp_path / 'metrics.jsonl') == GOOD
  assert damaged_lines(tmp_path / 'metrics.jsonl') == 0


@pytest.mark.parametrize('text', ['', '{"final": {"top1', '[' * 100_000])
def test_a_damaged_summary_is_named(text, tmp_path):
  (tmp_path / 'summary.json').write_text(text)
  with pytest.raises(UserError, match=r'summary\.json is damaged .* writes it anew'):
    results._read_summary(tmp_path)


@pytest.mark.parametrize('count', [10**12, 0, -1])
def test_numbers_of_classes_that_cannot_be(count, tmp_path):
  (tmp_path / 'classes.json').write_text(json.dumps({'num_classes': count, 'names': None}))
  with pytest.raises(UserError, match='does not hold the number of classes'):
    saved.read_classes(tmp_path)
