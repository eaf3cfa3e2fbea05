"""The campaign of kills finds what it should, and nothing in a command that writes as it should."""

import importlib.util
import random
import subprocess
import sys

import pytest

from tests.campaigns import kills

# Two halves with time for a kill between them: in place, aside, and aside without clearing up.
_WRITES = """
import pathlib, sys, time
how, home = sys.argv[1], pathlib.Path(sys.argv[2])
aside = home / (f'.{time.time_ns()}' if how == 'leaves' else '.made')
path = home / 'made' if how == 'in place' else aside
path.write_text('first')
time.sleep(0.1)
path.write_text('first and second')
path.rename(home / 'made')
"""


@pytest.mark.parametrize(
  ('how', 'found'),
  [('aside', set()), ('in place', {'half_seen'}), ('leaves', {'differing_ends'})],
)
def test_the_campaign_finds(how, found, monkeypatch, tmp_path):
  def start(arguments, base, home, sources):
    return subprocess.Popen([sys.executable, '-S', '-c', _WRITES, arguments, home])

  monkeypatch.setattr(kills, '_start', start)
  campaign = kills.Campaign(kills.Command(how, kills._directories), tmp_path / 'x', tmp_path)
  campaign.run(8, random.Random(0))
  assert campaign.counts['kills'] == 8 and campaign.counts['ends'] >= 1
  assert {name for name in ('half_seen', 'differing_ends') if campaign.counts[name]} == found


def test_commands_are_those_of_this_version():
  for command in kills.COMMANDS.values():
    module = command.arguments.split()[0]
    assert importlib.util.find_spec(f'senet_jax.{module}')
