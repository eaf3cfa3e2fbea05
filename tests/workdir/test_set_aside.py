"""One bad file of a workdir does not end what its whole checkpoints allow."""

import json
import math

import pytest

from senet_jax.errors import UserError
from senet_jax.training.progress import Reporter
from senet_jax.workdir import saved, summary
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
    '{"kind": "eval", "step": 4, "epoch": 1, "loss": "x"}', '\x00\x01', '[' * 100_000,
    '{"kind": "eval", "step": 4, "epoch": 1, "loss": NaN}',
    f'{{"kind": "eval", "step": 4, "epoch": {10**400}}}',
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


SUMMARY = {
  'final': {'step': 8, 'epoch': 1.0, 'top1_error': 5.0}, 'wall_time_s': 1.0, 'params_sha256': 'ab',
}  # fmt: skip


@pytest.mark.parametrize(
  'text',
  [
    '', '{"final": {"top1', '[' * 100_000, '[]',
    *(json.dumps(SUMMARY | {name: value}) for name, value in (
      ('final', {}), ('final', 5.0), ('final', SUMMARY['final'] | {'top1_error': 'x'}),
      ('best', None), ('wall_time_s', '1'), ('wall_time_s', math.nan), ('epochs', 10**30),
      ('params', 1.5), ('params_sha256', None), ('device', ['cpu']),
    )),
    json.dumps({'final': SUMMARY['final'], 'params_sha256': 'ab'}),
  ],
)  # fmt: skip
def test_a_damaged_summary_is_named(text, tmp_path):
  summary.write(tmp_path, SUMMARY)
  assert summary.read(tmp_path) == SUMMARY
  (tmp_path / 'summary.json').write_text(text)
  with pytest.raises(UserError, match=r'summary\.json is damaged .* writes it anew'):
    summary.read(tmp_path)


def test_a_link_to_nothing_is_not_followed_where_records_are_written(tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'metrics.jsonl').symlink_to(tmp_path / 'elsewhere')
  with Reporter(tmp_path / 'run', str, tensorboard=False):
    pass
  assert not (tmp_path / 'elsewhere').exists()
  assert (tmp_path / 'run' / 'metrics.jsonl').read_text() == ''


@pytest.mark.parametrize('count', [10**12, 0, -1])
def test_numbers_of_classes_that_cannot_be(count, tmp_path):
  (tmp_path / 'classes.json').write_text(json.dumps({'num_classes': count, 'names': None}))
  with pytest.raises(UserError, match='does not hold the number of classes'):
    saved.read_classes(tmp_path)
