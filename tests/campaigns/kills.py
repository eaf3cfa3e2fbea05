"""Kills a short training run at random moments, again and again, and looks at what is left.

  python -m tests.campaigns.kills --kills=50 --workdir=/tmp/faults --output=sigkill.json

Each life of the run gets SIGKILL after a random time: while it starts, compiles, trains, or saves.
After each, every checkpoint that is to be seen must be whole. Whenever a run gets to its end, its
parameters and statistics must be those of a run that nobody killed, bit for bit. Exit status 1 if
one is not.
"""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from senet_jax import cli, runtime
from senet_jax.storage import files
from senet_jax.workdir import saved, summary
from tests.helpers.paths import ROOT

RUN = (
  sys.executable,
  '-m',
  'senet_jax.main',
  '--config=configs/digits_se_r20.py',
  '--config.epochs=2',
  '--config.checkpoint.every_steps=2',
  '--config.log.tensorboard=False',
)


def main(argv: list[str]) -> int:
  """Runs the campaign; returns 1 if anything was lost or half there."""
  parser = cli.Parser('tests.campaigns.kills', __doc__)
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_output()
  args = parser.parse_args(argv)
  expected, seconds = uninterrupted(args.workdir / 'uninterrupted')
  print(f'uninterrupted: {seconds:.0f} s, {expected[:12]}')
  found = campaign(args, expected, seconds)
  print(json.dumps(found, indent=2))
  if args.output:
    head = summary.record_head('SIGKILL at random moments of a short run on digits', 'x', argv)
    head['command'] = 'python -m tests.campaigns.kills ' + ' '.join(argv)
    files.write_json(args.output, {**head, **found, 'params_sha256': expected})
  return 1 if found['differing_ends'] or found['damaged_checkpoints'] else 0


def uninterrupted(workdir: pathlib.Path) -> tuple[str, float]:
  """What the run comes to when nobody kills it, and the seconds that takes."""
  shutil.rmtree(workdir, ignore_errors=True)
  start(workdir).wait()  # fills the cache of compiled programs
  shutil.rmtree(workdir)
  since = time.monotonic()
  if start(workdir).wait():
    raise SystemExit((workdir.parent / 'log.txt').read_text())
  return sha256_of(workdir), time.monotonic() - since


def campaign(args: argparse.Namespace, expected: str, seconds: float) -> dict:
  """Counts of what happened."""
  rng, counts = random.Random(args.seed), collections.Counter()
  workdir = args.workdir / 'killed'
  shutil.rmtree(workdir, ignore_errors=True)
  while counts['kills'] < args.kills or counts['resumed']:
    process = start(workdir)
    try:
      # Of the last life nothing is cut off.
      enough = counts['kills'] >= args.kills
      status = process.wait(timeout=None if enough else rng.uniform(0, 1.1 * seconds))
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.wait()
      counts['kills'] += 1
      counts['resumed'] += 1
      counts['kills_during_saves'] += any(workdir.glob('checkpoints/*tmp*'))
      checkpoints = whole_and_damaged(workdir)
      counts['whole_checkpoints_seen'] += checkpoints[0]
      counts['damaged_checkpoints'] += checkpoints[1]
      print(f'kill {counts["kills"]}: {checkpoints[0]} whole, {checkpoints[1]} damaged', flush=True)
      continue
    if status:
      raise SystemExit((workdir.parent / 'log.txt').read_text())
    counts['ends'] += 1
    counts['differing_ends'] += sha256_of(workdir) != expected
    counts['kills_before_the_end'] = max(counts['kills_before_the_end'], counts['resumed'])
    counts['resumed'] = 0
    shutil.rmtree(workdir)
  del counts['resumed']
  names = ('kills', 'kills_during_saves', 'whole_checkpoints_seen', 'damaged_checkpoints', 'ends',
           'differing_ends', 'kills_before_the_end')  # fmt: skip
  return {name: counts[name] for name in names}


def start(workdir: pathlib.Path) -> subprocess.Popen:
  """One life of the run."""
  workdir.parent.mkdir(parents=True, exist_ok=True)
  log = (workdir.parent / 'log.txt').open('w')
  return subprocess.Popen([*RUN, f'--workdir={workdir}'], cwd=ROOT, stdout=log, stderr=log)


def sha256_of(workdir: pathlib.Path) -> str:
  """Of the parameters and statistics at the end of the run."""
  return json.loads((workdir / 'summary.json').read_text())['params_sha256']


def whole_and_damaged(workdir: pathlib.Path) -> tuple[int, int]:
  """Reads every checkpoint that is to be seen, with its checksum; how many are whole, and not."""
  steps = [path.name for path in workdir.glob('checkpoints/*') if path.name.isdecimal()]
  whole = 0
  for step in steps:
    try:
      saved.load(workdir, step, runtime.data_mesh(1))
      whole += 1
    except Exception as error:
      print(f'checkpoint {step}: {error}')
  return whole, len(steps) - whole


if __name__ == '__main__':
  cli.run(main)
