"""What the league shows, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..comparison.words import listed
from .plan import COMBINED
from .ranking import Interval, interval
from .statistics import SIMILAR, Standings

_SLOW = 1.5

# The questions that the league was made for, as (method, against whom).
CLAIMS = (("igbv1", "si"), ("igbv2", "igbv1"), ("igbv1", "ew"), ("igbv2", "ew"))


def conclusions(standings: Standings, kinds: dict[str, str]) -> list[str]:
  """The answers, each with its interval."""
  pairs = [pair for pair in CLAIMS if {*pair} <= {*standings.order}]
  combined = [
    (name, part)
    for name in COMBINED
    if name in standings.order
    for part in name.split("+")
    if part in standings.order
  ]
  answers = [_who_leads(standings)]
  answers += [_pair(standings, *pair) for pair in pairs]
  answers += [_kinds(standings, kinds), *_equal_time(standings, kinds)]
  if combined:
    answers.append(
      "Combinations against their parts: "
      + " ".join(_pair(standings, *pair) for pair in combined)
    )
  answers += _failures(standings)
  return [answer for answer in answers if answer]


def limits(standings: Standings, cells: Sequence[Mapping[str, Any]]) -> list[str]:
  """What the league does not show."""
  found = [
    f"The problems are small and few ({len(standings.finished)} are finished, "
    f"{len(standings.places)} have places); the intervals draw them with replacement, "
    "the tests of pairs speak of these problems alone.",
    "Every method has its published hyper-parameters. Only the learning rate is tuned, "
    "among three, on seeds of its own: one choice for all seeds of the test, which the "
    "intervals take for given.",
    "Times are processor time of runs on CPUs. On accelerators the ratios differ.",
  ]
  if edges := [_edge(standings, cells, problem) for problem in standings.places]:
    found.append(
      "Methods that take the least or the largest learning rate might be better with a "
      f"wider choice: {'; '.join(edges)}."
    )
  if tied := [name for name in standings.finished if name not in standings.places]:
    found.append(
      f"Most runs on {listed(tied)} share the first place. That counts as wins, ties "
      "and losses, and has no part in mean places."
    )
  return found


def _edge(
  standings: Standings, cells: Sequence[Mapping[str, Any]], problem: str
) -> str:
  """How many methods take the least and the largest learning rate of a problem."""
  taken = [
    (cell["learning_rates"][0], cell["training"]["learning_rates"])
    for cell in cells
    if cell["problem"] == problem and cell["method"] in standings.places[problem]
  ]
  least, largest = (sum(rate == rates[end] for rate, rates in taken) for end in (0, -1))
  return f"{least} and {largest} of {len(taken)} on {problem}"


def _who_leads(standings: Standings) -> str:
  if len(standings.order) < 2:
    return ""
  best, *others = standings.order
  verdicts = {name: standings.compare(best, name) for name in others}
  text = f"{best} has the best mean place, {_of(standings.place[best])}."
  for verdict, words in (
    (0, "It cannot be told apart from"),
    (1, "On the problems that both played it is behind"),
    (None, "It has no ranked problem in common with"),
  ):
    if names := [name for name, each in verdicts.items() if each == verdict]:
      text += f" {words} {listed(names)}."
  if ahead := sum(each == -1 for each in verdicts.values()):
    text += f" It is ahead of {ahead} others."
  return text


def _pair(standings: Standings, method: str, other: str) -> str:
  difference = standings.difference(method, other)
  against = standings.against(method, other)
  if difference is None or against is None:
    return f"{method} and {other} have no ranked problem in common."
  words = {-1: "is ahead of", 0: "cannot be told apart from", 1: "is behind"}
  verdict = words[standings.compare(method, other) or 0]
  return (
    f"{method} {verdict} {other}: its place differs by {_of(difference, sign='+')}; of "
    f"{against.wins + against.ties + against.losses} problems it wins {against.wins} "
    f"and loses {against.losses}."
  )


def _groups(standings: Standings, kinds: dict[str, str]) -> dict[str, list[str]]:
  return {
    kind: [name for name in standings.order if kinds[name] == kind and name != "ew"]
    for kind in ("gradient", "loss")
  }


def _kinds(standings: Standings, kinds: dict[str, str]) -> str:
  groups = _groups(standings, kinds)
  blocks = []
  for places in standings.places.values():
    gradient, loss = (
      [places[name] for name in group if name in places] for group in groups.values()
    )
    if gradient and loss:
      blocks.append(np.mean(gradient, axis=0) - np.mean(loss, axis=0))
  if not blocks:
    return ""
  return (
    "At equal steps the mean place of gradient methods differs from that of loss "
    f"methods, without ew, by {_of(interval(blocks, within=(-100, 100)), sign='+')}."
  )


def _equal_time(standings: Standings, kinds: dict[str, str]) -> list[str]:
  rates = [
    f"a {kind} method is better than ew on {_of(rate)}% of the seeds of a problem"
    for kind, group in _groups(standings, kinds).items()
    if (rate := standings.win_rate(group, "ew")) is not None
  ]
  if not rates:
    return []
  wins: list[str] = []
  losses: list[str] = []
  times = standings.mean_times()
  slow = [name for name in standings.order if times.get(name, 1.0) >= _SLOW]
  for name in slow:
    against = standings.against(name, "ew", equal_time=True)
    if against and against.wins != against.losses:
      (wins if against.wins > against.losses else losses).append(name)
  answers = [
    f"At equal time {', '.join(rates)}, where a tie is half of one; 50% would be as "
    "good as ew."
  ]
  if not slow:
    return answers
  return [
    *answers,
    f"Of the methods whose step takes at least {_SLOW} steps of ew, {_or_none(wins)} "
    f"win on more problems than they lose at equal time, and {_or_none(losses)} lose "
    "on more than they win. (They are compared with ew trained for one, two, four or "
    "eight times the steps, whichever takes the most similar time, where that differs "
    f"by a factor of at most {SIMILAR}.)",
  ]


def _failures(standings: Standings) -> list[str]:
  parts = []
  for problem in standings.finished:
    scores = standings.scores[problem]
    found = {name: standings.failures(problem, name) for name in scores}
    for what, place in (("not finite", 0), ("no better than the trivial solution", 1)):
      names = [f"{name} ({each[place]})" for name, each in found.items() if each[place]]
      if names:
        parts.append(f"Runs on {problem} that were {what}: {', '.join(names)}.")
  return parts


def _of(value: Interval, sign: str = "") -> str:
  mean, low, high = (round(each) for each in (value.mean, value.low, value.high))
  return f"{mean:{sign}} [{low:{sign}}, {high:{sign}}]"


def _or_none(names: Sequence[str]) -> str:
  return listed(names) if names else "none"
