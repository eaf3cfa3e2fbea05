"""The notebooks: text and notebook are one, what is stored is small and clean, and they run."""

import base64
import configparser
import json
import re
import subprocess
import types

import pytest

from tests.helpers import notebooks, pages, paths

PATHS = re.compile(r'(?<![\w.])/(tmp|home|root|work|usr|content)/')


def stored(name):
  return json.loads((notebooks.FOLDER / f'{name}.ipynb').read_text())


def cells_of_text(name):
  return [(c.cell_type, c.source) for c in notebooks.of_text(name).cells]


def cell(name, beginning):
  return next(source for _, source in cells_of_text(name) if source.startswith(beginning))


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_text_and_notebook_are_one(name):
  parts = [(c['cell_type'], ''.join(c['source']), c['metadata']) for c in stored(name)['cells']]
  assert parts == [(c.cell_type, c.source, c.metadata) for c in notebooks.of_text(name).cells]


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_code_imports_what_it_uses(name):
  code = [source for kind, source in cells_of_text(name) if kind == 'code']
  pages.check_names(code, ['get_ipython'])


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_outputs_are_small_and_clean(name):
  assert (notebooks.FOLDER / f'{name}.ipynb').stat().st_size < 1e6
  code = [c for c in stored(name)['cells'] if c['cell_type'] == 'code']
  assert [c['execution_count'] for c in code] == list(range(1, len(code) + 1))  # a fresh kernel
  outputs = [output for c in code for output in c['outputs']]
  assert {o['output_type'] for o in outputs} <= {'stream', 'display_data', 'execute_result'}
  assert not [o for o in outputs if o.get('name') == 'stderr']
  texts = [''.join(o.get('text', '')) + ''.join(o.get('data', {}).get('text/plain', ''))
           for o in outputs]  # fmt: skip
  assert not [text for text in texts if PATHS.search(text) or 'arning:' in text]
  pictures = [base64.b64decode(v) for o in outputs for k, v in o.get('data', {}).items()
              if k.startswith('image/')]  # fmt: skip
  assert pictures or name == 'performance'
  assert all(p[:4] in (b'\x89PNG', b'\xff\xd8\xff\xe0') for p in pictures)


def test_all_notebooks_begin_alike():
  for beginning in ('# @title Install', 'from senet_jax.reporting import notebook'):
    assert len({cell(name, beginning) for name in notebooks.NAMES}) == 1
  assert {p.stem for p in notebooks.FOLDER.glob('*.ipynb')} == set(notebooks.NAMES)


@pytest.mark.parametrize('name', notebooks.NAMES)
def test_link_and_address_are_those_of_the_project(name):
  settings = configparser.ConfigParser()
  settings.read(paths.ROOT / 'setup.cfg')
  url = settings['metadata'].get('url', '')
  place = url.removeprefix('https://github.com/')
  target = f'github/{place}/blob/main/colab/{name}.ipynb' if url else ''
  assert f'[Open in Colab](https://colab.research.google.com/{target})' in notebooks.text(name)
  assert f"PROJECT = '{url}'" in cell(name, '# @title Install')


@pytest.fixture
def install(tmp_path, monkeypatch):
  """Runs the cell that installs, in an empty directory without senet_jax; returns pip's command."""
  monkeypatch.chdir(tmp_path)
  calls = []

  def run(status=0):
    def pip(command):
      calls.append(command)
      return types.SimpleNamespace(returncode=status)

    monkeypatch.setattr(subprocess, 'run', pip)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    exec(compile(cell('quickstart', '# @title Install'), 'install', 'exec'), {})
    return calls[-1]

  return run


def test_install_takes_the_wheel_and_keeps_jax(install, tmp_path):
  import jax

  (tmp_path / 'senet_jax-0.1.0-py3-none-any.whl').touch()
  command = install()
  assert command[1:4] == ['-m', 'pip', 'install'] and command[-1].startswith('senet_jax-0.1.0')
  kept = (tmp_path / command[command.index('-c') + 1]).read_text().splitlines()
  assert f'jax=={jax.__version__}' in kept and any(line.startswith('jaxlib==') for line in kept)


def test_install_says_what_is_missing(install, tmp_path):
  with pytest.raises(SystemExit, match=r'Upload the wheel'):
    install()
  (tmp_path / 'senet_jax-0.1.0-py3-none-any.whl').touch()
  with pytest.raises(SystemExit, match=r'does not go with .*jax==.*choose a newer runtime'):
    install(status=1)


def test_numbers_in_the_texts_are_those_on_record():
  record = json.loads(
    (paths.ROOT / 'results/benchmarks/profile_v5e_se_r50_vs_r50.json').read_text()
  )
  text = notebooks.text('performance')
  for key, scale, form in (('flops', 1e9, '.1f'), ('bytes', 1e9, '.2f')):
    ours, plain = (format(p[key] / scale, form) for p in record['profiles'])
    assert f'| {ours} | {plain} | {record["ratios"][key]:.4f} |' in text
  table = (paths.ROOT / 'results/studies/ratio_small.md').read_text()
  rows = re.findall(
    r'^# \| `(\w+)` \| ([\d.]+ ± [\d.]+) \| (.*?)\|$', notebooks.text('paper'), re.M
  )
  assert len(rows) == 5
  for row, error, against in rows:
    line = next(line for line in table.splitlines() if line.startswith(f'| `{row}` |'))
    assert error in line and against.strip() in line


@pytest.mark.thorough
@pytest.mark.parametrize('name', ['quickstart'])
def test_runs_from_a_fresh_kernel_without_tensorflow(name, tmp_path):
  check_run(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['squeeze_excite_explained', 'performance', 'paper'])
def test_the_others_run_too(name, tmp_path):
  check_run(name, tmp_path)


def check_run(name, directory):
  pytest.importorskip('nbclient')
  found = notebooks.execute(
    name,
    directory,
    tensorflow=False,
    SENET_JAX_SMALL='1',
    TFDS_DATA_DIR=str(directory / 'none'),
    JAX_NUM_CPU_DEVICES='1',
  )
  outputs = [output for c in found.cells for output in c.get('outputs', ())]
  assert not [o for o in outputs if o.output_type == 'error']
  if name == 'quickstart':
    assert (directory / 'runs/quickstart/digits/summary.json').is_file()
    said = ''.join(o.text for o in outputs if o.output_type == 'stream')
    assert 'on digits test: 360 images' in said and 'no photos of yours in photos/' in said
    errors = [float(x) for x in re.findall(r'top1_error +([\d.]+) %', said)]
    assert errors[0] < 20 and errors[1] < 30  # ten digits, five classes of photos
