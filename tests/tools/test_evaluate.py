"""The command that evaluates: which errors it names."""

import pytest

from senet_jax.tools import evaluate


@pytest.mark.parametrize(
  ('classes', 'expected'), [(2, [1]), (4, [1, 3]), (5, [1, 3]), (6, [1, 3, 5])]
)
def test_errors_that_can_only_be_0_are_left_out(classes, expected):
  assert evaluate._telling(classes) == expected
