"""What the league shows, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..comparison.words import listed
from .figures import mean_times
from .plan import COMBINED
from .ranking import Interval, interval
from .statistics import Standings

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
  answers += [_kinds(standings, kinds), *_equal_time(standings)]
  if combined:
    answers.append(
      "Combinations against their parts: "
      + " ".join(_pair(standings, *pair) for pair in combined)
    )
  answers += _failures(standings)
  return [answer for answer in answers if answer]


def limits(standings: Standings, cells: Sequence[Mapping[str, Any]]) -> list[str]:
  """What the league does not show."""
  number = len(standings.places)
  at_edge = [
    cell["learning_rates"][0] in (rates[0], rates[-1])
    for cell in cells
    if (rates := cell["training"]["learning_rates"]) and "unfit" not in cell
  ]
  return [
    f"The problems are small and few ({number}); the intervals draw them with "
    "replacement, the tests of pairs speak of these problems alone.",
    "Every method has its published hyper-parameters. Only the learning rate is tuned, "
    f"among three; in {sum(at_edge)} of {len(at_edge)} cells it is the least or the "
    "largest of them, so that a wider choice might have been better.",
    "Times are processor time of runs on CPUs. On accelerators the ratios differ.",
  ]


def _who_leads(standings: Standings) -> str:
  if len(standings.order) < 2:
    return ""
  best, *others = standings.order
  verdicts = {name: standings.compare(best, name) for name in others}
  text = f"{best} has the best mean place, {_of(standings.place[best])}."
  for verdict, words in (
    (0, "It cannot be told apart from"),
    (1, "On the problems that both played it is behind"),
    (None, "It has no problem in common with"),
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
    return f"{method} and {other} have no problem in common."
  words = {-1: "is ahead of", 0: "cannot be told apart from", 1: "is behind"}
  verdict = words[standings.compare(method, other) or 0]
  return (
    f"{method} {verdict} {other}: its place differs by {_of(difference, sign='+')}; of "
    f"{difference.problems} problems it wins {against.wins} and loses "
    f"{against.losses}."
  )


def _kinds(standings: Standings, kinds: dict[str, str]) -> str:
  groups = {
    kind: [name for name in standings.order if kinds[name] == kind]
    for kind in ("gradient", "loss")
  }
  if not all(groups.values()):
    return ""
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
    f"methods by {_of(interval(blocks), sign='+')}."
  )


def _equal_time(standings: Standings) -> list[str]:
  wins: list[str] = []
  losses: list[str] = []
  times = mean_times(standings)
  for name in standings.order:
    if times.get(name, 1.0) < _SLOW:
      continue
    against = standings.against(name, "ew", equal_time=True)
    if against and against.wins != against.losses:
      (wins if against.wins > against.losses else losses).append(name)
  if not wins and not losses:
    return []
  return [
    f"At equal time, of the methods whose step takes at least {_SLOW} steps of ew, "
    f"{_or_none(wins)} win on more problems than they lose, and {_or_none(losses)} "
    "lose on more than they win. (They are compared with ew trained for one, two or "
    "four times the steps, whichever takes the most similar time.)"
  ]


def _failures(standings: Standings) -> list[str]:
  parts = []
  for problem, scores in standings.scores.items():
    found = {name: standings.failures(problem, name) for name in scores}
    for what, place in (("not finite", 0), ("no better than the trivial solution", 1)):
      names = [f"{name} ({each[place]})" for name, each in found.items() if each[place]]
      if names:
        parts.append(f"Runs on {problem} that were {what}: {', '.join(names)}.")
  return parts


def _of(value: Interval, sign: str = "") -> str:
  return f"{value.mean:{sign}.0f} [{value.low:{sign}.0f}, {value.high:{sign}.0f}]"


def _or_none(names: Sequence[str]) -> str:
  return listed(names) if names else "none"
