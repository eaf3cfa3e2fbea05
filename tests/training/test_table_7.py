"""The study of table 7: average precision in the place of errors."""

import json

import pytest

from senet_jax.config import reading
from senet_jax.reporting import study_table
from senet_jax.training import studies
from tests.helpers.paths import ROOT

STUDY = f'{ROOT}/configs/studies/table_7.py'


def write_summary(run, ap):
  run.workdir.mkdir(parents=True)
  final = {'step': 960, 'epoch': 60.0, 'ap': ap, 'ap50': 2 * ap}
  summary = {'final': final, 'best': final, 'wall_time_s': 60.0, 'params_sha256': 'x'}
  (run.workdir / 'summary.json').write_text(json.dumps(summary))


def test_rows():
  study = reading.load_study(STUDY)
  assert [(row.name, row.baseline) for row in study.rows] == [
    ('coco_faster_rcnn_r50', None),
    ('coco_faster_rcnn_se_r50', 'coco_faster_rcnn_r50'),
    ('coco_faster_rcnn_r101', None),
    ('coco_faster_rcnn_se_r101', 'coco_faster_rcnn_r101'),
  ]
  assert study.rows[1].overrides == ('--config.init_from=runs/se_r50',)
  studies.check(study, STUDY)


def test_table(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  study = reading.load_study(f'{STUDY}:small')
  runs = studies.runs_of(study, tmp_path)
  for run in runs:
    write_summary(run, 32.5 if '_se_' in run.workdir.as_posix() else 30.0)
  rows = [studies.results(row, runs) for row in study.rows]
  study_table.compare(rows, {row.name: row.baseline for row in study.rows})
  assert [row['metric'] for row in rows] == ['ap', 'ap']
  assert [row['published'] for row in rows] == [38.0, 40.4]
  assert rows[1]['mean'] == 32.5 and rows[1]['to_baseline'] == pytest.approx(2.5)
  assert rows[1]['params'] > rows[0]['params'] and rows[0]['macs'] > 0
  lines = study_table.markdown(study, rows).splitlines()
  assert '| AP, % | published, % |' in lines[2]
  assert any('`coco_faster_rcnn_se_r50` | 32.50 ± 0.00 (n = 2) | 40.40 |' in line for line in lines)
