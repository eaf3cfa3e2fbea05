"""The times in README are those that somebody took with a stopwatch."""

import json
import re

from tests.campaigns import first_steps
from tests.helpers.paths import ROOT


def test_readme_has_the_times_of_the_record():
  readme = (ROOT / 'README.md').read_text()
  steps = json.loads((ROOT / 'results' / 'benchmarks' / 'first_steps.json').read_text())['steps']
  assert {step['command'] for step in steps} <= set(first_steps.commands(readme))
  for step in steps:
    time = first_steps.shown(step['seconds'])
    assert re.search(rf'`{re.escape(step["command"])}` \| {time}[ ,]', readme), step
