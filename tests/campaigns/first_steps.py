"""Does what a newcomer does, by README alone, with a stopwatch.

  python -m tests.campaigns.first_steps --photos=FOLDER --output=results/benchmarks/first_steps.json

Installs the package and its extras into an empty environment, each time as pip does it with its
cache, and runs the commands of README's table "I want to …" in an empty directory, with what a
reader would put in the place of the capitals. Rows that need data, a network or hours are left out.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from senet_jax import cli
from senet_jax.storage import files
from senet_jax.workdir import summary
from tests.helpers.paths import ROOT

# After the base, one on top of the other.
EXTRAS = ('hub', 'interop', 'demo', 'export', 'tensorflow', 'tensorboard')
_ROW = re.compile(r'^\| ([^|]*) \| `(senet [^`]*)` \|', re.MULTILINE)
# Those that take hours, or data or machines that are not there.
_LEFT_OUT = ('=cifar10', '=imagenet', 'hf:', '--from=', 'senet activations', 'senet study', '=tpu:')


def commands(readme: str) -> dict[str, str]:
  """Returns what README's table "I want to …" offers, by its command."""
  return {command: what for what, command in _ROW.findall(readme)}


def shown(seconds: float) -> str:
  """Returns a time as README says it."""
  if seconds < 10:
    return f'{seconds:.1f} s'
  return f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} min'


class _Newcomer:
  """Somebody in an empty directory, with an environment of their own."""

  def __init__(self, home: pathlib.Path):
    self.home = home
    self._bin = home / 'venv' / 'bin'
    subprocess.run([sys.executable, '-m', 'venv', home / 'venv'], check=True)

  def install(self, what: str) -> dict[str, object]:
    """Installs a part of the package; returns how long that took, and the size of all."""
    constraints = ROOT / 'constraints.txt'
    begin = time.monotonic()
    subprocess.run(
      [self._bin / 'pip', 'install', '--quiet', '-c', constraints, f'{ROOT}{what}'], check=True
    )
    seconds = time.monotonic() - begin
    size = sum(p.lstat().st_size for p in (self.home / 'venv').rglob('*') if not p.is_dir())
    return {
      'what': f'senet_jax{what}',
      'seconds': round(seconds, 1),
      'megabytes': round(size / 1e6),
    }

  def run(self, command: str) -> float:
    """Runs a command until it ends, or answers as a server; returns the seconds."""
    path = f'{self._bin}:{os.environ["PATH"]}'
    begin = time.monotonic()
    process = subprocess.Popen(
      command, shell=True, cwd=self.home, env={**os.environ, 'PATH': path}, text=True,
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    lines = []
    for line in process.stdout:
      lines.append(line)
      if 'http://127.0.0.1' in line:
        os.killpg(process.pid, 15)
        break
    seconds = time.monotonic() - begin
    if process.wait() and 'serve' not in command:
      raise RuntimeError(f'{command}: exit status {process.returncode}\n{"".join(lines[-20:])}')
    return seconds


def _prepare(home: pathlib.Path, python: pathlib.Path) -> None:
  """Makes a photo, as a reader has one."""
  code = (
    'from PIL import Image; from sklearn.datasets import load_sample_image as load\n'
    'Image.fromarray(load("flower.jpg")).save("photo.jpg")\n'
  )
  subprocess.run([python, '-c', code], check=True, cwd=home)


def main(argv: list[str]) -> None:
  """Runs the campaign with the arguments `argv`."""
  parser = cli.Parser('first_steps', __doc__)
  parser.add_argument('--photos', type=pathlib.Path, required=True, help='train/CLASS, val/CLASS')
  parser.add_argument('--output', type=pathlib.Path, required=True)
  args = parser.parse_args(argv)
  record = summary.record_head('The first steps of a newcomer', '', argv)
  record['command'] = ' '.join(['python -m tests.campaigns.first_steps', *argv])
  with tempfile.TemporaryDirectory(prefix='first_steps_') as name:
    home = pathlib.Path(name)
    newcomer = _Newcomer(home)
    record['installed'] = [newcomer.install('')]
    _prepare(home, home / 'venv' / 'bin' / 'python')
    given = {'PHOTOS': str(args.photos.resolve()), 'PHOTO': 'photo.jpg', 'DIR': 'out'}
    first = 'senet predict --workdir=se_resnet20_cifar10 PHOTO'
    record['steps'] = [_timed(newcomer, first, given)]
    record['installed'] += [newcomer.install(f'[{extra}]') for extra in EXTRAS]
    for command in commands((ROOT / 'README.md').read_text()):
      if command != first and not any(part in command for part in _LEFT_OUT):
        record['steps'].append(_timed(newcomer, command, given))
  files.write_json(args.output, record)
  print(f'wrote {args.output}')


def _timed(newcomer: _Newcomer, command: str, given: dict[str, str]) -> dict[str, object]:
  run = command
  for word, value in given.items():
    run = re.sub(rf'\b{word}\b', value, run)
  seconds = newcomer.run(run)
  print(f'{seconds:8.1f} s  {run}')
  return {'command': command, 'seconds': round(seconds, 1)}


if __name__ == '__main__':
  cli.run(main)
