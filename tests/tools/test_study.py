"""Studies: what they run, what they leave out, and the table they come to."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from scipy import stats

from senet_jax import cli
from senet_jax.config import reading
from senet_jax.config.study import Row, Study
from senet_jax.errors import UserError
from senet_jax.reporting import published, study_table
from senet_jax.tools import benchmark, study as tool
from senet_jax.training import studies
from tests.helpers.paths import ROOT

STUDIES = sorted((ROOT / 'configs' / 'studies').glob('*.py'))
SIGTERM = object()
FIELDS = (
  '--config.data.name=digits',
  '--config.model.width=8',
  '--config.model.depths=(1,1,1)',
  '--config.steps=3',
  '--config.batch_size=64',
  '--config.log.tensorboard=False',
)
FILE = """
from senet_jax.config.study import Row, Study

def get_study():
  fields = {fields!r}
  return Study(
    'A table', (
      Row('plain', '{config}', (*fields, '--config.model.name=resnet20_cifar')),
      Row('se', '{config}', (*fields, '--config.model.name=se_resnet20_cifar',
                             '--config.model.se.ratio=4'), 'plain'),
    ), (0, 1))
"""


@pytest.fixture(scope='module')
def study_file(tmp_path_factory):
  config = ROOT / 'tests' / 'helpers' / 'default_config.py'
  path = tmp_path_factory.mktemp('study') / 'study.py'
  path.write_text(FILE.format(fields=FIELDS, config=config))
  return f'--study={path}'


def write_summary(directory, error, **more):
  final = {'step': 3, 'epoch': 1.0, 'top1_error': error}
  summary = {'final': final, 'wall_time_s': 60.0, 'params_sha256': 'x', **more}
  (directory / 'summary.json').write_text(json.dumps(summary))


@pytest.fixture(scope='module')
def real_runs(study_file, tmp_path_factory):
  """The workdir of the study, each of whose runs was made, one after the other."""
  workdir = tmp_path_factory.mktemp('runs')
  assert tool.main([study_file, f'--workdir={workdir}']) == 0
  return workdir


@pytest.fixture
def errors(monkeypatch):
  """Errors by (network, seed) that a stand-in for training comes to; it notes what it ran."""
  found, ran = {}, []

  def train(config, workdir, stop):
    key = config.model.name.partition('_')[0], config.seed
    ran.append(key)
    result = found[key]
    if isinstance(result, Exception):
      raise result
    if result is SIGTERM:  # at the end of the run, too late for it
      os.kill(os.getpid(), signal.SIGTERM)
      result = 5.0
    if result is None:  # preempted
      return False
    workdir.mkdir(parents=True, exist_ok=True)
    write_summary(workdir, result)
    return True

  monkeypatch.setattr('senet_jax.training.loop.train', train)
  return found, ran


RUNS = [('resnet20', 0), ('resnet20', 1), ('se', 0), ('se', 1)]


def test_a_study_goes_on_where_it_was_stopped(study_file, errors, tmp_path, capsys):
  found, ran = errors
  found |= dict(zip(RUNS, (5.0, 6.0, None, 4.0), strict=True))
  argv = [study_file, f'--workdir={tmp_path}/runs', f'--output={tmp_path}/out/t.json']
  (tmp_path / 'runs' / 'se' / 'seed0').mkdir(parents=True)
  evaluation = {'kind': 'eval', 'step': 9, 'epoch': 1.0, 'top1_error': 50.0}
  (tmp_path / 'runs' / 'se' / 'seed0' / 'metrics.jsonl').write_text(json.dumps(evaluation))
  assert tool.main(argv) == cli.PREEMPTED
  assert ran == RUNS[:3]
  so_far = json.loads((tmp_path / 'out' / 't.json').read_text())['rows']
  assert so_far[0]['errors'] == {'0': 5.0, '1': 6.0} and so_far[1]['errors'] == {}
  assert so_far[1]['unfinished'] == {'0': evaluation}
  found['se', 0] = 4.5
  assert tool.main(argv) == 0
  assert ran == [*RUNS[:3], *RUNS[2:]]
  shown = capsys.readouterr().out
  assert 'run 3 of 4: se, seed 0; all 2 that are missing: about 0:02:00' in shown
  difference = stats.ttest_rel([4.5, 4.0], [5.0, 6.0])
  assert '| `se` | 4.25 ± 0.35 (n = 2) |' in shown
  assert f'| -1.25 (p = {difference.pvalue:.2f}) |' in shown
  assert tool.main(argv) == 0 and len(ran) == 5  # nothing is missing
  written = json.loads((tmp_path / 'out' / 't.json').read_text())
  assert written['rows'][1]['errors'] == {'0': 4.5, '1': 4.0}
  with (tmp_path / 'out' / 't.csv').open() as file:
    table = list(csv.reader(file))
  assert table[0] == list(study_table.COLUMNS) and [row[0] for row in table[1:]] == [
    '`plain`',
    '`se`',
  ]
  assert (tmp_path / 'out' / 't.md').read_text() in shown


def test_runs_that_are_on_record_are_not_made_again(study_file, errors, tmp_path, capsys):
  found, ran = errors
  found |= dict.fromkeys(RUNS, 9.0)
  records = tmp_path / 'records'
  kept = records / 'se' / 'seed1'
  kept.mkdir(parents=True)
  write_summary(kept, 4.0)
  arguments = [study_file, f'--workdir={tmp_path / "runs"}']
  assert tool.main([*arguments, f'--records={records}']) == 0
  assert ran == RUNS[:3]
  assert '6.50' in capsys.readouterr().out  # the mean of 9 and 4
  with pytest.raises(UserError, match=r'--records=nowhere is not a directory'):
    tool.main([*arguments, '--records=nowhere'])


def test_seconds_at_rates_that_were_measured_apart(study_file, tmp_path):
  for row in ('plain', 'se'):
    kept = tmp_path / 'runs' / row / 'seed0'
    kept.mkdir(parents=True)
    write_summary(kept, 4.0, examples_seen=192, images_per_second=1.0)
  rates, written = tmp_path / 'rates.json', tmp_path / 't.json'
  wanted = '--models=resnet20_cifar,se_resnet20_cifar:model.se.ratio=4'
  benchmark.main([
    wanted, '--mode=train', '--batch=64', '--devices=1', '--repeats=1', '--seconds=0.1',
    '--config.model.width=8', '--config.model.depths=(1,1,1)', f'--output={rates}',
  ])  # fmt: skip
  argv = [study_file, f'--workdir={tmp_path}/runs', '--table', '--seeds=0', f'--output={written}']
  tool.main(argv)
  assert [row['train_time_s'] for row in json.loads(written.read_text())['rows']] == [[192.0]] * 2
  tool.main([*argv, f'--rates={rates}'])
  found = json.loads(rates.read_text())
  expected = [[round(192 / row['images_per_second']['median'], 2)] for row in found['rows']]
  assert [row['train_time_s'] for row in json.loads(written.read_text())['rows']] == expected
  del found['rows'][1]
  rates.write_text(json.dumps(found))
  with pytest.raises(UserError, match=r'no training rate of se_resnet20_cifar:.*ratio=4'):
    tool.main([*argv, f'--rates={rates}'])
  rates.write_text('{"rows": [{}]}')
  with pytest.raises(UserError, match=r'rates\.json is no record of tools\.benchmark --models'):
    tool.main([*argv, f'--rates={rates}'])
  rates.write_bytes(100 * b'\xff')
  with pytest.raises(UserError, match=r'rates\.json is no record .*\(UnicodeDecodeError\); give'):
    tool.main([*argv, f'--rates={rates}'])
  rates.unlink()
  with pytest.raises(UserError, match=r'rates\.json cannot be read: No such file or directory;'):
    tool.main([*argv, f'--rates={rates}'])


def test_the_other_rows_go_on_when_one_fails(study_file, errors, tmp_path, capsys):
  found, ran = errors
  found |= dict(
    zip(RUNS, (UserError('no such data'), RuntimeError('broken'), 4.0, 5.0), strict=True)
  )
  argv = [study_file, f'--workdir={tmp_path}/runs']
  assert tool.main(argv) == 1 and ran == RUNS
  shown = capsys.readouterr()
  assert '| `plain` | failed |' in shown.out
  assert '- `plain`, seed 0 failed: no such data\n' in shown.out
  assert 'RuntimeError: broken' in shown.err and 'UserError' not in shown.err
  assert tool.main([*argv, '--table']) == 1 and ran == RUNS
  found |= {('resnet20', 0): 5.0, ('resnet20', 1): 6.0}
  assert tool.main(argv) == 0  # the failure is forgotten once the run is there
  *_, last = capsys.readouterr().out.split('**A table**')
  assert 'failed' not in last


def test_shards_are_the_study(study_file, errors, tmp_path):
  found, ran = errors
  found |= dict.fromkeys(RUNS, 1.0)
  argv = [study_file, f'--workdir={tmp_path}/runs']
  for shard in ('1/3', '2/3', '3/3'):
    assert tool.main([*argv, f'--shard={shard}']) == 0
  assert sorted(ran) == sorted(RUNS) and ran != RUNS
  assert tool.main([*argv, '--table']) == 0


def test_a_part_of_a_study(study_file, errors, tmp_path, capsys):
  found, ran = errors
  found |= dict.fromkeys([('se', 3), ('se', 5)], 4.0)
  argv = [study_file, f'--workdir={tmp_path}/runs', '--rows=se', '--seeds=3,5']
  assert tool.main([*argv, '--config.model.se.ratio=2', f'--output={tmp_path}/t.json']) == 0
  assert ran == [('se', 3), ('se', 5)] and '| `plain` |' not in capsys.readouterr().out
  (row,) = json.loads((tmp_path / 't.json').read_text())['rows']
  assert row['command'].endswith('--config.model.se.ratio=4 --config.model.se.ratio=2')
  assert row['baseline'] is None  # it is not among the rows
  for wrong, message in (('--rows=sea', r"--rows='sea' is unknown.*'se'"), ('--seeds=x', 'whole')):
    with pytest.raises(UserError, match=message):
      tool.main([study_file, f'--workdir={tmp_path}/runs', wrong])


@pytest.mark.thorough
def test_runs_at_a_time_are_those_one_after_the_other(study_file, real_runs, tmp_path, capsys):
  """Each is a process of its own; one that fails is named with its own last line."""
  part = [study_file, '--seeds=0']
  assert tool.main([*part, f'--workdir={tmp_path}/two', '--together=2']) == 0
  for row in ('plain', 'se'):
    digests = [
      json.loads((runs / row / 'seed0' / 'summary.json').read_text())['params_sha256']
      for runs in (real_runs, tmp_path / 'two')
    ]
    assert digests[0] == digests[1]
  capsys.readouterr()
  wrong = ['--together=2', '--rows=se', '--config.optimizer.learning_rate=1e30']
  assert tool.main([*part, f'--workdir={tmp_path}/three', *wrong]) == 1
  shown = capsys.readouterr().out
  assert 'se, seed 0 failed: loss, gradient or update is not finite' in shown


def test_a_signal_at_the_end_of_a_run_stops_the_study(study_file, errors, tmp_path):
  found, ran = errors
  found |= dict(zip(RUNS, (SIGTERM, 6.0, 5.0, 4.0), strict=True))
  argv = [study_file, f'--workdir={tmp_path}/runs']
  before = signal.getsignal(signal.SIGTERM)
  assert tool.main(argv) == cli.PREEMPTED
  assert ran == RUNS[:1] and signal.getsignal(signal.SIGTERM) is before
  assert tool.main(argv) == 0 and ran == RUNS


@pytest.mark.parametrize(
  ('wrong', 'message'),
  [
    ('--config.data.name=cifar10', 'plain, seed 0 cannot begin, and nothing was run: cifar10 is'),
    ('--config.model.num_classes=4', 'outside 0 to 3'),
    ('--config.profile.start=99', 'profile.start=99 is past the run of 3 steps'),
  ],
)
def test_data_and_classes_are_checked_before_the_first_run(
  study_file, errors, tmp_path, wrong, message
):
  argv = [study_file, f'--workdir={tmp_path}/runs', f'--config.data.dir={tmp_path}', wrong]
  with pytest.raises(UserError, match=message):
    tool.main(argv)
  assert not errors[1] and not (tmp_path / 'runs').exists()
  if 'cifar10' in wrong:
    errors[0].update(dict.fromkeys(RUNS, 1.0))
    assert tool.main([*argv, '--config.data.fake=True']) == 0


def test_a_damaged_summary_is_made_anew(study_file, errors, tmp_path):
  errors[0].update(dict.fromkeys(RUNS, 1.0))
  argv = [study_file, f'--workdir={tmp_path}/runs']
  assert tool.main(argv) == 0
  assert tool.main([study_file, '--table', f'--records={tmp_path}/runs']) == 0
  (tmp_path / 'runs' / 'se' / 'seed0' / 'summary.json').write_text('{"final": {')
  assert tool.main(argv) == 0 and errors[1] == [*RUNS, ('se', 0)]


@pytest.mark.thorough
def test_real_runs(study_file, real_runs, capsys):
  assert tool.main([study_file, f'--workdir={real_runs}', '--table']) == 0
  shown = capsys.readouterr().out
  for row in ('plain', 'se'):
    runs = [json.loads((real_runs / f'{row}/seed{k}/summary.json').read_text()) for k in (0, 1)]
    found = [run['final']['top1_error'] for run in runs]
    assert f'| `{row}` | {np.mean(found):.2f} ± {np.std(found, ddof=1):.2f} (n = 2) |' in shown
    assert f' {runs[0]["params"]:,} |' in shown
    assert runs[0]['params_sha256'] != runs[1]['params_sha256']


def test_comparison_with_the_baseline():
  rng = np.random.default_rng(0)
  base, se = rng.normal(20, 1, 5), rng.normal(19, 1, 5)
  rows = [
    {'row': name, 'errors': dict(enumerate(values)), 'published': 18.0, 'comparable': name == 'se'}
    for name, values in (('base', base.tolist()), ('se', se.tolist()))
  ]
  del rows[0]['errors'][4]  # one seed is missing
  study_table.compare(rows, {'base': None, 'se': 'base'})
  expected = stats.ttest_rel(se[:4], base[:4])
  assert rows[1]['p'] == pytest.approx(expected.pvalue)
  assert rows[1]['to_baseline'] == pytest.approx(np.mean(se[:4] - base[:4]))
  assert rows[1]['difference'] == pytest.approx(se.mean() - 18)
  assert rows[0]['difference'] is rows[0]['to_baseline'] is rows[0]['p'] is None


@pytest.mark.parametrize('size', ['full', 'small'])
@pytest.mark.parametrize('path', STUDIES, ids=lambda p: p.stem)
def test_every_study(path, size, monkeypatch):
  monkeypatch.chdir(ROOT)
  study = reading.load_study(f'{path}:{size}')
  studies.check(study, path.stem)
  commands = set()
  for row in study.rows:
    config = reading.load(row.config, list(row.overrides))
    commands.add(json.dumps(config.to_dict(), sort_keys=True))
    of = f'--config={row.published or row.config}'
    # The paper has no figure of these.
    small = path.stem == 'does_se_pay' and size == 'small'
    expected = row.name == 'no_stage5' or path.stem == 'cifar10_r20' or small
    assert (published.error(ROOT, of) is None) == expected
  assert len(commands) == len(study.rows)  # no two rows are the same run
  assert ('Small' in study.note) == (size == 'small') and len(study.seeds) >= 2
  assert len(study.rows) == 1 or any(row.baseline for row in study.rows)


@pytest.mark.parametrize(
  ('study', 'message'),
  [
    (Study('', (Row('a', 'x'), Row('a', 'y'))), 'two rows have one name'),
    (Study('', (Row('a', 'x', baseline='b'),)), "baseline='b' is no row: a"),
    (Study('', (Row('a', 'nothing.py'),)), 'there is no file nothing.py'),
  ],
)
def test_mistakes_in_a_study(study, message):
  with pytest.raises(UserError, match=message):
    studies.check(study, 'x.py')


def test_mistakes_in_the_command(study_file, tmp_path):
  with pytest.raises(UserError, match='must be I/N'):
    tool.main([study_file, f'--workdir={tmp_path}', '--shard=3/2'])
  with pytest.raises(UserError, match=r"did you mean 'ratio'\? they are .*ratio, "):
    reading.load_study('ratoi:small')
  with pytest.raises(UserError, match="the size 'tiny' is unknown"):
    reading.load_study(f'{STUDIES[0]}:tiny')
  with pytest.raises(UserError, match='get_study'):
    reading.load_study(str(ROOT / 'tests' / 'helpers' / 'default_config.py'))
