"""The whole list of measurements of `tools.evidence`, tiny; that beside PyTorch needs torch."""

import json
import os
import re
import signal
import subprocess
import sys
import time

from senet_jax.measure import evidence, plan
from tests.helpers.paths import ROOT


def test_a_rehearsal_goes_through_the_whole_list(tmp_path):
  """Killed once on the way: what was there stays as it is, and the rest is made."""
  line = [sys.executable, '-m', 'senet_jax.tools.evidence', f'--output={tmp_path}/out',
          '--rehearse', '--commit=abcdef0']  # fmt: skip
  environment = {**os.environ, 'JAX_NUM_CPU_DEVICES': '2'}
  first = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
  output, deadline = tmp_path / 'out', time.monotonic() + 300
  done = lambda: [p for p in output.glob('*.json') if p.name != evidence.INDEX]  # noqa: E731
  while len(done()) < 3 and time.monotonic() < deadline:
    time.sleep(0.1)
  first.send_signal(signal.SIGKILL)
  first.wait()
  before = {path: path.read_bytes() for path in done()}
  assert 3 <= len(before) < len(plan.MEASUREMENTS)
  second = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert second.returncode == 0, second.stdout + second.stderr
  assert {path: path.read_bytes() for path in before} == before
  table = second.stdout[second.stdout.index('\nmeasurement ') :]
  for measurement in plan.MEASUREMENTS:
    assert re.search(rf'^{measurement.name} +(done|skipped) ', table, re.MULTILINE), table
    path = output / f'{measurement.name}.json'
    if not path.exists():
      assert re.search(rf'^{measurement.name} +skipped .*installed$', table, re.MULTILINE), table
      continue
    found = json.loads(path.read_text())
    assert found['git_commit'].rstrip('+') == 'abcdef0' and found['device'] == '2 x cpu'
    assert found['versions']['jax'] and found['command'].startswith('python -m senet_jax.')
    assert found['measurement']['status'] == 'done' and found['date'] and found['what']
  found = json.loads((output / 'determinism.json').read_text())
  assert found['bitwise_equal'] and len(set(found['params_sha256'])) == 1
  fed = json.loads((output / 'photos.json').read_text())['rows']
  assert {row['kind'] for row in fed} == {'fed', 'in place'}
  (step,) = json.loads((output / 'where_time_goes.json').read_text())['profiles']
  assert step['trace']['kinds']
