"""How methods are ranked and compared, over problems and seeds.

On each problem and for each seed the methods are ranked by their score. Because some
methods cannot take part in some problems, a rank is given as a place,

    place = 100 (rank - 1) / (methods on this problem - 1),

0 for the best and 100 for the last. A mean place has a bootstrap interval, which draws
problems and, within them, seeds with replacement; it is widened about the mean, since
such intervals are too narrow for few problems (by Student's t and the factor P / (P -
1) of a variance). Two methods are compared by the places of every problem and seed that
both played, with Wilcoxon's signed-rank test; the p-values of all pairs are corrected
as in Holm (1979). That test takes the seeds of a problem for independent, and speaks of
these problems alone. So a method is said to be ahead of another only where the interval
of the difference of their places, which draws problems, excludes 0 as well. A problem
on which most runs share the first place is not ranked, since the mean place of those
who play it would say little else than that they do.

Reference: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets",
JMLR 2006; Benavoli et al., "Should We Really Use Post-Hoc Tests Based on Mean-Ranks?",
JMLR 2016, for tests of pairs instead of the mean ranks of all; places do still depend
on who else plays.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..comparison.estimates import holm

ALPHA = 0.05
_DRAWS = 2000
_EXACT = 13  # so few numbers that all their signs can be tried, ties or not
Places = Mapping[str, Mapping[str, np.ndarray]]  # problem -> method -> f64[seeds]


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean with its bootstrap interval.

  Attributes:
    mean: over problems, each a mean over its seeds.
    low: the lower end of the 95% interval.
    high: likewise.
    problems: how many there are.
  """

  mean: float
  low: float
  high: float
  problems: int


def interval(
  blocks: Sequence[np.ndarray], within: tuple[float, float] = (-math.inf, math.inf)
) -> Interval:
  """The mean over problems, and its interval by a bootstrap of problems and seeds.

  Args:
    blocks: one per problem, f64[seeds].
    within: the least and the largest number that there can be.

  Example:
    >>> interval([np.array([1.0, 1.0]), np.array([1.0, 1.0])])
    Interval(mean=1.0, low=1.0, high=1.0, problems=2)
  """
  random = np.random.default_rng(0)
  drawn = np.stack(  # [draws, problems]: means of drawn seeds
    [
      each[random.integers(len(each), size=(_DRAWS, len(each)))].mean(axis=1)
      for each in blocks
    ],
    axis=1,
  )
  chosen = random.integers(len(blocks), size=(_DRAWS, len(blocks)))
  means = np.take_along_axis(drawn, chosen, axis=1).mean(axis=1)
  mean = float(np.mean([each.mean() for each in blocks]))
  number = len(blocks) if len(blocks) > 1 else len(blocks[0])
  wider = stats.t.ppf(0.975, max(number - 1, 1)) / stats.norm.ppf(0.975)
  wider *= math.sqrt(number / max(number - 1, 1))
  low, high = mean + wider * (np.quantile(means, [0.025, 0.975]) - mean)
  low, high = np.clip([low, high], *within)
  return Interval(mean, float(low), float(high), len(blocks))


def places_of(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The places of the methods on a problem.

  Args:
    scores: method -> f64[seeds], lower is better, NaN for a failed run.

  Returns:
    Method -> f64[seeds], 0 for the best and 100 for the last.

  Example:
    >>> places_of({"a": np.array([1.0]), "b": np.array([np.nan]), "c": np.array([0.0])})
    {'a': array([50.]), 'b': array([100.]), 'c': array([0.])}
  """
  values = np.stack([np.nan_to_num(each, nan=np.inf) for each in scores.values()])
  ranks = stats.rankdata(values, axis=0)
  scaled = 100 * (ranks - 1) / max(len(scores) - 1, 1)
  return dict(zip(scores, scaled, strict=True))


def most_tie(scores: Mapping[str, np.ndarray]) -> bool:
  """Whether most runs share the first place, so that there is little to rank.

  Args:
    scores: as for `places_of`.
  """
  values = np.stack([np.nan_to_num(each, nan=np.inf) for each in scores.values()])
  first = values == values.min(axis=0)
  return bool((first & (first.sum(axis=0) > 1)).mean() > 0.5)


def differences(places: Places, method: str, other: str) -> list[np.ndarray]:
  """A method's places less another's, f64[seeds] for every problem of both."""
  both = (each for each in places.values() if method in each and other in each)
  return [each[method] - each[other] for each in both]


def differences_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """What one has more than the other; two failures are equal, one is infinitely worse.

  Args:
    a: f64[N], inf for a failure.
    b: f64[N], likewise.
  """
  with np.errstate(invalid="ignore"):
    return np.where(a == b, 0.0, a - b)


def signed_rank(differences: np.ndarray) -> tuple[float, float]:
  """Wilcoxon's p-value, and the sign of the rank sum.

  Args:
    differences: f64[N]; an infinite one ranks above every finite one.

  Example:
    >>> signed_rank(np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    (0.03125, 1.0)
  """
  if not differences.any():
    return 1.0, 0.0
  # an infinite difference ranks above every finite one
  finite = np.abs(differences[np.isfinite(differences)])
  largest = 2 * finite.max(initial=1.0)
  bounded = np.clip(differences, -largest, largest)
  signed = np.sign(bounded) * stats.rankdata(np.abs(bounded))
  test: Any
  if 1 < len(signed) <= _EXACT:  # as stats.wilcoxon does, a hundred times faster
    test = stats.permutation_test(
      (signed,), np.sum, permutation_type="samples", n_resamples=2**_EXACT
    )
  else:
    test = stats.wilcoxon(bounded, zero_method="zsplit")
  return float(test.pvalue), float(np.sign(signed.sum()))


def p_values_of(places: Places, order: Sequence[str]) -> dict[tuple[str, str], float]:
  """The corrected p-values of all pairs with a problem in common."""
  found = {}
  for pair in itertools.combinations(order, 2):
    if blocks := differences(places, *pair):
      found[pair] = signed_rank(np.concatenate(blocks))[0]
  return holm(found)


def verdict(blocks: Sequence[np.ndarray], p_value: float) -> int:
  """-1 if a method is ahead of another, 1 if it is behind, 0 if neither can be said.

  Args:
    blocks: the differences of their places, f64[seeds] per problem.
    p_value: the corrected one.
  """
  if p_value >= ALPHA:
    return 0
  found = interval(blocks)
  _, sign = signed_rank(np.concatenate(blocks))
  agree = found.low * found.high > 0 and np.sign(found.mean) == sign
  return int(sign) if agree else 0


def cliques(
  order: Sequence[str], verdicts: Mapping[tuple[str, str], int]
) -> list[tuple[int, int]]:
  """Runs of methods in an order of which no two can be told apart.

  Returns:
    The indices of the first and the last of each run of two or more.
  """
  found: list[tuple[int, int]] = []
  for first in range(len(order)):
    last = first
    while last + 1 < len(order) and all(
      not verdicts.get((order[each], order[last + 1]))
      for each in range(first, last + 1)
    ):
      last += 1
    if last > first and (not found or last > found[-1][1]):
      found.append((first, last))
  return found
