"""What the league shows, in sentences."""

from collections.abc import Sequence

from ..comparison.words import listed
from .plan import COMBINED
from .statistics import ALPHA, Interval, Standings, interval

# The questions that the league was made for, as (method, against whom).
CLAIMS = (("igbv1", "si"), ("igbv2", "igbv1"), ("igbv1", "ew"), ("igbv2", "ew"))


def conclusions(standings: Standings, kinds: dict[str, str]) -> list[str]:
  """The answers, each with its interval.

  Args:
    standings: the standings of the league.
    kinds: method -> its kind.
  """
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


def limits(standings: Standings) -> list[str]:
  """What the league does not show.

  Args:
    standings: the standings of the league.
  """
  number = len(standings.places)
  return [
    f"The problems are small and few ({number}); the intervals draw them with "
    "replacement, the tests of pairs speak of these problems alone.",
    "Every method has its published hyper-parameters. Only the learning rate is tuned, "
    "among three.",
    "Times are those of runs that were trained together on one CPU core, with other "
    "runs beside them. On accelerators the ratios differ.",
  ]


def _who_leads(standings: Standings) -> str:
  if len(standings.order) < 2:
    return ""
  best = standings.order[0]
  alike = [
    name
    for name in standings.order[1:]
    if standings.p_values.get((best, name), 1.0) >= ALPHA
  ]
  told_apart = len(standings.order) - 1 - len(alike)
  text = f"{best} has the best mean place, {_of(standings.place[best])}."
  if alike:
    text += f" It cannot be told apart from {listed(alike)}."
  if told_apart:
    text += f" It is ahead of the other {told_apart}."
  return text


def _pair(standings: Standings, method: str, other: str) -> str:
  difference = standings.difference(method, other)
  against = standings.against(method, other)
  if difference is None or against is None:
    return f"{method} and {other} have no problem in common."
  pair = (method, other), (other, method)
  p_value = next(
    standings.p_values[each] for each in pair if each in standings.p_values
  )
  if p_value >= ALPHA:
    verdict = f"{method} cannot be told apart from {other}"
  else:
    better = difference.mean < 0
    verdict = f"{method} is {'ahead of' if better else 'behind'} {other}"
  return (
    f"{verdict}: its place differs by {_of(difference, sign='+')}, p = {p_value:.2g}; "
    f"it wins on {against.wins} problems and loses on {against.losses} of "
    f"{difference.problems}."
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
    means = [
      sum(places[name] for name in group if name in places)
      / max(sum(name in places for name in group), 1)
      for group in groups.values()
    ]
    blocks.append(means[0] - means[1])
  return (
    "At equal steps the mean place of gradient methods differs from that of loss "
    f"methods by {_of(interval(blocks), sign='+')}."
  )


def _equal_time(standings: Standings, kinds: dict[str, str]) -> list[str]:
  wins: list[str] = []
  losses: list[str] = []
  for name in standings.order:
    if kinds[name] == "loss":
      continue
    against = standings.against(name, "ew", equal_time=True)
    if against and against.wins != against.losses:
      (wins if against.wins > against.losses else losses).append(name)
  if not wins and not losses:
    return []
  return [
    "At equal time, that is against ew trained for two or four times the steps where a "
    f"step takes so long, {_or_none(wins)} win on more problems than they lose, and "
    f"{_or_none(losses)} lose on more than they win."
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
