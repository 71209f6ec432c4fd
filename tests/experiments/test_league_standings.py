"""What the standings of the league say: places, wins, tests and intervals."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.standings import tables, words
from experiments.standings.ranking import (
  differences,
  interval,
  p_values_of,
  signed_rank,
  verdict,
)
from experiments.standings.statistics import standings
from tests.experiments.made_up_league import SEEDS, cell, some_cells


def test_the_standings_rank_compare_and_count():
  found = standings(some_cells())
  assert all(0 <= each.low <= each.high <= 100 for each in found.place.values())
  assert found.order == ["mgda", "ew", "si"]
  assert [found.place[name].mean for name in found.order] == [0, 50, 100]
  assert found.failures("digits", "si") == (1, 1)
  assert found.failures("digits", "ew") == (0, 0)
  np.testing.assert_allclose(
    found.scores["digits"]["ew"].mean(), 0, atol=1e-9
  )  # against itself
  # the longer trainings of ew measure its step as well
  assert found.time_of_ew["digits"]["mgda"] == pytest.approx(1.1 / 0.5)
  assert all(p < 1e-4 for p in found.p_values.values())
  assert not found.cliques
  difference = found.difference("mgda", "ew")
  assert difference is not None
  assert (difference.mean, difference.low, difference.high) == (-50, -50, -50)


def test_wins_are_counted_at_equal_steps_and_at_equal_time():
  found = standings(some_cells())
  against = found.against("mgda", "ew")
  assert (against.wins, against.ties, against.losses) == (3, 0, 0)
  # ew with twice the steps has the same numbers
  against = found.against("mgda", "ew", equal_time=True)
  assert (against.wins, against.ties, against.losses) == (0, 3, 0)
  assert found.against("si", "ew").losses == 3
  assert found.against("si", "uw") is None


@pytest.mark.parametrize(("seconds", "count"), [(1.45, 3), (1.6, 2)])
def test_a_time_that_no_training_of_ew_takes_does_not_count(seconds, count):
  cells = some_cells()
  for each in cells:
    if (each["problem"], each["method"]) == ("digits", "mgda"):
      each["seconds_per_step"] = seconds  # 2.9 or 3.2 steps of ew; 2 were played
  found = standings(cells)
  against = found.against("mgda", "ew", equal_time=True)
  assert (against.wins, against.ties, against.losses) == (0, count, 0)
  rate = found.win_rate(["mgda"], "ew")
  assert rate is not None
  assert (rate.mean, rate.problems) == (50, count)  # ew@2 has the same numbers
  assert found.win_rate(["si"], "ew").mean == 0
  assert found.win_rate(["mgda", "another", "third"], "ew") is None
  assert found.win_rate([], "ew") is None


def test_times_of_another_machine_are_not_compared():
  cells = some_cells()
  for each in cells:
    if (each["problem"], each["method"]) == ("digits", "mgda"):
      each["machine"] = "another laptop"
  found = standings(cells)
  assert "mgda" not in found.time_of_ew["digits"]
  assert found.time_of_ew["diamonds"]["mgda"] == pytest.approx(2.2)


def test_a_problem_on_which_most_tie_has_wins_and_no_places():
  cells = some_cells()
  tied = np.full(SEEDS, 1.0)
  cells += [cell("toy", name, tied) for name in ("stl", "ew", "mgda")]
  cells.append(cell("toy", "si", 2 * tied))
  found = standings(cells)
  assert "toy" not in found.places
  assert found.place == standings(some_cells()).place
  assert found.against("si", "ew").losses == 4
  [*_, tie] = words.limits(found, cells)
  assert "toy" in tie


def test_the_cells_of_a_league_that_was_stopped_anywhere_make_a_report():
  cells = some_cells()
  for number in range(len(cells) + 1):
    for part in (cells[:number], cells[-number:] if number else []):
      found = standings(part)
      kinds = {each["method"]: each["kind"] for each in part}
      words.conclusions(found, kinds)
      tables.overall(found, kinds)


def test_a_problem_that_few_have_played_has_a_table_and_no_places():
  cells = [
    each
    for each in some_cells()
    if each["problem"] != "digits" or each["method"] != "mgda"
  ]
  found = standings(cells, {"digits"})
  whole = standings([each for each in cells if each["problem"] != "digits"])
  assert found.place == whole.place
  assert found.mean_times() == whole.mean_times()
  kinds = {each["method"]: each["kind"] for each in cells}
  assert tables.overall(found, kinds) == tables.overall(whole, kinds)
  assert found.against("si", "ew") == whole.against("si", "ew")
  assert {"ew", "si"} <= {*found.scores["digits"]}
  names = [row.name for row in tables.of_problem(cells, found, "digits").rows]
  assert names.index("ew") < names.index("si")
  assert standings(cells).place["ew"] != found.place["ew"]


def test_single_tasks_that_failed_do_not_spoil_the_others():
  cells = some_cells()
  cells[0]["test"][0] = [None]
  assert np.isfinite(standings(cells).scores["digits"]["ew"]).all()
  cells[0]["test"] = [[None]] * SEEDS
  assert "digits" not in standings(cells).scores


def test_ahead_is_what_the_test_and_the_interval_both_say():
  random = np.random.default_rng(0)
  # better on one problem by far, worse on the others by little
  shifts = {"far": -50.0} | dict.fromkeys("abcdef", 5.0)
  places = {
    problem: {
      "a": 50 + shift + random.random(SEEDS),
      "b": 50 + random.random(SEEDS),
      "c": 70 + random.random(SEEDS),
    }
    for problem, shift in shifts.items()
  }
  p_values = p_values_of(places, ["a", "b", "c"])
  assert p_values["a", "b"] < 0.05
  assert verdict(differences(places, "a", "b"), p_values["a", "b"]) == 0
  assert verdict(differences(places, "b", "c"), p_values["b", "c"]) == -1
  assert verdict(differences(places, "c", "b"), p_values["b", "c"]) == 1
  assert not differences(places, "b", "d")


@pytest.mark.parametrize("count", [1, 4, 9, 40])
def test_the_signed_rank_test_is_scipys_with_ties_and_zeros_too(count):
  differences = np.random.default_rng(count).integers(-3, 5, count).astype(float)
  differences[0] = 2  # some difference, where there is but one
  expected: Any = stats.wilcoxon(differences, zero_method="zsplit")
  assert signed_rank(differences)[0] == pytest.approx(expected.pvalue)


def test_methods_that_differ_by_noise_make_a_clique():
  random = np.random.default_rng(1)
  names = ["stl", "ew", "si", "uw"]
  cells = [
    cell(problem, name, 1 + random.random(SEEDS))
    for problem in ("digits", "diamonds", "burgers")
    for name in names
  ]
  found = standings(cells)
  assert found.cliques == [(0, 2)]
  low, high = found.place["ew"].low, found.place["ew"].high
  assert low < found.place["ew"].mean < high


def test_without_single_tasks_there_is_no_delta_m_yet():
  assert not standings([cell("digits", "ew", [1.0, 2.0])]).scores


def test_the_interval_covers_what_it_should():
  random = np.random.default_rng(0)
  hits = 0
  for _ in range(100):
    effects = random.normal(size=7)
    blocks = [effect + random.normal(size=10) for effect in effects]
    found = interval(blocks)
    hits += found.low < 0 < found.high
  assert hits >= 90
