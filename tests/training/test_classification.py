"""What a classification says of its results."""

import pytest

from senet_jax.training.classification import Classification
from tests.helpers.small_run import small

RECORD = {'kind': 'eval', 'loss': 1.0, 'top1_error': 5.0, 'top5_error': 0.0}


@pytest.mark.parametrize(('classes', 'shown'), [(None, True), (10, True), (5, False), (2, False)])
def test_top_5_is_said_where_it_can_be_wrong(classes, shown):
  task = Classification(small())
  task.classes = classes
  assert ('top-5' in task.describe(RECORD)) == shown
