"""A few hundred damaged and hostile inputs, and that the fuzzer finds what it should."""

import importlib.util
import os
import pathlib
import time

import numpy as np
import pytest

from senet_jax.errors import UserError
from tests.helpers import paths

_FILE = paths.TESTS / 'campaigns' / 'fuzz.py'


@pytest.fixture(scope='module')
def fuzz():
  pytest.importorskip('torch')
  spec = importlib.util.spec_from_file_location('fuzz', _FILE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture
def campaign(fuzz):
  with fuzz.Campaign(seed=0, seconds=120).opened() as campaign:
    yield campaign


def test_inputs_of_strangers_work_or_are_refused_in_a_line(campaign):
  campaign.run(250)
  assert campaign.found == {}
  counts = campaign.counts.values()
  assert sum(count.inputs for count in counts) >= 245
  # Else what is damaged is not what is read.
  assert sum(count.accepted for count in counts) > 30 < sum(count.refused for count in counts)


def _raises(rng, material, folder):
  raise KeyError('x')


def _says_nothing(rng, material, folder):
  raise UserError('')


def _hangs(rng, material, folder):
  time.sleep(60)


def _takes_memory(rng, material, folder):
  np.ones(2**27, np.uint8)


def _writes_outside(rng, material, folder):
  (folder / '..' / 'escaped').write_text('')


def _writes_here(rng, material, folder):
  pathlib.Path('escaped').write_text('')


def _changes_outside(rng, material, folder):
  (material.outside / 'secret').write_text('changed')


@pytest.mark.parametrize(
  ('target', 'finding'),
  [
    (_raises, 'KeyError in '),
    (_says_nothing, 'UserError in '),
    (_hangs, 'TooSlow in '),
    (_takes_memory, ' GiB of memory'),
    (_writes_outside, 'changed '),
    (_writes_here, 'changed '),
    (_changes_outside, 'changed '),
  ],
)
def test_the_campaign_finds(fuzz, target, finding, monkeypatch, capsys):
  monkeypatch.setattr(fuzz, 'TARGETS', {target: (100, ())})
  here = os.getcwd()
  seconds = 0.2 if target is _hangs else 60
  with fuzz.Campaign(seconds=seconds, gigabytes=0.1).opened() as campaign:
    campaign.run(1)
  [found] = campaign.found
  assert found.startswith(f'{target.__name__}: ') and finding in found
  assert 'FINDING' in capsys.readouterr().err and os.getcwd() == here


def test_an_input_is_the_same_each_time(fuzz):
  inputs = []

  def target(rng, material, folder):
    inputs.append(fuzz.mutated(rng, bytes(range(200))))

  for _ in range(2):
    with fuzz.Campaign(seed=3).opened() as campaign:
      campaign.counts['target'] = fuzz.Count()
      for i in range(5):
        campaign.hand_over(target, i)
  assert inputs[:5] == inputs[5:] and len(set(inputs)) == 5
