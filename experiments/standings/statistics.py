"""Who stands where: places, intervals, and which pairs can be told apart.

`ranking` says what a place is, and how two methods are compared.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..comparison.estimates import holm
from .cells import score
from .plan import SINGLE, parse
from .ranking import (
  ALPHA,
  Interval,
  cliques,
  common,
  differences_of,
  interval,
  p_values_of,
  places_of,
  signed_rank,
  verdict,
)

_MARGIN = 0.02  # a metric within so much of the trivial one is no better
_FEW_PARAMETERS = 100  # of which a step has no work that could be timed


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
    places: problem -> method -> f64[seeds], without ew trained for longer, and without
      unfinished problems.
    trivial: problem -> the score from which on a run has learnt nothing.
    order: methods by their mean place.
    place: method -> its mean place.
    time_of_ew: problem -> method -> time of a step, in steps of ew; without problems
      that have no net.
    p_values: pair of methods, in their order -> corrected p-value.
    verdicts: the same pairs -> -1 if the first is ahead, 1 if it is behind, 0 if
      neither can be said.
    cliques: runs of methods in their order of which no two can be told apart, as the
      indices of the first and the last in the order; only those of two or more.
  """

  scores: dict[str, dict[str, np.ndarray]]
  places: dict[str, dict[str, np.ndarray]]
  trivial: dict[str, float]
  order: list[str]
  place: dict[str, Interval]
  time_of_ew: dict[str, dict[str, float]]
  p_values: dict[tuple[str, str], float]
  verdicts: dict[tuple[str, str], int | None]
  cliques: list[tuple[int, int]]

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
    blocks = common(self.places, method, other)
    return interval([a - b for a, b in blocks]) if blocks else None

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
        the method takes longer, or for the nearest that was played.
    """
    p_values, signs = {}, {}
    for problem in self.places:
      scores = self.scores[problem]
      opponent = self._of_equal_time(problem, method, other) if equal_time else other
      if opponent is None or method not in scores or opponent not in scores:
        continue
      a, b = (np.nan_to_num(scores[each], nan=np.inf) for each in (method, opponent))
      p_values[problem], signs[problem] = signed_rank(differences_of(a, b))
    if not p_values:
      return None
    better = [signs[name] for name, p in holm(p_values).items() if p < ALPHA]
    wins, losses = sum(each < 0 for each in better), sum(each > 0 for each in better)
    return Against(wins, len(p_values) - wins - losses, losses)

  def _of_equal_time(self, problem: str, method: str, other: str) -> str | None:
    """The training of the other that takes the most similar time."""
    times = self.time_of_ew.get(problem, {})
    if method not in times or other not in times:
      return None
    ratio = times[method] / times[other]
    lengths = {
      name: parse(name).length
      for name in self.scores[problem]
      if name.partition("@")[0] == other
    }
    return min(lengths, key=lambda name: abs(math.log(ratio / lengths[name])))


def places_of_ranked(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The places of those that the league ranks."""
  return places_of({name: scores[name] for name in scores if _is_ranked(name)})


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
  trivial, seconds = {}, {}
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
      seconds[problem] = {name: each["seconds_per_step"] for name, each in here.items()}
  places = {
    problem: places_of_ranked(each)
    for problem, each in scores.items()
    if problem not in unfinished
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
  verdicts = {pair: verdict(places, p_values, *pair) for pair in p_values}
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


def _is_ranked(method: str) -> bool:
  entrant = parse(method)
  return method != SINGLE and entrant.length == 1 and not entrant.moved


def _metrics(cell: Mapping[str, Any]) -> np.ndarray:
  return np.array(cell["test"], np.float64)  # None becomes NaN
