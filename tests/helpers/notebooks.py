"""The notebooks of colab/: what they are made of, and how they are executed and stored.

  python -m tests.helpers.notebooks [NAME …]

executes them from a fresh kernel and writes them with their outputs; `make notebooks` does.
"""

import os
import pathlib
import platform
import sys
import tempfile
import time

from tests.helpers import paths

FOLDER = paths.ROOT / 'colab'
NAMES = ('quickstart', 'squeeze_excite_explained', 'performance', 'paper')
# Seconds of one cell.
_TIMEOUT = 1800
_BUSY = 'this machine is busy'


def text(name: str) -> str:
  return (FOLDER / f'{name}.py').read_text()


def of_text(name: str):
  """Returns the notebook that the text of `name` is, without outputs."""
  import jupytext

  return jupytext.reads(text(name), fmt='py:percent')


def execute(name: str, directory: pathlib.Path, *, tensorflow: bool = True, **environment: str):
  """Returns the notebook of the text with the outputs of a fresh kernel.

  Args:
    name: of the notebook.
    directory: where it runs, and what it writes goes.
    tensorflow: whether the kernel can import it.
    environment: variables of the kernel.
  """
  import nbclient

  blocked = directory / '.blocked'
  blocked.mkdir(parents=True, exist_ok=True)
  if not tensorflow:
    (blocked / 'tensorflow.py').write_text('raise ImportError("TensorFlow is blocked")')
  environment = {
    **os.environ,
    'PYTHONPATH': os.pathsep.join([str(blocked), str(paths.ROOT)]),
    'IPYTHONDIR': str(directory / '.ipython'),
    'JUPYTER_RUNTIME_DIR': str(directory / '.jupyter'),
    **environment,
  }
  notebook = of_text(name)
  client = nbclient.NotebookClient(
    notebook,
    timeout=_TIMEOUT,
    kernel_name='python3',
    record_timing=False,
    coalesce_streams=True,
    resources={'metadata': {'path': str(directory)}},
  )
  client.execute(env=environment)
  return notebook


def tidy(notebook, directory: pathlib.Path):
  """Takes what belongs to this machine out of the outputs: paths, and names of cells."""
  for number, cell in enumerate(notebook.cells):
    cell.id = f'cell-{number}'
    if 'outputs' in cell:  # the text says that the machine was busy
      cell.outputs = [o for o in cell.outputs if _BUSY not in o.get('text', '')]
    for output in cell.get('outputs', ()):
      output.get('metadata', {}).clear()
      if 'text' in output:
        output.text = output.text.replace(f'{directory}/', '')
        output.text = output.text.replace(f' on {platform.node()}:', ' on host:')
  notebook.metadata.pop('language_info', None)
  return notebook


def store(name: str) -> None:
  """Executes the notebook and writes it with its outputs."""
  import nbformat

  started = time.monotonic()
  with tempfile.TemporaryDirectory() as scratch:
    directory = pathlib.Path(scratch).resolve()
    notebook = tidy(execute(name, directory), directory)
  path = FOLDER / f'{name}.ipynb'
  path.write_text(nbformat.writes(notebook) + '\n')
  size = path.stat().st_size / 1e3
  print(f'{path.name}: {time.monotonic() - started:.0f} s, {size:.0f} kB', flush=True)


if __name__ == '__main__':
  for chosen in sys.argv[1:] or NAMES:
    store(chosen)
