"""Intervals of repeated measurements, and units that fit."""

import numpy as np
import pytest
from scipy import stats

from senet_jax.reporting import statistics, tables


def test_the_interval_is_that_of_a_t_test():
  values = np.random.default_rng(0).normal(3, 1, 5).tolist()
  expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
  assert statistics.interval(values) == pytest.approx((expected.low, expected.high))


def test_one_turn_says_that_it_has_no_error():
  one, three = (statistics.spread(values) for values in ([127.9], [1.0, 2.0, 6.0]))
  assert statistics.in_words(one, '+.1f', ' %') == (
    '+127.9 % (one turn, so that its error is not known)'
  )
  assert statistics.in_words(three, '+.1f', ' %') == (
    '+2.0 % (mean +3.0 ± 2.6, 95 % interval -3.6 to +9.6, 3 turns)'
  )


@pytest.mark.parametrize(
  ('count', 'expected'),
  [(0, '0 B'), (12, '12 B'), (7891, '7.89 kB'), (45_600_000, '45.6 MB'), (999e6, '999 MB'),
   (1.234e9, '1.23 GB'), (2e12, '2000 GB'), (-5e6, '-5.00 MB')],
)  # fmt: skip
def test_sizes(count, expected):
  assert tables.size(count) == expected
