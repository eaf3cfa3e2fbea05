"""The model of many chips, beside a ring that is played through, and the page that shows it."""

import json

import numpy as np
import pytest

from senet_jax.errors import UserError
from senet_jax.measure import scaling
from senet_jax.measure.scaling import Input
from senet_jax.tools import scaling as tool
from tests.helpers.paths import ROOT

ROWS = ROOT / 'results' / 'benchmarks'


def ring(arrays: list[np.ndarray]) -> int:
  """Sums the arrays in place, in a ring; returns the bytes that one member sends."""
  n, sent = len(arrays), 0
  chunks = [np.split(a, n) for a in arrays]  # views
  for adding in (True, False):
    for turn in range(n - 1):
      first = 0 if adding else 1
      moved = [chunks[i][(i - turn + first) % n].copy() for i in range(n)]
      sent += moved[0].nbytes
      for i, chunk in enumerate(moved):
        place = chunks[(i + 1) % n][(i - turn + first) % n]
        place[:] = place + chunk if adding else chunk
  return sent


@pytest.mark.parametrize('islands', [1, 2, 4])
def test_all_reduce_is_that_of_rings(islands):
  island, size = 8, 64 * 4
  arrays = np.random.default_rng(0).normal(size=(islands * island, 64))
  first = [a.copy() for a in arrays[:island]]
  within = ring(first)
  np.testing.assert_allclose(first, [arrays[:island].sum(0)] * island)
  across = ring([a.copy() for a in arrays[:islands, : 64 // island]])  # a chip's share
  cluster = scaling.Cluster(island, 4, 100, 1, network=10.0, source='')
  seconds = scaling.all_reduce_time(2 * size, islands * island, 50.0, cluster)
  assert seconds == pytest.approx(within / 50 + across / 10)


def profile(step_s=0.1, size=10**8, chip='v5e'):
  return {
    'roofline': {'chip': {'name': chip}, 'step_s': step_s, 'bound': 'memory'},
    'collectives': {'all-reduce': {'count': 1, 'bytes': size}},
    'batch_per_device': 128,
  }


def test_one_chip_has_nobody_to_wait_for():
  found = scaling.predict(profile(), 1, Input(1000))
  assert found['all_reduce_s'] == 0 and found['efficiency'] == 1 and found['hosts'] == 1
  assert found['images_per_second'] == found['fed_by_host'] == pytest.approx(1280)


def test_limits():
  assert scaling.predict(profile(), 256, Input(1000))['limit'] == 'memory'
  assert scaling.predict(profile(size=10**11), 256, Input(1000))['limit'] == 'all-reduce'
  # 8 chips x 1280 images/s need 46 images/s of each of 224 cores.
  assert scaling.predict(profile(), 8, Input(44))['limit'] == 'input'
  assert scaling.predict(profile(), 8, Input(47))['limit'] == 'memory'


@pytest.mark.parametrize(('chip', 'cores'), [('v5e', 5), ('h200', 8 * 5)])
def test_a_process_keeps_few_cores_busy(chip, cores):
  found = scaling.predict(profile(chip=chip), 8, Input(100, cores_per_process=5))
  assert found['host_can_feed'] == 100 * cores
  enough = scaling.predict(profile(chip=chip), 8, Input(100, cores_per_process=1000))
  assert enough == scaling.predict(profile(chip=chip), 8, Input(100))


def test_the_page_shows_what_the_model_says():
  page = (ROOT / 'docs' / 'scaling.md').read_text()
  rows = json.loads((ROWS / 'scaling.json').read_text())
  names = [part for part in rows['command'].split() if part.endswith('.json')]
  paths = [ROOT / name for name in names if (ROOT / name).exists() and 'profile_' in name]
  assert len(paths) >= 3
  flags = dict(part[2:].split('=') for part in rows['command'].split() if part.startswith('--'))
  images = Input(float(flags['images_per_core']), float(flags['cores_per_process']))
  found = [row for path in paths for row in scaling.predictions(path, [8, 64, 256, 1024], images)]
  assert found == rows['rows']
  assert scaling.table(found) in page


def test_mistakes(tmp_path):
  broken = tmp_path / 'profile.json'
  broken.write_text('{"profiles": []}')
  with pytest.raises(UserError, match='is no profile with a roofline'):
    tool.main([str(broken), '--images_per_core=100'])
  with pytest.raises(UserError, match='--chips=8,x must be whole numbers'):
    tool.main([str(broken), '--chips=8,x', '--images_per_core=100'])
  with pytest.raises(UserError, match="--images_per_core: '0' must be greater than 0"):
    tool.main([str(broken), '--images_per_core=0'])
  with pytest.raises(UserError, match="chip='v4' is unknown"):
    scaling.predict(profile(chip='v4'), 8, Input(100))
