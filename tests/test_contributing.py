"""CONTRIBUTING.md: its code is the package's, or runs."""

import re
import subprocess
import sys

from tests.helpers.paths import ROOT

TEXT = (ROOT / 'CONTRIBUTING.md').read_text()
BLOCKS = re.findall(r'^```python\n(.*?)^```$', TEXT, re.MULTILINE | re.DOTALL)
# The two of ECA, and those that a reader can run.
ECA_FILE, ECA_LINE, *EXAMPLES = BLOCKS


def test_the_attention_of_the_worked_example_is_the_one_of_the_package():
  layers = ROOT / 'senet_jax' / 'layers'
  assert (layers / 'efficient_channel_attention.py').read_text() == ECA_FILE
  assert ECA_LINE in (layers / 'attention.py').read_text()


def test_it_is_one_file_and_one_registration():
  """Nothing else of the package that computes, counts or draws knows of it."""
  word = re.compile(r'\beca\b|efficient_?channel_?attention', re.IGNORECASE)
  found = {
    path.relative_to(ROOT / 'senet_jax').as_posix()
    for path in (ROOT / 'senet_jax').rglob('*.py')
    if word.search(path.read_text())
  }
  # A comment of the defaults names the choice.
  assert found == {
    'config/defaults.py',
    'layers/attention.py',
    'layers/efficient_channel_attention.py',
  }


def test_the_examples_run():
  """In a process of their own: what they register is registered for good."""
  attention, network, configuration = EXAMPLES
  checks = """
assert list(gates) == [f'SE_{stage}_{block}' for stage in (3, 4) for block in (1, 2, 3)]
assert [gate.shape for gate in gates.values()] == [(2, 32)] * 3 + [(2, 64)] * 3
assert set(variables['params']['stage3_block1']['own_mean']) == {'w', 'b'}
assert logits.shape == (2, 10)
assert create_model('se_resnet50', attention='own_mean', se=SEConfig(position='pre'))
_, state = tiny.init_with_output(jax.random.key(0), images, train=False, mutable=True)
assert list(excitations(state['intermediates'])) == ['SE_2_1']
assert create_model('tiny').se is None
from tests.helpers.paths import ROOT

from senet_jax.workdir.network import build_model
config = get_config()
defaults.check(config)
assert build_model(config).attention == 'eca'
config.model.attention = 'own_mean'
assert build_model(config).attention == 'own_mean'
"""
  code = '\n'.join([attention, network, configuration, checks])
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT)
  assert done.returncode == 0, done.stderr


def test_files_that_it_names_exist():
  for name in re.findall(r'`([\w./]+\.py|\.ci/run|tests/golden|results/|senet_jax/[\w/]+/)`', TEXT):
    assert any((folder / name).exists() for folder in (ROOT, ROOT / 'senet_jax/data/builders')), (
      name
    )
