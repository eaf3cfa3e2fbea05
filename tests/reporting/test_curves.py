"""Curves of several runs: which line is which."""

import json

import pytest

from senet_jax import config as config_lib
from senet_jax.reporting import curves
from senet_jax.tools import report

RECORDS = [{'kind': k, 'step': int(e), 'epoch': e, 'loss': 1.0, 'top1_error': 9.0 - e}
           for k in ('train', 'eval') for e in (1.0, 2.0)]  # fmt: skip


def configuration(name: str, **fields):
  config = config_lib.default()
  changes = {key.replace('__', '.'): value for key, value in fields.items()}
  config.update_from_flattened_dict({'model.name': name, **changes})
  return config


@pytest.mark.parametrize(
  ('configs', 'expected'),
  [
    ([('resnet50', {}), ('se_resnet50', {})], ['resnet50', 'se_resnet50']),
    ([('resnet50', {}), ('resnet50', {'seed': 1})], ['resnet50, seed=0', 'resnet50, seed=1']),
    (
      [('se_resnet50', {}), ('se_resnet50', {'model__se__ratio': 4, 'seed': 1})],
      ['se_resnet50, seed=0, model.se.ratio=16', 'se_resnet50, seed=1, model.se.ratio=4'],
    ),
    ([('resnet50', {}), ('resnet50', {})], ['runs/0', 'runs/1']),
    (
      [('resnet50', {}), ('resnet50', {'seed': 1, 'batch_size': 3, 'epochs': 2.0})],
      ['runs/0', 'runs/1'],
    ),
  ],
)
def test_each_run_has_a_name_of_its_own(configs, expected):
  made = [configuration(name, **fields) for name, fields in configs]
  found = curves.labels(made, [f'runs/{i}' for i in range(len(made))])
  assert [set(name.split(', ')) for name in found] == [set(name.split(', ')) for name in expected]


def looks(names) -> list[tuple]:
  figure = curves.comparison([(name, RECORDS) for name in names], 'title')
  lines = {line.get_label(): line for line in figure.axes[0].get_lines()}
  found = [lines[f'{name}, evaluation'] for name in names]
  return [(line.get_color(), line.get_linestyle()) for line in found]


def test_no_two_runs_look_alike():
  many = [f'resnet50, seed={seed}' for seed in range(20)]
  assert len(set(looks(many))) == 20
  same_network = looks(many[:2])
  assert same_network[0][0] != same_network[1][0]  # a colour each
  pairs = looks(['resnet50, seed=0', 'se_resnet50, seed=0', 'resnet50, seed=1'])
  assert pairs[0][0] == pairs[1][0] != pairs[2][0] and len(set(pairs)) == 3


def test_the_command_says_what_it_wrote(tmp_path, capsys):
  for seed in (0, 1):
    workdir = tmp_path / str(seed)
    workdir.mkdir()
    config = configuration('resnet50', seed=seed)
    (workdir / 'config.json').write_text(json.dumps(config.to_dict()))
    (workdir / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, RECORDS)))
  picture = tmp_path / 'both.png'
  report.main([f'--curves={picture}', str(tmp_path / '0'), str(tmp_path / '1')])
  assert capsys.readouterr().out == f'wrote {picture}: resnet50, seed=0, resnet50, seed=1\n'
