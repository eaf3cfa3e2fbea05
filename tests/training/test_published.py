"""What is published beside a study, from any directory."""

from senet_jax.config import reading
from senet_jax.training import studies

OWN = '''"""Mine.

Published: test error 1.50 %, ResNet-50.
Measured: not run.
"""
from senet_jax.config import default as get_config
'''


def test_published_errors_are_found_from_any_directory(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  study = reading.load_study('ratio:small')
  found = {row.name: studies.results(row, [])['published'] for row in study.rows}
  # Table 10 of the paper.
  assert found == {'r2': 22.29, 'r4': 22.25, 'r8': 22.26, 'r16': 22.28, 'original': 23.30}
  (tmp_path / 'configs').mkdir()
  (tmp_path / 'configs' / 'cifar10_r20.py').write_text(OWN)
  mine = studies.Row('mine', 'configs/cifar10_r20.py')
  assert studies.results(mine, [])['published'] == 1.5
