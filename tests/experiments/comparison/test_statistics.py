"""The numbers of the report, against other ways to them."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.comparison.estimates import (
  estimate,
  holm,
  paired_difference,
  pareto_front,
)
from experiments.comparison.statistics import (
  compare,
  delta_m_against,
)
from tests.experiments.comparison.made_up import METRICS, fail, lose, made_up


def test_the_interval_is_that_of_student():
  values = [3.0, 4.5, 4.0, 7.0]
  expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
  found = estimate(values)
  assert found.half_width is not None
  assert (
    found.mean - found.half_width,
    found.mean + found.half_width,
  ) == pytest.approx(expected)
  assert found.seeds == 4


def test_the_interval_holds_the_mean_as_often_as_it_says():
  random = np.random.default_rng(0)
  held = 0
  for _ in range(2000):
    found = estimate(random.normal(5.0, size=3))
    held += abs(found.mean - 5.0) <= (found.half_width or 0)
  assert held / 2000 == pytest.approx(0.95, abs=0.015)


def test_paired_differences_take_the_common_seeds_alone():
  first = {0: 10.0, 1: 21.0, 2: 33.0, 7: 1000.0}
  second = {0: 9.0, 1: 19.0, 2: 30.0, 5: -1000.0}
  found, p = paired_difference(first, second)
  assert found is not None
  assert found.mean == 2.0
  assert found.seeds == 3
  assert p == pytest.approx(stats.ttest_rel([10, 21, 33], [9, 19, 30]).pvalue)


def test_equal_differences_need_no_spread():
  assert paired_difference({0: 2.0, 1: 3.0}, {0: 2.0, 1: 3.0})[1] == 1.0
  assert paired_difference({0: 2.5, 1: 3.5}, {0: 2.0, 1: 3.0})[1] == 0.0
  assert paired_difference({0: 2.0}, {1: 3.0}) == (None, None)


def test_holm_is_between_no_correction_and_bonferroni():
  p_values = {"a": 0.04, "b": 0.001, "c": 0.03, "d": 0.9}
  found = holm(p_values)
  assert found == pytest.approx({"a": 0.09, "b": 0.004, "c": 0.09, "d": 0.9})
  assert list(found) == list(p_values)
  assert holm({}) == {}
  assert holm({"a": 0.8, "b": 0.7}) == {"a": 1.0, "b": 1.0}


def test_the_pareto_front():
  points = {"a": (1.0, 9.0), "b": (1.0, 8.0), "c": (3.0, 8.0), "d": (2.0, 5.0),
            "e": (2.0, 5.0), "f": (9.0, 4.0), "g": (8.0, 6.0)}  # fmt: skip
  assert pareto_front(points) == ["b", "d", "e", "f"]
  assert pareto_front({}) == []


def test_delta_m_needs_a_whole_base():
  test = {"mu": 1.0, "alpha": 2.0, "acc": 40.0}
  base = {metric["name"]: metric["base"] for metric in METRICS}
  assert delta_m_against(test, base, METRICS) == pytest.approx((100 + 0 + 50) / 3)
  for bad in (0.0, math.nan, math.inf):
    assert delta_m_against(test, base | {"mu": bad}, METRICS) is None
  del base["acc"]
  assert delta_m_against(test, base, METRICS) is None


def test_the_numbers_of_a_comparison(tmp_path):
  results = made_up(tmp_path)
  found = compare(results)
  assert found.decides == "own"
  assert list(found.balancers) == ["nashmtl", "igbv1", "si", "ew"]
  assert found.best == found.reference == "nashmtl"
  assert found.incomplete_baselines == []
  ew = [run["test"] for run in results["runs"] if run["balancer"] == "ew"]
  numbers = found.balancers["ew"]
  assert numbers.metrics["mu"] == estimate(test["mu"] for test in ew)
  own = {name: 0.8 * metric["base"] for metric in METRICS for name in [metric["name"]]}
  deltas = [delta_m_against(test, own, METRICS) for test in ew]
  assert numbers.delta_m_own is not None
  assert numbers.delta_m_own.mean == pytest.approx(np.mean(np.array(deltas, float)))
  assert numbers.mean_rank == 4.0
  assert numbers.time_of_ew is not None
  assert numbers.time_of_ew.median == 1.0
  assert numbers.memory_bytes == 300 * 2**20
  # errors of 0.8 of the base, but an accuracy of 0.8 of it too
  assert found.baselines_delta_m == pytest.approx((-20 - 20 + 20) / 3)
  assert found.differences["ew"].verdict == "worse"
  assert (
    found.pareto_front == ["igbv1", "nashmtl"] or found.pareto_front[-1] == "nashmtl"
  )


def test_the_fastest_of_the_equally_good_is_best_for_its_cost(tmp_path):
  results = made_up(
    tmp_path, balancers={"ew": 9.0, "si": 1.5, "igbv1": 1.5, "mgda": 1.5}
  )
  results["timing"]["mgda"]["of_ew"] = [5.0, 5.1]
  results["timing"]["si"]["of_ew"] = [1.0, 1.01]
  results["timing"]["igbv1"]["of_ew"] = [1.2, 1.3]
  found = compare(results)
  assert found.differences["ew"].verdict == "worse"
  assert {each.verdict for name, each in found.differences.items() if name != "ew"} == {
    "cannot be told apart"
  }
  assert found.best_for_cost == "si"
  assert found.equally_cheap == ["si"]

  results["timing"]["igbv1"]["of_ew"] = [1.01, 1.3]  # no longer apart from si
  found = compare(results)
  assert set(found.equally_cheap) == {"si", "igbv1"}
  order = [name for name in found.balancers if name in found.equally_cheap]
  assert found.best_for_cost == order[0]  # they are in order of delta_m

  del results["timing"]["mgda"]
  assert compare(results).best_for_cost is None


def test_fewer_seeds_make_none_the_best_for_its_cost(tmp_path):
  results = made_up(
    tmp_path, balancers={"ew": 1.6, "si": 1.5, "mgda": 1.2}, seeds=range(5)
  )
  for run in results["runs"]:
    if run["balancer"] == "ew" and run["seed"] > 1:
      lose(run)
    if run["balancer"] == "ew" and run["seed"] == 0:  # so that two seeds tell nothing
      run["test"] = {name: 2 * value for name, value in run["test"].items()}
  results["timing"]["mgda"]["of_ew"] = [5.0, 5.1]
  found = compare(results)
  assert found.differences["ew"].verdict == "cannot be told apart"
  assert found.differences["si"].verdict == "worse"
  assert found.best_for_cost == "mgda"


def test_the_base_decides_where_a_baseline_is_missing(tmp_path):
  results = made_up(tmp_path)
  fail(results["baselines"][1], "out of memory")
  found = compare(results)
  assert found.decides == "base"
  assert found.incomplete_baselines == ["alpha"]
  assert found.balancers["ew"].delta_m_own is None
  assert found.balancers["ew"].delta_m_base is not None
  assert found.baselines_delta_m is None
  assert set(found.baselines) == {"mu", "acc"}


def test_one_seed_tells_nothing(tmp_path):
  found = compare(made_up(tmp_path, seeds=[4]))
  assert found.reference == found.best == "nashmtl"
  assert {each.verdict for each in found.differences.values()} == {
    "too few seeds to tell"
  }
  assert all(each.p is None for each in found.differences.values())
  assert found.balancers["ew"].delta_m_own is not None
  assert found.balancers["ew"].delta_m_own.half_width is None


def test_the_reference_has_two_seeds_where_one_has(tmp_path):
  results = made_up(tmp_path)
  for run in results["runs"]:
    if run["balancer"] == "nashmtl" and run["seed"] > 0:
      lose(run)
  found = compare(results)
  assert found.best == "nashmtl"
  assert found.reference in ("igbv1", "si")
  assert found.differences["nashmtl"].verdict == "too few seeds to tell"
  assert found.differences["nashmtl"].estimate is not None
  assert found.differences["nashmtl"].estimate.mean < 0
  assert found.balancers["nashmtl"].seeds == [0]


def test_nothing_has_run_yet(tmp_path):
  results = made_up(tmp_path)
  for run in [*results["runs"], *results["baselines"]]:
    lose(run)
  results["timing"] = {}
  found = compare(results)
  assert list(found.balancers) == ["ew", "si", "igbv1", "nashmtl"]
  assert found.best is found.reference is found.decides is found.best_for_cost is None
  assert found.differences == {}
  assert found.pareto_front == []
  assert found.incomplete_baselines == ["mu", "alpha", "acc"]
  assert found.balancers["ew"].metrics == {}
