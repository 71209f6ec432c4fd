"""Means over seeds with their intervals; who is better, and who is as good for less."""

import dataclasses
import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Verdict = Literal["worse", "better", "cannot be told apart", "too few seeds to tell"]
_Name = TypeVar("_Name", bound=Hashable)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean over seeds.

  Attributes:
    mean: over the seeds.
    half_width: half the width of its 95% interval; None for one seed.
    seeds: how many there are.
  """

  mean: float
  half_width: float | None
  seeds: int


@dataclasses.dataclass(frozen=True)
class Difference:
  """How a balancer's delta_m differs from that of the reference.

  Attributes:
    estimate: the interval of its delta_m less the reference's, seed by seed; None
      without a common seed.
    p: the p-value of the t test that there is none; None for fewer than two common
      seeds.
    p_holm: corrected for the number of comparisons.
    verdict: what follows, at 5% of p_holm.
  """

  estimate: Estimate | None
  p: float | None
  p_holm: float | None
  verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Spread:
  """What repeated measurements of a time gave.

  Attributes:
    median: the median of the measurements.
    least: the least of them.
    largest: the largest of them.
  """

  median: float
  least: float
  largest: float


def estimate(values: Iterable[float]) -> Estimate:
  """Mean and 95% interval.

  Args:
    values: one per seed, at least one.

  Example:
    >>> print(f"{estimate([1.0, 2.0, 3.0]).half_width:.3f}")
    2.484
    >>> estimate([1.0])
    Estimate(mean=1.0, half_width=None, seeds=1)
  """
  sample = np.array([*values], np.float64)
  number = len(sample)
  mean = float(sample.mean())
  if number < 2:
    return Estimate(mean, None, number)
  quantile = stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)
  return Estimate(mean, float(quantile * _standard_error(sample)), number)


def spread(values: Sequence[float]) -> Spread | None:
  """Median, least and largest.

  Returns:
    None if there are none.

  Example:
    >>> spread([1.0, 3.0, 1.5])
    Spread(median=1.5, least=1.0, largest=3.0)
  """
  if not values:
    return None
  return Spread(float(np.median(values)), float(min(values)), float(max(values)))


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
  """The points than which no other is at least as low in both numbers, lower in one.

  Args:
    points: name -> cost and error.

  Returns:
    Their names, in order of cost.

  Example:
    >>> pareto_front({"a": (2.0, 1.0), "b": (1.0, 3.0), "c": (2.0, 2.0)})
    ['b', 'a']
  """

  def is_dominated(point: tuple[float, float]) -> bool:
    return any(
      other[0] <= point[0] and other[1] <= point[1] and other != point
      for other in points.values()
    )

  front = [name for name, point in points.items() if not is_dominated(point)]
  return sorted(front, key=lambda name: points[name])


def holm(p_values: Mapping[_Name, float]) -> dict[_Name, float]:
  """P-values corrected for how many there are.

  Example:
    >>> holm({"a": 0.25, "b": 0.125, "c": 0.5})
    {'a': 0.5, 'b': 0.375, 'c': 0.5}
  """
  order = sorted(p_values, key=lambda name: p_values[name])
  scaled = (p_values[name] * (len(order) - i) for i, name in enumerate(order))
  corrected = dict(zip(order, itertools.accumulate(scaled, max), strict=True))
  return {name: min(corrected[name], 1.0) for name in p_values}


def paired_difference(
  values: Mapping[int, float], others: Mapping[int, float]
) -> tuple[Estimate | None, float | None]:
  """The difference of two balancers over the seeds that both have, and its p-value.

  Args:
    values: seed -> a balancer's number.
    others: seed -> another's.

  Returns:
    The estimate of values - others, None without a common seed, and the p-value of the
    two-sided t test, None for fewer than two.

  Example:
    >>> paired_difference({0: 3.0, 1: 5.0, 2: 0.0}, {0: 2.0, 1: 2.0})[0].mean
    2.0
    >>> paired_difference({0: 3.0}, {0: 2.0})
    (Estimate(mean=1.0, half_width=None, seeds=1), None)
  """
  common = sorted(values.keys() & others.keys())
  if not common:
    return None, None
  differences = np.array([values[seed] - others[seed] for seed in common])
  found = estimate(differences)
  if len(common) < 2:
    return found, None
  error = _standard_error(differences)
  if error == 0:
    return found, float(found.mean == 0)
  return found, float(2 * stats.t.sf(abs(found.mean) / error, len(common) - 1))


def differences_from(
  reference: str | None, deciding: Mapping[str, Mapping[int, float]]
) -> dict[str, Difference]:
  """How every other balancer differs from the reference.

  Args:
    reference: the balancer, or None.
    deciding: balancer -> seed -> delta_m.
  """
  if reference is None:
    return {}
  found = {
    balancer: paired_difference(values, deciding[reference])
    for balancer, values in deciding.items()
    if balancer != reference
  }
  corrected = holm({name: p for name, (_, p) in found.items() if p is not None})

  def verdict_on(balancer: str, difference: Estimate | None) -> Verdict:
    p_holm = corrected.get(balancer)
    if p_holm is None or difference is None:
      return "too few seeds to tell"
    if p_holm > 1 - CONFIDENCE:
      return "cannot be told apart"
    # its runs on the other seeds may be what made the reference the better one
    return "worse" if difference.mean > 0 else "better"

  return {
    name: Difference(difference, p, corrected.get(name), verdict_on(name, difference))
    for name, (difference, p) in found.items()
  }


def as_good_as(
  reference: str | None, differences: Mapping[str, Difference]
) -> list[str | None]:
  """The reference and those that cannot be told apart from it, over the most seeds.

  One with fewer seeds than others escapes their verdict by that alone. Empty where none
  has seeds enough.
  """
  seeds = {
    name: each.estimate.seeds
    for name, each in differences.items()
    if each.estimate is not None and each.p is not None
  }
  same = (
    name
    for name, number in seeds.items()
    if number == max(seeds.values())
    and differences[name].verdict == "cannot be told apart"
  )
  return [reference, *same] if seeds else []


def equally_cheap_of(cost: Mapping[str, Spread | None]) -> list[str]:
  """Those whose range of times overlaps that of the fastest, if all were timed."""
  times = {name: time for name, time in cost.items() if time is not None}
  if not times or len(times) < len(cost):
    return []
  fastest = min(times.values(), key=lambda time: time.median)
  return [name for name, time in times.items() if time.least <= fastest.largest]


def finite_or_none(values: np.ndarray) -> list[Any]:
  """Nested lists as JSON has them, with None for what is not finite."""
  return np.where(np.isfinite(values), values, np.array(None)).tolist()


def _standard_error(sample: np.ndarray) -> float:
  return float(sample.std(ddof=1) / math.sqrt(len(sample)))
