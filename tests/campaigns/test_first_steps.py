"""The times in README and the sizes in docs/install.md are those of the record."""

import itertools
import json
import re

from tests.campaigns import first_steps
from tests.helpers.paths import ROOT

RECORD = json.loads((ROOT / 'results' / 'benchmarks' / 'first_steps.json').read_text())


def test_readme_has_the_times_of_the_record():
  readme = (ROOT / 'README.md').read_text()
  assert {step['command'] for step in RECORD['steps']} <= set(first_steps.commands(readme))
  for step in RECORD['steps']:
    time = first_steps.shown(step['seconds'])
    assert re.search(rf'`{re.escape(step["command"])}` \| {time}[ ,]', readme), step


def test_sizes_are_those_of_the_record():
  base, *extras = RECORD['installed']
  rows = [('base', base['megabytes'])]
  for before, after in itertools.pairwise([base, *extras]):
    extra = re.search(r'\[(\w+)\]', after['what'])[1]
    rows.append((f'`{extra}` adds', after['megabytes'] - before['megabytes']))
  table = '\n'.join(f'| {what} | {megabytes} |' for what, megabytes in rows)
  assert f'\n{table}\n\n' in (ROOT / 'docs' / 'install.md').read_text()
  readme = (ROOT / 'README.md').read_text()
  sizes = dict(rows)
  assert f'base install takes {sizes["base"] / 1e3:.1f} GB ({base["seconds"]:.0f} s' in readme
  assert f'`tensorflow` adds {sizes["`tensorflow` adds"] / 1e3:.1f} GB' in readme
