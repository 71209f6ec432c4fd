"""The numbers of a comparison: means, intervals, ranks, and who beats whom.

The runs of a balancer differ in their seeds. Over n of them, with the standard
deviation s, a mean has the 95% interval

    mean +- t(0.975, n - 1) s / sqrt(n)

with Student's t, and none for n = 1. Runs of one seed share their initial parameters
and the order of their batches, so that two balancers are compared by their differences
seed by seed, which have an interval of the same kind. The p-values of the comparisons
are corrected as in Holm, "A simple sequentially rejective multiple test procedure",
Scandinavian Journal of Statistics, 1979.
"""

import dataclasses
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from scipy import stats

from igb_jax.metrics import delta_m, mean_ranks

CONFIDENCE = 0.95

_Tests = dict[str, dict[int, dict[str, float]]]  # balancer -> seed -> metric -> value

Verdict = Literal["worse", "better", "cannot be told apart", "too few seeds to tell"]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean over seeds.

  Attributes:
    mean: over the seeds.
    half_width: of its 95% interval; None for one seed.
    seeds: how many there are.
  """

  mean: float
  half_width: float | None
  seeds: int


@dataclasses.dataclass(frozen=True)
class Spread:
  """What repeated measurements of a time gave.

  Attributes:
    median: of the measurements.
    least: of them.
    largest: of them.
  """

  median: float
  least: float
  largest: float


@dataclasses.dataclass(frozen=True)
class Numbers:
  """What is known of a balancer.

  Attributes:
    seeds: of its finished runs.
    metrics: name -> estimate; empty without a finished run.
    delta_m_own: against our own single-task runs, in per cent; None where they are not
      complete.
    delta_m_base: against the base that the experiment has, in per cent.
    mean_rank: over the metrics, 1 for the best of the balancers with results.
    time_of_ew: time of a step, in steps of ew.
    seconds_per_step: time of a step, in seconds.
    memory_bytes: peak memory of a step.
  """

  seeds: list[int]
  metrics: dict[str, Estimate]
  delta_m_own: Estimate | None
  delta_m_base: Estimate | None
  mean_rank: float | None
  time_of_ew: Spread | None
  seconds_per_step: Spread | None
  memory_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Difference:
  """How a balancer's delta_m differs from that of the reference.

  Attributes:
    estimate: of its delta_m less the reference's, seed by seed; None without a common
      seed.
    p: of the t test that there is none; None for fewer than two common seeds.
    p_holm: corrected for the number of comparisons.
    verdict: what follows, at 5% of p_holm.
  """

  estimate: Estimate | None
  p: float | None
  p_holm: float | None
  verdict: Verdict


@dataclasses.dataclass(frozen=True)
class Comparison:
  """All that the report computes from the results.

  Attributes:
    decides: which delta_m methods are compared by; None without any.
    incomplete_baselines: tasks whose own single-task metrics are missing or not usable.
    baselines: metric -> estimate, of our own single-task runs.
    baselines_delta_m: of our own single-task runs against the base, in per cent.
    balancers: specification -> numbers, in order of delta_m; last those without one.
    best: balancer of the lowest delta_m.
    reference: the one that the others are compared with: the best among those with two
      seeds or more, or the best where there is none.
    differences: of each other balancer with a delta_m from the reference.
    pareto_front: balancers than which none is both faster and better, in order of cost.
    equally_cheap: of the reference and those that cannot be told apart from it over as
      many seeds as any, the fastest, and those whose range of times overlaps its; empty
      where one was not timed, or none has seeds enough.
    best_for_cost: the one of these with the lowest delta_m.
  """

  decides: Literal["own", "base"] | None
  incomplete_baselines: list[str]
  baselines: dict[str, Estimate]
  baselines_delta_m: float | None
  balancers: dict[str, Numbers]
  best: str | None
  reference: str | None
  differences: dict[str, Difference]
  pareto_front: list[str]
  equally_cheap: list[str]
  best_for_cost: str | None

  def delta_m(self, balancer: str) -> Estimate | None:
    """The delta_m that decides.

    Args:
      balancer: whose.
    """
    numbers = self.balancers[balancer]
    return numbers.delta_m_own if self.decides == "own" else numbers.delta_m_base


def estimate(values: Iterable[float]) -> Estimate:
  """Mean and 95% interval.

  Args:
    values: one a seed, at least one.

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

  Args:
    values: the measurements.

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


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
  """P-values corrected for how many there are.

  Args:
    p_values: name -> p.

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


def is_done(run: Mapping[str, Any]) -> bool:
  """Whether a run, or a baseline, has metrics.

  Args:
    run: an entry of the results.
  """
  return run["status"] == "done" and bool(run.get("test"))


def baseline_metrics(results: Mapping[str, Any]) -> dict[str, Estimate]:
  """The metrics of our own single-task runs, each from the runs on its task.

  Args:
    results: of the comparison.

  Example:
    >>> results = {"baselines": [{"status": "done", "test": {"x": 2.0}}]}
    >>> baseline_metrics(results)["x"].mean
    2.0
  """
  values: dict[str, list[float]] = defaultdict(list)
  for run in filter(is_done, results["baselines"]):
    for name, value in run["test"].items():
      values[name].append(value)
  return {name: estimate(numbers) for name, numbers in values.items()}


def delta_m_against(
  test: Mapping[str, float],
  base: Mapping[str, float],
  metrics: Sequence[Mapping[str, Any]],
) -> float | None:
  """delta_m of a run against the metrics of a base.

  Args:
    test: metric -> value, of all metrics.
    base: metric -> value.
    metrics: name and higher_is_better of each.

  Returns:
    delta_m in per cent; None where the base lacks a metric, or has zero for it.

  Example:
    >>> metrics = [{"name": "x", "higher_is_better": False}]
    >>> delta_m_against({"x": 3.0}, {"x": 2.0}, metrics)
    50.0
  """
  names = [metric["name"] for metric in metrics]
  if not all(_is_usable(base.get(name)) for name in names):
    return None
  return delta_m(
    [test[name] for name in names],
    [base[name] for name in names],
    [metric["higher_is_better"] for metric in metrics],
  )


def compare(results: Mapping[str, Any]) -> Comparison:
  """Computes everything that the report says.

  Args:
    results: of the comparison, with as many finished runs as there are.

  Returns:
    The numbers.
  """
  metrics = results["metrics"]
  baselines = baseline_metrics(results)
  own = {name: value.mean for name, value in baselines.items()}
  base = {metric["name"]: metric["base"] for metric in metrics}
  incomplete = [
    metric["task"] for metric in metrics if not _is_usable(own.get(metric["name"]))
  ]
  tests = _tests(results)
  own_deltas, base_deltas = (
    _delta_ms(tests, against, metrics) for against in (own, base)
  )
  decides = "own" if any(own_deltas.values()) else "base"
  deciding = own_deltas if decides == "own" else base_deltas
  score = {
    balancer: estimate(values.values()).mean
    for balancer, values in deciding.items()
    if values
  }
  order = sorted(tests, key=lambda balancer: score.get(balancer, math.inf))
  ranked = order[: len(score)]
  numbers = _numbers(
    results, {each: tests[each] for each in order}, own_deltas, base_deltas
  )

  best = ranked[0] if ranked else None
  repeated = (balancer for balancer in ranked if len(deciding[balancer]) > 1)
  reference = next(repeated, best)
  differences = _differences(reference, {each: deciding[each] for each in ranked})
  cost = {balancer: numbers[balancer].time_of_ew for balancer in ranked}
  as_good = _as_good(reference, differences)
  equally_cheap = _equally_cheap(
    {balancer: cost[balancer] for balancer in ranked if balancer in as_good}
  )
  return Comparison(
    decides=decides if score else None,
    incomplete_baselines=list(dict.fromkeys(incomplete)),
    baselines=baselines,
    baselines_delta_m=None if incomplete else delta_m_against(own, base, metrics),
    balancers=numbers,
    best=best,
    reference=reference,
    differences=differences,
    pareto_front=pareto_front(
      {name: (time.median, score[name]) for name, time in cost.items() if time}
    ),
    equally_cheap=equally_cheap,
    best_for_cost=equally_cheap[0] if equally_cheap else None,
  )


def _tests(results: Mapping[str, Any]) -> _Tests:
  tests: _Tests = {run["balancer"]: {} for run in results["runs"]}
  for run in filter(is_done, results["runs"]):
    tests[run["balancer"]][run["seed"]] = run["test"]
  return tests


def _delta_ms(
  tests: _Tests, base: Mapping[str, float], metrics: Sequence[Mapping[str, Any]]
) -> dict[str, dict[int, float]]:
  """Of each balancer, by seed; empty where the base is not whole."""
  return {
    balancer: {
      seed: score
      for seed, test in runs.items()
      if (score := delta_m_against(test, base, metrics)) is not None
    }
    for balancer, runs in tests.items()
  }


def _numbers(
  results: Mapping[str, Any],
  tests: _Tests,
  own_deltas: Mapping[str, Mapping[int, float]],
  base_deltas: Mapping[str, Mapping[int, float]],
) -> dict[str, Numbers]:
  higher = {each["name"]: each["higher_is_better"] for each in results["metrics"]}
  metrics = {
    balancer: {
      name: estimate(test[name] for test in runs.values()) for name in higher if runs
    }
    for balancer, runs in tests.items()
  }
  means = {
    balancer: [row[name].mean for name in higher]
    for balancer, row in metrics.items()
    if row
  }
  ranks = {}
  if means:
    found = mean_ranks([*means.values()], [*higher.values()])
    ranks = dict(zip(means, found.tolist(), strict=True))
  timing = results.get("timing") or {}
  numbers = {}
  for balancer, runs in tests.items():
    own, base = (
      estimate(deltas[balancer].values()) if deltas[balancer] else None
      for deltas in (own_deltas, base_deltas)
    )
    times = timing.get(balancer) or {}
    numbers[balancer] = Numbers(
      seeds=sorted(runs),
      metrics=metrics[balancer],
      delta_m_own=own,
      delta_m_base=base,
      mean_rank=ranks.get(balancer),
      time_of_ew=spread(times.get("of_ew") or []),
      seconds_per_step=spread(times.get("seconds") or []),
      memory_bytes=times.get("memory_bytes"),
    )
  return numbers


def _differences(
  reference: str | None, deciding: Mapping[str, Mapping[int, float]]
) -> dict[str, Difference]:
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


def _as_good(
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


def _equally_cheap(cost: Mapping[str, Spread | None]) -> list[str]:
  """Those whose range of times overlaps that of the fastest, if all were timed."""
  times = {name: time for name, time in cost.items() if time is not None}
  if not times or len(times) < len(cost):
    return []
  fastest = min(times.values(), key=lambda time: time.median)
  return [name for name, time in times.items() if time.least <= fastest.largest]


def _is_usable(base: float | None) -> bool:
  return base is not None and math.isfinite(base) and base != 0


def _standard_error(sample: np.ndarray) -> float:
  return float(sample.std(ddof=1) / math.sqrt(len(sample)))
