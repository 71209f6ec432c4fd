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
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from igb_jax.metrics import delta_m, mean_ranks

from .estimates import (
  Difference,
  Estimate,
  Spread,
  as_good_as,
  differences_from,
  equally_cheap_of,
  estimate,
  pareto_front,
  spread,
)

_Tests = dict[str, dict[int, dict[str, float]]]  # balancer -> seed -> metric -> value


@dataclasses.dataclass(frozen=True)
class Numbers:
  """What is known of a balancer.

  Attributes:
    seeds: the seeds of its finished runs.
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
class Comparison:
  """All that the report computes from the results.

  Attributes:
    decides: which delta_m methods are compared by; None without any.
    incomplete_baselines: tasks whose own single-task metrics are missing or not usable.
    baselines: metric -> estimate, of our own single-task runs.
    baselines_delta_m: the delta_m of our own single-task runs against the
      base, in per cent.
    balancers: specification -> numbers, in order of delta_m; last those without one.
    best: balancer of the lowest delta_m.
    reference: the one that the others are compared with: the best among those with two
      seeds or more, or the best where there is none.
    differences: the differences of each other balancer with a delta_m from the
      reference.
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
    """The delta_m that decides."""
    numbers = self.balancers[balancer]
    return numbers.delta_m_own if self.decides == "own" else numbers.delta_m_base


def is_done(run: Mapping[str, Any]) -> bool:
  """Whether a run, or a baseline, has metrics."""
  return run["status"] == "done" and bool(run.get("test"))


def baseline_metrics(results: Mapping[str, Any]) -> dict[str, Estimate]:
  """The metrics of our own single-task runs, each from the runs on its task.

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
    results: the results of the comparison, with as many finished runs as there are.

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
  deltas = {
    name: _delta_ms(tests, against, metrics)
    for name, against in (("own", own), ("base", base))
  }
  decides = "own" if any(deltas["own"].values()) else "base"
  deciding = deltas[decides]
  score = {
    balancer: estimate(values.values()).mean
    for balancer, values in deciding.items()
    if values
  }
  order = sorted(tests, key=lambda balancer: score.get(balancer, math.inf))
  ranked = order[: len(score)]
  numbers = _numbers(results, {each: tests[each] for each in order}, deltas.values())
  best = ranked[0] if ranked else None
  repeated = (balancer for balancer in ranked if len(deciding[balancer]) > 1)
  reference = next(repeated, best)
  differences = differences_from(reference, {each: deciding[each] for each in ranked})
  cost = {balancer: numbers[balancer].time_of_ew for balancer in ranked}
  as_good = as_good_as(reference, differences)
  equally_cheap = equally_cheap_of(
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
  deltas: Iterable[Mapping[str, Mapping[int, float]]],
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
      estimate(each[balancer].values()) if each[balancer] else None for each in deltas
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


def _is_usable(base: float | None) -> bool:
  return base is not None and math.isfinite(base) and base != 0
