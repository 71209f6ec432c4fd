"""Who stands where: places, intervals, and which pairs can be told apart.

`ranking` says what a place is, and how two methods are compared.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..comparison.estimates import holm
from .cells import score
from .plan import SINGLE, parse
from .ranking import (
  ALPHA,
  Interval,
  cliques,
  differences,
  differences_of,
  interval,
  most_tie,
  p_values_of,
  places_of,
  signed_rank,
  verdict,
)

_MARGIN = 0.02  # a metric within so much of the trivial one is no better
_FEW_PARAMETERS = 100  # of which a step has no work that could be timed
SIMILAR = 1.5  # times that differ by no larger factor are compared as equal


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
    finished: problems that everybody has played, which alone count.
    places: problem -> method -> f64[seeds], without ew trained for longer, and without
      problems that are not finished or on which most runs tie for the first place.
    trivial: problem -> the score from which on a run has learnt nothing.
    order: methods by their mean place.
    place: method -> its mean place.
    time_of_ew: problem -> method -> time of a step, in steps of ew on the same
      machine; without problems that have no net.
    p_values: pair of methods, in their order -> corrected p-value.
    verdicts: the same pairs -> -1 if the first is ahead, 1 if it is behind, 0 if
      neither can be said.
    cliques: runs of methods in their order of which no two can be told apart, as the
      indices of the first and the last in the order; only those of two or more.
  """

  scores: dict[str, dict[str, np.ndarray]]
  finished: list[str]
  places: dict[str, dict[str, np.ndarray]]
  trivial: dict[str, float]
  order: list[str]
  place: dict[str, Interval]
  time_of_ew: dict[str, dict[str, float]]
  p_values: dict[tuple[str, str], float]
  verdicts: dict[tuple[str, str], int]
  cliques: list[tuple[int, int]]

  def mean_times(self) -> dict[str, float]:
    """Time of a step in steps of ew, the geometric mean over finished problems."""
    times = [self.time_of_ew.get(problem, {}) for problem in self.finished]
    return {
      name: float(stats.gmean(found))
      for name in self.order
      if (found := [each[name] for each in times if name in each])
    }

  def failures(self, problem: str, method: str) -> tuple[int, int]:
    """How many runs were not finite, and how many learnt nothing."""
    scores = self.scores[problem][method]
    finite = scores[np.isfinite(scores)]
    return len(scores) - len(finite), int((finite >= self.trivial[problem]).sum())

  def difference(self, method: str, other: str) -> Interval | None:
    """The mean difference of two methods' places; None without a common problem.

    Args:
      method: its name.
      other: against whom; negative where the first is better.
    """
    blocks = differences(self.places, method, other)
    return interval(blocks, within=(-100, 100)) if blocks else None

  def compare(self, method: str, other: str) -> int | None:
    """-1 if a method is ahead of another, 1 if it is behind, 0 if neither can be said.

    Returns:
      None without a common problem.
    """
    if (method, other) in self.verdicts:
      return self.verdicts[method, other]
    turned = self.verdicts.get((other, method))
    return None if turned is None else -turned

  def against(
    self, method: str, other: str, *, equal_time: bool = False
  ) -> Against | None:
    """Wins, ties and losses; None without a common problem.

    Args:
      method: its name.
      other: against whom.
      equal_time: whether the other is trained for as many times the steps as a step of
        the method takes longer; problems where nobody played that do not count.
    """
    p_values, signs = {}, {}
    for problem in self.finished:
      opponent = self._of_equal_time(problem, method, other) if equal_time else other
      worse = self._worse(problem, method, opponent)
      if worse is not None:
        p_values[problem], signs[problem] = signed_rank(worse)
    if not p_values:
      return None
    better = [signs[name] for name, p in holm(p_values).items() if p < ALPHA]
    wins, losses = sum(each < 0 for each in better), sum(each > 0 for each in better)
    return Against(wins, len(p_values) - wins - losses, losses)

  def win_rate(self, methods: Sequence[str], other: str) -> Interval | None:
    """How often methods beat another at equal time, in per cent; a tie is half a win.

    Returns:
      The mean, over problems where at least half of the methods have an opponent of
      equal time, of the mean over methods and seeds; None where there is none.
    """
    blocks = []
    for problem in self.finished:
      opponents = {name: self._of_equal_time(problem, name, other) for name in methods}
      found = [self._worse(problem, *pair) for pair in opponents.items()]
      wins = [np.sign(-worse) for worse in found if worse is not None]
      if wins and 2 * len(wins) >= len(methods):
        blocks.append(50 + 50 * np.mean(wins, axis=0))
    return interval(blocks, within=(0, 100)) if blocks else None

  def _worse(self, problem: str, method: str, other: str | None) -> np.ndarray | None:
    """By how much a method's scores are worse, f64[seeds]; None if one has none."""
    scores = self.scores[problem]
    if other is None or not {method, other} <= {*scores}:
      return None
    a, b = (np.nan_to_num(scores[each], nan=np.inf) for each in (method, other))
    return differences_of(a, b)

  def _of_equal_time(self, problem: str, method: str, other: str) -> str | None:
    """The training of the other that takes a similar time, if there is one."""
    times = self.time_of_ew.get(problem, {})
    if method not in times or other not in times:
      return None
    ratio = times[method] / _time_of(other, times)
    lengths = {
      name: parse(name).length
      for name in self.scores[problem]
      if name.partition("@")[0] == other
    }
    unlike = {name: abs(math.log(ratio / lengths[name])) for name in lengths}
    nearest = min(unlike, key=lambda name: unlike[name])
    return nearest if unlike[nearest] <= math.log(SIMILAR) else None


def places_of_ranked(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The places of those that the league ranks."""
  return places_of(_ranked(scores))


def _ranked(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {name: scores[name] for name in scores if _is_ranked(name)}


def standings(
  cells: Sequence[Mapping[str, Any]], unfinished: Collection[str] = ()
) -> Standings:
  """Computes everything that the report says.

  Args:
    cells: what `cells.play` returned for each; those that did not fit are left out.
    unfinished: problems that not everybody has played yet. They have scores and no
      places, since the first of few is not the first of all.
  """
  scores: dict[str, dict[str, np.ndarray]] = {}
  trivial, time_of_ew = {}, {}
  played = [cell for cell in cells if "unfit" not in cell]
  for problem in dict.fromkeys(cell["problem"] for cell in played):
    here = {each["method"]: each for each in played if each["problem"] == problem}
    base = _base(here)
    if base is None or not any(map(_is_ranked, here)):
      continue
    scores[problem] = {
      method: score(_metrics(each), each, base)
      for method, each in here.items()
      if method != SINGLE
    }
    facts = next(iter(here.values()))
    margin = np.where(facts["higher_is_better"], 1 + _MARGIN, 1 - _MARGIN)
    trivial[problem] = float(score(margin * facts["trivial"], facts, base))
    if facts["num_parameters"] >= _FEW_PARAMETERS:
      time_of_ew[problem] = _times(here)
  finished = [problem for problem in scores if problem not in unfinished]
  places = {
    problem: places_of_ranked(scores[problem])
    for problem in finished
    if not most_tie(_ranked(scores[problem]))
  }
  methods = dict.fromkeys(name for each in places.values() for name in each)
  place = {
    name: interval(
      [each[name] for each in places.values() if name in each], within=(0, 100)
    )
    for name in methods
  }
  order = sorted(methods, key=lambda name: place[name].mean)
  p_values = p_values_of(places, order)
  verdicts = {
    pair: verdict(differences(places, *pair), p) for pair, p in p_values.items()
  }
  return Standings(
    scores=scores,
    finished=finished,
    places=places,
    trivial=trivial,
    order=order,
    place=place,
    time_of_ew=time_of_ew,
    p_values=p_values,
    verdicts=verdicts,
    cliques=cliques(order, verdicts),
  )


def _base(here: Mapping[str, Mapping[str, Any]]) -> np.ndarray | None:
  """What delta_m is relative to; None where it is needed and not known yet."""
  facts = next(iter(here.values()))
  if facts["judged_by"] != "delta_m":
    return np.ones(len(facts["metrics"]))
  if SINGLE not in here:
    return None
  finite = [row for row in _metrics(here[SINGLE]) if np.isfinite(row).all()]
  return np.mean(finite, axis=0) if finite else None


def _times(here: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """Time of a step in steps of ew, which its longer trainings measure as well."""
  if "ew" not in here:
    return {}
  seconds = {
    name: cell["seconds_per_step"]
    for name, cell in here.items()
    if cell["machine"] == here["ew"]["machine"]
  }
  return {name: value / _time_of("ew", seconds) for name, value in seconds.items()}


def _time_of(method: str, times: Mapping[str, float]) -> float:
  """Time of a step: the median of the trainings of a method, whatever their length."""
  return float(np.median([times[name] for name in times if parse(name).spec == method]))


def _is_ranked(method: str) -> bool:
  entrant = parse(method)
  return method != SINGLE and entrant.length == 1 and not entrant.moved


def _metrics(cell: Mapping[str, Any]) -> np.ndarray:
  return np.array(cell["test"], np.float64)  # None becomes NaN
