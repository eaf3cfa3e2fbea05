"""Kills commands that write at random moments, again and again, and looks at what is left.

  python -m tests.campaigns.kills --kills=50 --workdir=/tmp/faults --output=sigkill.json
  python -m tests.campaigns.kills --kills=10 --workdir=/tmp/faults --only=convert,prune

Each life of a command gets SIGKILL after a random time; every second one while it writes. After
each, whatever is to be seen must be whole: checkpoints with their checksums, files and directories
as they are when nobody kills the command. Whenever it gets to its end, all must be as then, bit for
bit, and nothing may lie beside it. Exit status 1 if something is not so.
"""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import numpy as np
from PIL import Image

from senet_jax import cli, runtime
from senet_jax.data import arrays, carry
from senet_jax.errors import one_of
from senet_jax.storage import files
from senet_jax.workdir import saved, summary
from senet_jax.workdir.state import params_sha256
from tests.helpers.paths import ROOT

# A run with two evaluations and a dozen checkpoints.
_RUN = (
  '--config.model.depths=(1,1,1) --config.model.width=8 --config.model.se.ratio=4 '
  '--config.epochs=2 --config.checkpoint.every_steps=4 --config.log.tensorboard=False'
)
_STUDY = f"""
from senet_jax.config.study import Row, Study

def get_study():
  row = Row('digits', 'configs/digits_se_r20.py', {tuple(_RUN.split())})
  return Study('killed', (row,), seeds=(0, 1))
"""
_COUNTS = ('kills', 'kills_after_a_change', 'whole_seen', 'half_seen', 'ends', 'differing_ends',
           'kills_before_an_end')  # fmt: skip


# --- what is to be seen ---------------------------------------------------------------------------


def _seen(home: pathlib.Path, pattern: str) -> list[pathlib.Path]:
  """Returns the paths below `home` that match and that are not hidden."""
  return [
    path
    for path in sorted(home.rglob(pattern))
    if not any(part.startswith('.') for part in path.relative_to(home).parts)
  ]


def _runs(home: pathlib.Path) -> dict[str, str]:
  """Returns the digests of checkpoints and of what runs and studies say at their end, by path."""
  found = {}
  for path in _seen(home, 'checkpoints/*'):
    if path.name.isdecimal():
      name = str(path.relative_to(home))
      try:
        state = saved.load(path.parents[1], path.name, runtime.data_mesh(1))
        found[name] = params_sha256(state.variables)
      except Exception as error:
        found[name] = f'damaged: {error}'
  for path in _seen(home, 'summary.json'):
    found[str(path.relative_to(home))] = json.loads(path.read_text())['params_sha256']
  for path in _seen(home, 'table.json'):
    found[path.name] = str([row['params_sha256'] for row in json.loads(path.read_text())['rows']])
  return found


def _directories(home: pathlib.Path) -> dict[str, str]:
  """Returns one digest for the files of a directory: they are to be there all, or not at all."""
  found = collections.defaultdict(hashlib.sha256)
  for path in _seen(home, '*'):
    if path.is_file():
      content = hashlib.sha256(path.read_bytes()).hexdigest()
      found[str(path.parent.relative_to(home))].update(f'{path.name} {content} '.encode())
  return {name: digest.hexdigest() for name, digest in found.items()}


def _examples(home: pathlib.Path) -> dict[str, str]:
  """Returns a digest of the examples of each split; their records have no order of features."""
  import tensorflow_datasets as tfds

  encoded = {'image': tfds.decode.SkipDecoding()}
  found = {}
  for folder in {path.parent for path in _seen(home, '*') if path.is_file()}:
    for split in ('train', 'val'):
      try:
        builder = tfds.builder_from_directory(folder)
        examples = list(builder.as_dataset(split, decoders=encoded).as_numpy_iterator())
        content = repr([(example['image'], int(example['label'])) for example in examples])
        digest = hashlib.sha256(content.encode()).hexdigest()
      except Exception as error:
        digest = f'damaged: {error}'
      found[f'{folder.relative_to(home)}, {split}'] = digest
  return found


@dataclasses.dataclass(frozen=True)
class Command:
  """A command that is killed.

  Attributes:
    arguments: of `python -m senet_jax.…`; `{home}` is an empty directory, and `{sources}` has what
      `_make_sources` makes.
    seen: `home` -> the digests of what is to be seen there, by name.
    refuses: to write where something is, so that what is there is its end.
  """

  arguments: str
  seen: Callable[[pathlib.Path], dict[str, str]]
  refuses: bool = False


_MAIN = f'main --config=configs/digits_se_r20.py {_RUN}'
COMMANDS = {
  'main': Command(f'{_MAIN} --workdir={{home}}/run', _runs),
  'study': Command(
    'tools.study --study={sources}/study.py --workdir={home} --output={home}/table.json', _runs
  ),
  'prepare_photos': Command(
    'tools.prepare_data --dataset=mine --image_folder={sources}/photos --data_dir={home}/data',
    _examples,
  ),
  'prepare_arrays': Command(
    'tools.prepare_data --dataset=cifar10 --arrays_only --source={sources}/pack '
    '--data_dir={home}/data',
    _directories,
  ),
  'convert': Command('tools.convert --from={sources}/run --to={home}/copy', _runs, refuses=True),
  'convert_to_file': Command(
    'tools.convert --from={sources}/run --to={home}/a.safetensors', _directories, refuses=True
  ),
  'prune': Command(
    'tools.prune --workdir={sources}/run --channels=0.3 --images_per_class=2 --to={home}/pruned',
    _runs,
    refuses=True,
  ),
}


def _start(arguments: str, base: pathlib.Path, **places: pathlib.Path) -> subprocess.Popen:
  module, *flags = (argument.format(**places) for argument in arguments.split())
  with (base / 'log.txt').open('w') as log:
    return subprocess.Popen(
      [sys.executable, '-m', f'senet_jax.{module}', *flags], cwd=ROOT, stdout=log, stderr=log
    )


def _end(process: subprocess.Popen, base: pathlib.Path) -> None:
  """Waits for the end of a life that is not cut off."""
  if process.wait():
    raise SystemExit((base / 'log.txt').read_text())


def _make_sources(sources: pathlib.Path) -> None:
  """Makes what the commands read: a finished run, photos, a pack with arrays, and a study."""
  shutil.rmtree(sources, ignore_errors=True)
  sources.mkdir(parents=True)
  rng = np.random.default_rng(0)
  for split in ('train', 'val'):
    for i in range(100):
      path = sources / 'photos' / split / f'class_{i % 2}' / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(path)
  splits = {
    split: (rng.integers(0, 256, (2000, 32, 32, 3), np.uint8), np.arange(2000) % 10)
    for split in ('train', 'test')
  }
  version_dir = sources / 'data' / 'cifar10' / '3.0.2'
  arrays.write_arrays(version_dir, 'cifar10', '3.0.2', splits, list('0123456789'))
  carry.pack(sources / 'pack', sources={'cifar10': sources / 'data'}, wheels=())
  (sources / 'study.py').write_text(_STUDY)
  _end(_start(f'{_MAIN} --workdir={{sources}}/run', sources, sources=sources), sources)


# --- the campaign ---------------------------------------------------------------------------------


class Campaign:
  """Kills one command again and again, in a directory of its own."""

  def __init__(self, command: Command, base: pathlib.Path, sources: pathlib.Path):
    """Empties `base`, and sees what comes of the command when nobody kills it."""
    self._command, self._base, self._sources = command, base, sources
    self._home = base / 'home'
    self.counts: dict[str, int] = collections.Counter()
    _end(self._life(), base)  # fills the cache of compiled programs
    process, begin = self._life(), time.monotonic()
    self._wait_for_change(process)
    change = time.monotonic()
    _end(process, base)
    self.seconds, self._writing = time.monotonic() - begin, time.monotonic() - change
    self._seen, self._hidden = command.seen(self._home), self._names_of_hidden()

  def _life(self, anew: bool = True) -> subprocess.Popen:
    if anew:
      shutil.rmtree(self._base, ignore_errors=True)
    self._home.mkdir(parents=True, exist_ok=True)
    self._before = self._times()
    return _start(self._command.arguments, self._base, home=self._home, sources=self._sources)

  def run(self, kills: int, rng: random.Random) -> None:
    """Kills so many lives, and lets the last one come to its end."""
    killed, in_a_row = 0, 0
    while killed < kills or in_a_row:
      process = self._life(anew=not in_a_row)
      if killed == kills:
        _end(process, self._base)
      elif self._kill(process, rng):
        killed, in_a_row = killed + 1, in_a_row + 1
        seen = self._look()
        if not (seen and self._command.refuses):
          continue
      self.counts['ends'] += 1
      self.counts['differing_ends'] += self._differs()
      self.counts['kills_before_an_end'] = max(self.counts['kills_before_an_end'], in_a_row)
      in_a_row = 0

  def _kill(self, process: subprocess.Popen, rng: random.Random) -> bool:
    """Kills a life at a random moment; returns False if it came to its end before that."""
    seconds = self.seconds
    if rng.random() < 0.5:
      seconds = self._writing
      self._wait_for_change(process)
    try:
      process.wait(rng.uniform(0, 1.1 * seconds))
      _end(process, self._base)
      return False
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
    self.counts['kills'] += 1
    self.counts['kills_after_a_change'] += self._times() != self._before
    return True

  def _look(self) -> dict[str, str]:
    """Compares what is to be seen after a kill with what nobody kills; returns it."""
    seen = self._command.seen(self._home)
    for name, digest in seen.items():
      if digest.startswith('damaged') or digest != self._seen.get(name, digest):
        self.counts['half_seen'] += 1
        print(f'FINDING: {name} is half there: {digest}', flush=True)
      else:
        self.counts['whole_seen'] += 1
    return seen

  def _differs(self) -> bool:
    """Returns whether an end has anything else than one that nobody killed."""
    for here, there in (
      (self._command.seen(self._home), self._seen),
      (self._names_of_hidden(), self._hidden),
    ):
      if here != there:
        print(f'FINDING: at the end there is {here}, not {there}', flush=True)
        return True
    return False

  def _names_of_hidden(self) -> list[str]:
    return sorted(path.name for path in self._home.rglob('.*'))

  def _times(self) -> dict[str, int]:
    found = {}
    for path in self._home.rglob('*'):
      with contextlib.suppress(FileNotFoundError):
        found[str(path)] = path.stat().st_mtime_ns
    return found

  def _wait_for_change(self, process: subprocess.Popen) -> None:
    while process.poll() is None and self._times() == self._before:
      time.sleep(0.005)


def main(argv: list[str]) -> int:
  """Runs the campaign; returns 1 if anything was lost or half there."""
  parser = cli.Parser('tests.campaigns.kills', __doc__)
  parser.add_argument('--kills', type=cli.number, default=50, help='of all commands together')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--only', type=cli.words, help=f'of {", ".join(COMMANDS)}')
  parser.add_output()
  args = parser.parse_args(argv)
  base, names = args.workdir.absolute(), args.only or tuple(COMMANDS)
  for name in names:
    one_of('--only', name, COMMANDS)
  _make_sources(base / 'sources')
  found = {}
  for i, name in enumerate(names):
    campaign = Campaign(COMMANDS[name], base / name, base / 'sources')
    campaign.run(len(range(i, args.kills, len(names))), random.Random(f'{args.seed} {name}'))
    found[name] = {key: campaign.counts[key] for key in _COUNTS}
    found[name]['seconds'] = round(campaign.seconds, 1)
    print(f'{name}: {found[name]}', flush=True)
  total = {key: sum(counts[key] for counts in found.values()) for key in _COUNTS[:-1]}
  if args.output:
    head = summary.record_head('SIGKILL at random moments of commands that write', 'x', argv)
    head['command'] = 'python -m tests.campaigns.kills ' + ' '.join(argv)
    files.write_json(args.output, {**head, **total, 'commands': found})
  print(json.dumps(total, indent=2))
  return 1 if total['half_seen'] or total['differing_ends'] else 0


if __name__ == '__main__':
  cli.run(main)
