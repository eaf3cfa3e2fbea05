"""The figures of an evaluation that need each image."""

import numpy as np
import pytest

from senet_jax.evaluation.outcomes import Outcomes


@pytest.mark.parametrize(
  ('classes', 'expected'), [(2, [1]), (4, [1, 3]), (5, [1, 3]), (6, [1, 3, 5])]
)
def test_errors_that_can_only_be_0_are_left_out(classes, expected):
  ranks = np.arange(classes, dtype=np.int32)
  found = Outcomes(ranks, ranks, ranks).top_k_errors(None, classes)
  wanted = {f'top{k}_error': 100 * (classes - k) / classes for k in expected}
  assert found == pytest.approx(wanted)
