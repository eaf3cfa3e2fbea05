"""Means, deviations and paired comparisons of repeated measurements."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def mean_std(values: Sequence[float]) -> dict[str, Any]:
  """Returns `mean`, the sample standard deviation `std` (None of a single value), and `n`."""
  std = statistics.stdev(values) if len(values) > 1 else None
  return {'mean': statistics.mean(values), 'std': std, 'n': len(values)}


def spread(values: Sequence[float]) -> dict[str, Any]:
  """Returns `mean_std`, the `median`, and the `values` themselves."""
  found = mean_std(values)
  n = found.pop('n')
  return {**found, 'median': statistics.median(values), 'n': n, 'values': list(values)}


def paired(first: Mapping[Any, float], second: Mapping[Any, float]) -> tuple[float, float] | None:
  """Compares two lists of results pair by pair, as of runs with the same seeds.

  Args:
    first: results by what makes the pairs.
    second: likewise; only what is in both counts.

  Returns:
    The mean of `first - second`, and the p of a two-sided paired t-test, NaN below two pairs or if
    all differences are equal; None without any pair.
  """
  from scipy import stats

  differences = [first[key] - second[key] for key in first if key in second]
  if not differences:
    return None
  testable = len(set(differences)) > 1
  p = float(stats.ttest_1samp(differences, 0.0).pvalue) if testable else float('nan')
  return statistics.mean(differences), p


def in_words(found: Mapping[str, Any], digits: str, unit: str) -> str:
  """Returns a `spread` as text: the median, and mean and standard deviation over its values.

  Args:
    found: of `spread`.
    digits: format of a number, such as `.1f` or `+.1f`.
    unit: behind the median.
  """
  median = f'{found["median"]:{digits}}{unit}'
  if found['std'] is None:
    return f'{median} (one turn, so that its error is not known)'
  mean, std = f'{found["mean"]:{digits}}', f'{found["std"]:{digits.removeprefix("+")}}'
  low, high = (f'{bound:{digits}}' for bound in interval(found['values']))
  return f'{median} (mean {mean} ± {std}, 95 % interval {low} to {high}, {found["n"]} turns)'


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
  """Returns the confidence interval of the mean of repeated measurements, by Student's t.

  Args:
    values: two at least.
    level: the share of such intervals that hold the true mean.
  """
  from scipy import stats

  half = stats.t.ppf((1 + level) / 2, len(values) - 1) * statistics.stdev(values)
  middle, half = statistics.mean(values), float(half) / len(values) ** 0.5
  return middle - half, middle + half
