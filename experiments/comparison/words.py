"""What a comparison shows, and does not show, in plain sentences."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from scipy import stats

from .estimates import CONFIDENCE, Estimate, Verdict
from .statistics import Comparison, is_done


def listed(names: Iterable[Any]) -> str:
  """Names as a sentence has them.

  Example:
    >>> listed(["a", "b", "c"])
    'a, b and c'
  """
  *others, last = map(str, names)
  return f"{', '.join(others)} and {last}" if others else last


def number(value: float) -> str:
  """A number with four digits, or whole where it is large.

  Example:
    >>> number(0.3), number(12.345), number(20341.7)
    ('0.3000', '12.35', '20342')
  """
  text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}".rstrip(".")
  return text.replace("-", "\N{MINUS SIGN}")


def percentage(delta_m: Estimate, *, sign: str = "") -> str:
  """A delta_m and its interval.

  Example:
    >>> percentage(Estimate(62.04, 3.16, 3)), percentage(Estimate(1.0, None, 1))
    ('62.0 ± 3.2', '1.0')
  """
  text = f"{delta_m.mean:{sign}.1f}".replace("-", "\N{MINUS SIGN}")
  if delta_m.half_width is None:
    return text
  return f"{text} ± {delta_m.half_width:.1f}"


def seeds(count: int) -> str:
  """How many seeds.

  Example:
    >>> seeds(1), seeds(3)
    ('one seed', '3 seeds')
  """
  return "one seed" if count == 1 else f"{count} seeds"


def versions(packages: Mapping[str, str]) -> str:
  """The versions of packages.

  Example:
    >>> versions({"jax": "0.10.0", "optax": "0.2.8"})
    'jax 0.10.0, optax 0.2.8'
  """
  return ", ".join(f"{name} {version}" for name, version in packages.items())


def protocol(results: Mapping[str, Any]) -> str:
  """How long the finished runs took, and how many there are of a balancer."""
  done = [run for run in results["runs"] if is_done(run)]
  if not done:
    return "no run has ended yet"
  return (
    f"{_range(run['epochs'] for run in done)} epochs, "
    f"{_range(run['num_steps'] for run in done)} steps; seeds "
    f"{listed(sorted({run['seed'] for run in done}))}"
  )


def conclusions(results: Mapping[str, Any], comparison: Comparison) -> list[str]:
  """Which balancers cannot be told apart, and which is the best for its cost.

  Returns:
    Paragraphs.
  """
  best, reference = comparison.best, comparison.reference
  if best is None or reference is None:
    return ["No run with a delta_m has ended yet: nothing can be said."]
  paragraphs = [f"{_what_decides(results, comparison)} {_who_leads(comparison)}"]
  if comparison.differences:
    paragraphs.append(_who_follows(comparison))
    paragraphs.append(_what_it_costs(comparison))
  else:
    paragraphs.append(
      f"{reference} is the only balancer with results: there is nothing to compare it "
      "with."
    )
  return paragraphs


def limits(results: Mapping[str, Any], comparison: Comparison) -> list[str]:
  """What the numbers do not show.

  Returns:
    Sentences, each of which stands alone.
  """
  done = [run for run in results["runs"] if is_done(run)]
  if not done:
    return []
  counts = [len(each.seeds) for each in comparison.balancers.values() if each.seeds]
  fewest, most = min(counts), max(counts)
  sentences = []
  if most > 1:
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, most - 1) / math.sqrt(most)
    sentences.append(
      f"There are {seeds(most) if fewest == most else f'{fewest} to {most} seeds'} a "
      f"balancer. With {most} a 95% interval reaches {quantile:.1f} standard "
      "deviations of a run to each side, so that only large differences can be told: "
      "balancers that cannot be told apart need not be equally good."
    )
  single = [name for name, each in comparison.balancers.items() if len(each.seeds) == 1]
  if single:
    sentences.append(
      f"{listed(single)} {'has' if len(single) == 1 else 'have'} one seed, which tells "
      "nothing of the spread: no interval, no test."
    )
  if comparison.differences:
    sentences.append(
      "The best was picked by the same runs that it is judged by, which flatters it. "
      "The intervals of the differences hold one at a time; the verdicts go by "
      "p-values corrected for all comparisons (Holm)."
    )
  if comparison.decides == "own":
    fewest_base = min(
      comparison.baselines[metric["name"]].seeds for metric in results["metrics"]
    )
    sentences.append(
      f"Our own single-task networks are of {seeds(fewest_base)} each. Their chance "
      "enters the delta_m of every balancer alike, and no interval counts it."
    )
  sentences.append(
    f"All this holds for runs of this size: {protocol(results)}. The intervals are "
    "over initial parameters and the order of batches; data, split, network and "
    "hyper-parameters of the training were the same, and longer runs or others of "
    "these may rank otherwise."
  )
  if results.get("published"):
    sentences.append(
      "The paper's rows follow another protocol: they do not compare with ours number "
      "by number."
    )
  if results.get("timing"):
    sentences.append(
      "Time and memory are those of a training step on this machine; their ratios "
      "depend on the network, the number of tasks and the hardware."
    )
  skipped = [run for run in done if run.get("skipped_steps")]
  if skipped:
    which = listed(
      f"{run['balancer']} seed {run['seed']} ({run['skipped_steps']})"
      for run in skipped
    )
    sentences.append(f"Steps whose numbers were not finite were skipped: {which}.")
  return sentences


def _range(values: Iterable[int]) -> str:
  numbers = sorted(set(values))
  return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _what_decides(results: Mapping[str, Any], comparison: Comparison) -> str:
  if comparison.decides == "own":
    against = "our own single-task networks"
  else:
    against = f"the base ({results['base']})"
  text = (
    "Balancers are judged by delta_m, the mean change of the metrics against "
    f"{against}; lower is better."
  )
  if comparison.decides == "base" and results["baselines"]:
    text += (
      " This base is taken since our own single-task runs lack "
      f"{listed(comparison.incomplete_baselines)}."
    )
  return text


def _who_leads(comparison: Comparison) -> str:
  best, reference = comparison.best or "", comparison.reference or ""
  lowest, repeated = comparison.delta_m(best), comparison.delta_m(reference)
  assert lowest is not None
  assert repeated is not None
  text = f"{best} has the lowest, {percentage(lowest)}% ({seeds(lowest.seeds)})."
  if reference != best:
    text += (
      " One seed does not say how sure that is; of the balancers with more, "
      f"{reference} has the lowest, {percentage(repeated)}% "
      f"({seeds(repeated.seeds)}), and the others are compared with it."
    )
  return text


def _who_follows(comparison: Comparison) -> str:
  common = {
    name: each.estimate.seeds if each.estimate else 0
    for name, each in comparison.differences.items()
  }

  def those(verdict: Verdict) -> list[str]:
    return [
      f"{name} ({common[name]} seeds)"
      if 1 < common[name] < max(common.values())
      else name
      for name, each in comparison.differences.items()
      if each.verdict == verdict
    ]

  reference = comparison.reference
  parts = []
  if same := those("cannot be told apart"):
    parts.append(f"From {reference} cannot be told apart: {listed(same)}.")
  elif those("worse"):
    parts.append(f"{reference} can be told apart from every other with enough seeds.")
  if worse := those("worse"):
    parts.append(f"Worse than {reference}: {listed(worse)}.")
  if better := those("better"):
    parts.append(f"Better than {reference} on their common seeds: {listed(better)}.")
  if unknown := those("too few seeds to tell"):
    parts.append(f"Too few seeds to tell: {listed(unknown)}.")
  return " ".join(parts)


def _what_it_costs(comparison: Comparison) -> str:
  winner, cheap = comparison.best_for_cost, comparison.equally_cheap
  reference = comparison.reference
  if winner is None:
    return (
      "Which is the best for its cost cannot be said: too few seeds, or times of a "
      "step are missing."
    )
  time = comparison.balancers[winner].time_of_ew
  assert time is not None
  step = f"a step takes {time.median:.2f} times as long as one of ew"
  equal = (
    f"of {reference} and those that cannot be told apart from it over as many seeds"
  )
  if cheap == [reference]:
    text = (
      f"{winner} is also the best for its cost ({step}): no faster one is known to be "
      "as good."
    )
  elif len(cheap) == 1:
    text = f"Best for its cost is {winner}: {equal}, it is the fastest; {step}."
  else:
    text = (
      f"Best for its cost is {winner}: {equal}, {listed(cheap)} are the fastest, with "
      f"times that overlap, and {winner} has the lowest delta_m of these; {step}."
    )
  front = listed(comparison.pareto_front)
  return f"{text} On the Pareto front of mean delta_m and time: {front}."
