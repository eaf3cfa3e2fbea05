"""The mutants are of the code as it is."""

import pytest

from tests.campaigns.mutants import MUTANTS
from tests.helpers import paths


@pytest.mark.parametrize('mutant', MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_place(mutant):
  text = (paths.ROOT / 'senet_jax' / mutant.path).read_text()
  assert text.count(mutant.before) == 1
  compile(text.replace(mutant.before, mutant.after), mutant.path, 'exec')
  assert all((paths.TESTS / name).exists() for name in mutant.tests)
