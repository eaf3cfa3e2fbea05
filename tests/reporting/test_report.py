"""Results files and the tables made from them."""

import json

import pytest

from senet_jax.errors import UserError
from senet_jax.reporting import curves, pages
from senet_jax.tools import report
from senet_jax.workdir import results
from tests.helpers.paths import ROOT


@pytest.fixture
def project(tmp_path):
  """A small project with two finished runs of one experiment."""
  from senet_jax import config
  from senet_jax.storage import files

  for name in ('configs', 'docs', 'results'):
    (tmp_path / name).mkdir()
  for page in ('README.md', 'configs/README.md', 'docs/performance.md'):
    page = tmp_path / page
    page.write_text(f'before\n{pages.BEGIN}\nold\n{pages.END}\nafter\n')
  for name, figure in (('a', 'test error 5.21 % (Table 4)'), ('b', 'not in the paper')):
    (tmp_path / 'configs' / f'{name}.py').write_text(f'"""A.\n\nPublished: {figure}.\n"""\n')
  variants = 'test error by variant (Table 10):\n  r2   22.29 % (top-5 6.00 %)\n  r16  4.50 %'
  (tmp_path / 'configs' / 'c.py').write_text(f'"""C.\n\nPublished: {variants}\nMeasured: 1.\n"""\n')
  for seed, error in ((0, 5.0), (1, 6.0)):
    workdir = tmp_path / f'run{seed}'
    values = config.cifar('se_resnet110_cifar')
    values.seed = seed
    files.write_json(workdir / 'config.json', values.to_dict())
    result = {'top1_error': error, 'loss': 1.0, 'epoch': 164.0, 'kind': 'eval', 'step': 64000}
    summary = dict.fromkeys(results.RUN_FIELDS, 0) | {
      'final': result, 'best': result, 'epochs': 164.0, 'images_per_second': 100.0 + seed,
      'params': 7, 'params_sha256': 'ab', 'device': '1 x cpu', 'versions': {}, 'git_commit': 'abc',
    }  # fmt: skip
    files.write_json(workdir / 'summary.json', summary)
    (workdir / 'metrics.jsonl').write_text(json.dumps(result) + '\n')
  return tmp_path


def test_record_and_table(project):
  runs = [str(project / f'run{seed}') for seed in (0, 1)]
  command = 'python -m senet_jax.main --config=configs/a.py'
  report.main(['--record=a', f'--command={command}', '--note=a note', f'--root={project}', *runs])
  row = json.loads((project / 'results' / 'a.json').read_text())
  assert row['top1_error'] == {'mean': 5.5, 'std': pytest.approx(0.5**0.5), 'n': 2}
  assert (row['published_top1_error'], row['command']) == (5.21, command)
  assert [run['seed'] for run in row['runs']] == [0, 1]
  assert row['config']['model']['name'] == 'se_resnet110_cifar'
  assert (project / 'results' / 'a.png').read_bytes().startswith(b'\x89PNG')
  page = (project / 'README.md').read_text()
  assert page.startswith('before\n') and page.endswith('after\n') and 'old' not in page
  assert '| `a`: a note | 5.21 % | 5.50 ± 0.71 % (n = 2) | +0.29 | 100 on 1 x cpu |' in page
  assert '| `b` |' not in page
  page = (project / 'configs' / 'README.md').read_text()
  assert '| `b` | none | not run | | | |' in page and '(../results/a.json)' in page


def test_variants_of_a_configuration(project):
  page = project / 'configs' / 'README.md'
  report.main([f'--root={project}'])
  assert '| `c` | by variant (Table 10) | not run | | | |' in page.read_text()
  runs = [str(project / f'run{seed}') for seed in (0, 1)]
  command = '--command=python -m senet_jax.main --config=configs/c.py:r16'
  report.main(['--record=c_r16', command, f'--root={project}', *runs])
  assert '| `c` | by variant (Table 10) | below, where run | | | |' in page.read_text()
  assert '| `c_r16` | 4.50 % | 5.50 ± 0.71 % (n = 2) | +1.00 |' in page.read_text()


@pytest.mark.parametrize('config', ['b.py', 'c.py:r1', 'other.py', 'a.py of the held-out images'])
def test_a_run_without_a_published_figure(project, config):
  for seed in (0, 1):
    path = project / f'run{seed}' / 'config.json'
    if 'held-out' in config:
      path.write_text(
        path.read_text().replace('"eval_split": "test"', '"eval_split": "train[:4%]"')
      )
  runs = [str(project / f'run{seed}') for seed in (0, 1)]
  report.main(['--record=d', f'--command=--config=configs/{config}', f'--root={project}', *runs])
  row = json.loads((project / 'results' / 'd.json').read_text())
  assert row['published_top1_error'] is None


def test_what_cannot_be_recorded(project):
  (project / 'run1' / 'summary.json').unlink()
  given = ['--record=a', '--command=x', f'--root={project}', str(project / 'run0')]
  with pytest.raises(UserError, match='no finished run'):
    report.main([*given, str(project / 'run1')])
  path = project / 'run1' / 'config.json'
  path.write_text(path.read_text().replace('"batch_size": 128', '"batch_size": 64'))
  with pytest.raises(UserError, match=r'differs from .* in batch_size'):
    report.main([*given, str(project / 'run1')])
  with pytest.raises(UserError, match='--record needs'):
    report.main(['--record=a', f'--root={project}'])


def test_curves_of_several_runs(project):
  for seed, network in ((0, 'se_resnet20_cifar'), (1, 'resnet20_cifar')):
    workdir = project / f'run{seed}'
    values = json.loads((workdir / 'config.json').read_text())
    values['model']['name'] = network
    (workdir / 'config.json').write_text(json.dumps(values))
  picture = project / 'both.png'
  report.main([f'--curves={picture}', str(project / 'run0'), str(project / 'run1')])
  assert picture.read_bytes().startswith(b'\x89PNG')
  assert not (project / 'both.json').exists()
  with pytest.raises(UserError, match=r'has no metrics\.jsonl'):
    report.main([f'--curves={picture}', str(project)])
  with pytest.raises(UserError, match='needs at least one WORKDIR'):
    report.main([f'--curves={picture}'])
  (project / 'run1' / 'config.json').unlink()
  with pytest.raises(UserError, match=r'run1 holds no run: there is no config\.json'):
    report.main([f'--curves={picture}', str(project / 'run0'), str(project / 'run1')])
  picture.unlink()
  (project / 'run0' / 'metrics.jsonl').write_text('')
  with pytest.raises(UserError, match='run0 has no error to draw yet'):
    report.main([f'--curves={picture}', str(project / 'run0')])
  assert not picture.exists()


def test_points_of_curves_are_kept(project):
  runs = [str(project / f'run{seed}') for seed in (0, 1)]
  report.main([f'--curves={project / "both.png"}', '--command=x', '--note=a note', *runs])
  row = json.loads((project / 'both.json').read_text())
  assert (row['command'], row['note'], row['git_commit']) == ('x', 'a note', 'abc')
  assert [run['seed'] for run in row['runs']] == [0, 1]
  assert row['runs'][1] == {
    'model': 'se_resnet110_cifar',
    'seed': 1,
    'points': [{'kind': 'eval', 'epoch': 164.0, 'loss': 1.0, 'top1_error': 6.0}],
  }


def test_one_evaluation_is_seen():
  """A line of one point is nothing."""
  records = [{'kind': k, 'epoch': 12.0, 'top1_error': 50.0} for k in ('train', 'eval')]
  figure = curves.comparison([('resnet50', records), ('se_resnet50', records)], 'title')
  dots = [line for line in figure.axes[0].get_lines() if 'evaluation' in line.get_label()]
  assert [line.get_marker() for line in dots] == ['o', 'o']
  assert dots[0].get_markerfacecolor() != dots[1].get_markerfacecolor()
  figure = curves.comparison([('resnet50', records * 50)], 'title')
  assert [line.get_marker() for line in figure.axes[0].get_lines()] == ['None', '']


def test_se_and_its_baseline_have_one_colour():
  records = [
    {'kind': k, 'epoch': e, 'top1_error': e + 1.0} for k in ('train', 'eval') for e in (1, 2)
  ]
  names = ('resnet50', 'se_resnet50', 'vgg16_bn')
  figure = curves.comparison([(name, records) for name in names], 'title')
  lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
  assert set(lines) == {f'{n}, {k}' for n in names for k in ('training', 'evaluation')}
  plain, se, other = (lines[f'{name}, evaluation'] for name in names)
  assert plain.get_color() == se.get_color() != other.get_color()
  assert (plain.get_linestyle(), se.get_linestyle()) == ('--', '-')
  assert list(se.get_ydata()) == [2.0, 3.0]
  assert lines['resnet50, training'].get_linewidth() < plain.get_linewidth()


def test_tables_of_studies(project):
  (project / 'results' / 'studies').mkdir()
  (project / 'results' / 'studies' / 'ratio.md').write_text('**Ratio**\n\n| row |\n| --- |\n')
  report.main([f'--root={project}'])
  assert (
    f'\n\n**Ratio**\n\n| row |\n| --- |\n{pages.END}'
    in (project / 'configs' / 'README.md').read_text()
  )
  assert 'Ratio' not in (project / 'README.md').read_text()


@pytest.mark.parametrize('page', ['README.md', 'configs/README.md', 'docs/performance.md'])
def test_committed_tables_are_those_of_the_results(page):
  text = report.pages(ROOT)[ROOT / page]
  assert f'{pages.BEGIN}\n{text}\n{pages.END}' in (ROOT / page).read_text()


def _is_row(path):
  """What a run leaves is no row, and the index of `tools.evidence` only says where it was."""
  return path.name not in ('config.json', 'summary.json', 'evidence.json')


@pytest.mark.parametrize(
  'path', sorted(filter(_is_row, (ROOT / 'results').rglob('*.json'))), ids=lambda p: p.stem
)
def test_results_are_evidence(path):
  row = json.loads(path.read_text())
  assert {'command', 'git_commit', 'device', 'versions'} <= row.keys()
