"""Who stands where: places, intervals, and which pairs can be told apart.

On each problem and for each seed the methods are ranked by their score. Because some
methods cannot take part in some problems, a rank is given as a place,

    place = 100 (rank - 1) / (methods on this problem - 1),

0 for the best and 100 for the last. A mean place has a bootstrap interval, which draws
problems and, within them, seeds with replacement. Two methods are compared by the
places of every problem and seed that both played, with Wilcoxon's signed-rank test, and
the p-values are corrected as in Holm (1979). Such a test speaks of these problems; the
bootstrap interval shows how much hangs on their choice.

Reference: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets",
JMLR 2006; Benavoli et al., "Should We Really Use Post-Hoc Tests Based on Mean-Ranks?",
JMLR 2016, for tests of pairs instead of the mean ranks of all.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..comparison.estimates import holm
from .cells import score
from .plan import LONGER, SINGLE

ALPHA = 0.05
_DRAWS = 2000
_Places = Mapping[str, Mapping[str, np.ndarray]]  # problem -> method -> f64[seeds]


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


@dataclasses.dataclass(frozen=True)
class Against:
  """How a method does against another, problem by problem.

  Attributes:
    wins: problems where it is better, by a corrected p-value below 0.05.
    ties: problems where neither is.
    losses: problems where the other is.
  """

  wins: int
  ties: int
  losses: int


@dataclasses.dataclass(frozen=True)
class Standings:
  """All that the report computes from the cells.

  Attributes:
    scores: problem -> method -> f64[seeds], lower is better, NaN for a failed run.
    places: problem -> method -> f64[seeds], without ew trained for longer.
    trivial: problem -> the score of a solution that learnt nothing.
    order: methods by their mean place.
    place: method -> its mean place.
    time_of_ew: problem -> method -> time of a step, in steps of ew.
    p_values: pair of methods, in their order -> corrected p-value.
    cliques: runs of methods in their order of which no two can be told apart, as the
      places of the first and the last in the order; only those of two or more.
  """

  scores: dict[str, dict[str, np.ndarray]]
  places: dict[str, dict[str, np.ndarray]]
  trivial: dict[str, float]
  order: list[str]
  place: dict[str, Interval]
  time_of_ew: dict[str, dict[str, float]]
  p_values: dict[tuple[str, str], float]
  cliques: list[tuple[int, int]]

  def failures(self, problem: str, method: str) -> tuple[int, int]:
    """How many runs were not finite, and how many learnt nothing.

    Args:
      problem: its name.
      method: its name.
    """
    scores = self.scores[problem][method]
    finite = scores[np.isfinite(scores)]
    return len(scores) - len(finite), int((finite >= self.trivial[problem]).sum())

  def difference(self, method: str, other: str) -> Interval | None:
    """The mean difference of two methods' places; None without a common problem.

    Args:
      method: its name.
      other: against whom; negative where the first is better.
    """
    blocks = _common(self.places, method, other)
    return interval([a - b for a, b in blocks]) if blocks else None

  def against(
    self, method: str, other: str, *, equal_time: bool = False
  ) -> Against | None:
    """Wins, ties and losses; None without a common problem.

    Args:
      method: its name.
      other: against whom.
      equal_time: whether the other is trained as many times longer as a step of it is
        faster, as far as the league played it so.
    """
    p_values, signs = {}, {}
    for problem, scores in self.scores.items():
      opponent = self._of_equal_time(problem, method, other) if equal_time else other
      if method not in scores or opponent not in scores:
        continue
      a, b = (np.nan_to_num(scores[each], nan=np.inf) for each in (method, opponent))
      p_values[problem], signs[problem] = _signed_rank(_differences(a, b))
    if not p_values:
      return None
    better = [signs[name] for name, p in holm(p_values).items() if p < ALPHA]
    wins, losses = sum(each < 0 for each in better), sum(each > 0 for each in better)
    return Against(wins, len(p_values) - wins - losses, losses)

  def _of_equal_time(self, problem: str, method: str, other: str) -> str:
    """The longest training of the other that takes no longer than the method's."""
    time = self.time_of_ew[problem].get(method, 1.0)
    longer = {name: int(name.partition("@")[2]) for name in LONGER}
    fitting = [
      name
      for name, length in longer.items()
      if name.startswith(f"{other}@")
      and length <= time
      and name in self.scores[problem]
    ]
    return max(fitting, key=lambda name: longer[name], default=other)


def standings(cells: Sequence[Mapping[str, Any]]) -> Standings:
  """Computes everything that the report says.

  Args:
    cells: what `cells.play` returned for each; those that did not fit are left out.
  """
  scores: dict[str, dict[str, np.ndarray]] = {}
  trivial, seconds = {}, {}
  played = [cell for cell in cells if "unfit" not in cell]
  for problem in dict.fromkeys(cell["problem"] for cell in played):
    here = {each["method"]: each for each in played if each["problem"] == problem}
    base = _base(here)
    if base is None:
      continue
    scores[problem] = {
      method: score(_metrics(each), each, base)
      for method, each in here.items()
      if method != SINGLE
    }
    facts = next(iter(here.values()))
    trivial[problem] = float(score(np.array(facts["trivial"]), facts, base))
    seconds[problem] = {name: each["seconds_per_step"] for name, each in here.items()}
  places = {problem: _places(each) for problem, each in scores.items()}
  methods = dict.fromkeys(name for each in places.values() for name in each)
  place = {
    name: interval([each[name] for each in places.values() if name in each])
    for name in methods
  }
  order = sorted(methods, key=lambda name: place[name].mean)
  p_values = _pairs(places, order)
  return Standings(
    scores=scores,
    places=places,
    trivial=trivial,
    order=order,
    place=place,
    time_of_ew={
      problem: {name: value / each["ew"] for name, value in each.items()}
      for problem, each in seconds.items()
      if "ew" in each
    },
    p_values=p_values,
    cliques=_cliques(order, p_values),
  )


def interval(blocks: Sequence[np.ndarray]) -> Interval:
  """The mean over problems, and its interval by a bootstrap of problems and seeds.

  Args:
    blocks: one a problem, f64[seeds].

  Example:
    >>> interval([np.array([1.0, 1.0]), np.array([3.0, 3.0])])
    Interval(mean=2.0, low=1.0, high=3.0, problems=2)
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
  low, high = np.quantile(means, [0.025, 0.975])
  mean = float(np.mean([each.mean() for each in blocks]))
  return Interval(mean, float(low), float(high), len(blocks))


def _base(here: Mapping[str, Mapping[str, Any]]) -> np.ndarray | None:
  """What delta_m is relative to; None where it is needed and not known yet."""
  facts = next(iter(here.values()))
  if facts["judged_by"] != "delta_m":
    return np.ones(len(facts["metrics"]))
  return _metrics(here[SINGLE]).mean(axis=0) if SINGLE in here else None


def _metrics(cell: Mapping[str, Any]) -> np.ndarray:
  return np.array(cell["test"], np.float64)  # None becomes NaN


def _places(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  names = [name for name in scores if name not in LONGER]
  values = np.stack([np.nan_to_num(scores[name], nan=np.inf) for name in names])
  ranks = stats.rankdata(values, axis=0)
  scaled = 100 * (ranks - 1) / max(len(names) - 1, 1)
  return dict(zip(names, scaled, strict=True))


def _common(
  places: _Places, method: str, other: str
) -> list[tuple[np.ndarray, np.ndarray]]:
  both = (each for each in places.values() if method in each and other in each)
  return [(each[method], each[other]) for each in both]


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """The differences, where two failures are equal and one is infinitely worse."""
  with np.errstate(invalid="ignore"):
    return np.where(a == b, 0.0, a - b)


def _signed_rank(differences: np.ndarray) -> tuple[float, float]:
  """Wilcoxon's p-value, and the sign of the rank sum."""
  if not differences.any():
    return 1.0, 0.0
  # an infinite difference ranks above every finite one
  finite = np.abs(differences[np.isfinite(differences)])
  largest = 2 * finite.max(initial=1.0)
  bounded = np.clip(differences, -largest, largest)
  ranks = stats.rankdata(np.abs(bounded))
  p_value: Any = stats.wilcoxon(bounded, zero_method="zsplit")[1]
  return float(p_value), float(np.sign((np.sign(bounded) * ranks).sum()))


def _pairs(places: _Places, order: Sequence[str]) -> dict[tuple[str, str], float]:
  found = {}
  for pair in itertools.combinations(order, 2):
    blocks = _common(places, *pair)
    if blocks:
      differences = np.concatenate([a - b for a, b in blocks])
      found[pair] = _signed_rank(differences)[0]
  return holm(found)


def _cliques(
  order: Sequence[str], p_values: Mapping[tuple[str, str], float]
) -> list[tuple[int, int]]:
  found: list[tuple[int, int]] = []
  for first in range(len(order)):
    last = first
    while last + 1 < len(order) and all(
      p_values.get((order[each], order[last + 1]), 1.0) >= ALPHA
      for each in range(first, last + 1)
    ):
      last += 1
    if last > first and (not found or last > found[-1][1]):
      found.append((first, last))
  return found


def geometric_mean(values: Sequence[float]) -> float:
  """The mean of ratios.

  Args:
    values: positive.

  Example:
    >>> f"{geometric_mean([1.0, 4.0]):.1f}"
    '2.0'
  """
  return math.exp(float(np.mean(np.log(values))))
