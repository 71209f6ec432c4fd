"""The league: who takes part, what a cell holds, what the standings say, and a run."""

import csv
import dataclasses
import json
import sys
from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

from experiments import league
from experiments.problems import NAMES, entrants_of, load, qm9
from experiments.problems.base import Training
from experiments.standings import cells as cells_module
from experiments.standings import tables, words
from experiments.standings.cells import play, score, trained_as
from experiments.standings.plan import (
  Cell,
  cells_of,
  check_names,
  everyone,
  make,
  parse,
  unfit,
)
from experiments.standings.ranking import (
  interval,
  p_values_of,
  signed_rank,
  verdict,
)
from experiments.standings.report import write_report
from experiments.standings.statistics import standings
from experiments.standings.training import Lane, make_runner
from igb_jax import balancers
from igb_jax.balancers.methods import METHODS
from igb_jax.training.array_task import ArrayTask, TaskMetric

SEEDS = 10


def lines() -> ArrayTask:
  """Two tasks that share a slope: one fit cannot serve both."""
  x = np.random.default_rng(0).normal(size=(64, 1)).astype(np.float32)
  rows = {"x": x, "y": np.concatenate([2 * x, -x], axis=1) + 0.5}

  def init(key):
    return {
      "shared": {"w": 0.1 * jax.random.normal(key, ())},
      "heads": np.zeros(2, np.float32),
    }

  def errors(params, rows):
    predictions = rows["x"] * params["shared"]["w"] + params["heads"]
    return ((predictions - rows["y"]) ** 2).mean(axis=0)

  return ArrayTask(
    name="lines",
    task_names=("a", "b"),
    metrics=(TaskMetric("error a", "", "a"), TaskMetric("error b", "", "b")),
    train=rows,
    validation=rows,
    test=rows,
    init=init,
    losses=errors,
    measures=errors,
  )


TRAINING = Training(
  epochs=20,
  batch_size=16,
  learning_rates=(1e-3, 3e-2, 1e-1),
  judged_by="delta_m",
  trivial=(4.0, 1.0),
)


@pytest.fixture
def with_lines(monkeypatch):
  monkeypatch.setattr(cells_module, "load", lambda name: (lines(), TRAINING))
  monkeypatch.setattr(cells_module, "training_of", lambda name: TRAINING)


# ------------------------------------------------------------------- who takes part


def test_every_method_takes_part_and_can_be_made():
  assert {*METHODS} - {"stl"} <= {*everyone()}
  for name in everyone():
    make(parse(name), ("a", "b", "c"), 5)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("nobody", "unknown balancer 'nobody'"),
    ("ew@1", "a number above 1"),
    ("stl", "single tasks are trained anyway"),
    ("igbv1:colour=3", "colour"),
  ],
)
def test_bad_names_are_refused(text, message):
  with pytest.raises((TypeError, ValueError), match=message):
    check_names(["toy"], [text])


def test_a_method_that_does_not_fit_says_why():
  toy = load("toy")
  reasons = {name: unfit(parse(name), *toy) for name in METHODS}
  assert reasons["si"] == reasons["gradnorm"] == "needs positive losses"
  assert reasons["krum"] == "needs 3 tasks"
  assert reasons["ntksr"] == "needs features that all tasks share"
  assert reasons["ew"] is reasons["mgda"] is None


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"judged_by": "beauty"}, "beauty"),
    ({"trivial": (1.0,)}, "each of the 2 metrics"),
    ({"batch_size": 65}, "between 1 and the 64"),
  ],
)
def test_training_that_does_not_fit_is_refused(change, message):
  with pytest.raises(ValueError, match=message):
    Training(**vars(TRAINING) | change).check(lines())


@pytest.fixture(scope="module")
def molecules(qm9_dir):
  """The problem of the molecules, with fewer of them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("IGB_JAX_DATA", str(qm9_dir))
    patch.setattr(qm9, "FIRST", 500)
    patch.setattr(qm9, "HELD_OUT", {"validation": 40, "test": 60})
    return qm9.make_task()


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_fits_its_training(name, molecules):
  task, training = (molecules, qm9.TRAINING) if name == "qm9" else load(name)
  training.check(task)
  assert sorted(training.learning_rates) == [*training.learning_rates]
  check_names([name], entrants_of(name))


def test_molecules_are_learnt_at_the_features(molecules):
  training = dataclasses.replace(qm9.TRAINING, epochs=6)
  balancer = make(parse("mgda@features"), molecules.task_names, 1)
  run = make_runner(molecules, training, balancer, at_features=True)
  assert run([Lane(1e-2, 0)]).validation.mean() < 0.9 * np.mean(training.trivial)


def test_where_gradients_are_balanced_is_part_of_a_name():
  moved = parse("igbv1+mgda@features")
  assert (moved.spec, moved.moved, moved.at_features) == ("igbv1+mgda", True, True)
  assert parse("ntksr").at_features
  assert not parse("ntksr").moved
  assert not parse("mgda@2").at_features
  task, training = load("digits")
  assert unfit(parse("si@features"), task, training) == "balances no gradients"
  assert unfit(parse("mgda@features"), task, training) is None
  assert unfit(parse("mgda@features"), *load("toy"))
  with pytest.raises(ValueError, match='above 1, or "features"'):
    parse("mgda@heads")
  # it is compared with mgda on its problem, and has no place over problems
  cells = [cell("digits", name, [1.0]) for name in ("stl", "mgda", "mgda@features")]
  assert standings(cells).order == ["mgda"]
  assert "mgda@features" in standings(cells).scores["digits"]


def test_a_problem_may_name_who_plays_it():
  everywhere = {each.method for each in cells_of(["toy"], None)}
  assert everywhere == {"stl", *everyone()}
  assert [each.method for each in cells_of(["qm9"], None)] == ["stl", *qm9.ENTRANTS]
  assert [each.method for each in cells_of(["qm9"], ["krum"])] == ["stl", "krum"]


# --------------------------------------------------------------------------- a cell


def test_lanes_do_not_depend_on_each_other():
  run = make_runner(lines(), TRAINING, balancers.create("ew", num_tasks=2))
  lanes = [Lane(rate, seed) for rate in (1e-2, 1e-1) for seed in (0, 1)]
  together, alone = run(lanes), run(lanes[2:3])
  np.testing.assert_allclose(together.test[2], alone.test[0], 1e-5)
  assert len({*together.test[:, 0]}) == 4
  one_after_another = Training(**vars(TRAINING) | {"at_once": False})
  run = make_runner(lines(), one_after_another, balancers.create("ew", num_tasks=2))
  np.testing.assert_allclose(run(lanes).test, together.test, 1e-5)


def test_a_single_task_is_what_stl_trains():
  of_task = make_runner(lines(), TRAINING, None)([Lane(3e-2, 4, 1)])
  stl = balancers.create("stl", num_tasks=2, task=1)
  np.testing.assert_allclose(
    of_task.test, make_runner(lines(), TRAINING, stl)([Lane(3e-2, 4)]).test, 1e-5
  )


def test_gradients_are_balanced_at_the_shared_parameters():
  def losses(params, features, rows):
    return lines().losses({"shared": {"w": 0.0}, "heads": params["heads"]}, rows) + (
      (features - rows["y"]) ** 2
    ).mean(axis=0)

  def trunk(params, rows):
    return rows["x"] * params["shared"]["w"]

  with_trunk = ArrayTask(**vars(lines()) | {"losses": losses, "trunk": trunk})
  mgda = balancers.create("mgda", num_tasks=2, shared={"shared": True, "heads": False})
  plain = ArrayTask(**vars(lines()) | {"losses": with_trunk.losses_of})
  tests = [
    make_runner(task, TRAINING, mgda, at_features=at_features)([Lane(3e-2, 0)]).test
    for task, at_features in ((with_trunk, False), (plain, False), (with_trunk, True))
  ]
  np.testing.assert_array_equal(tests[0], tests[1])
  assert (tests[0] != tests[2]).any()


def test_a_longer_training_has_a_schedule_of_its_own():
  ew = balancers.create("ew", num_tasks=2)
  longer = make_runner(lines(), TRAINING, ew, length=2)([Lane(3e-2, 0)])
  twice = Training(**vars(TRAINING) | {"epochs": 40})
  expected = make_runner(lines(), twice, ew)([Lane(3e-2, 0)])
  np.testing.assert_array_equal(longer.test, expected.test)


def test_a_cell_takes_the_rate_that_validates_best(with_lines):
  found = play(Cell("lines", "ew"), num_seeds=2, num_validation_seeds=2)
  validation = np.array(found["validation"])
  assert validation.shape == (3, 2, 2)
  scores = score(validation, found, TRAINING.trivial).mean(axis=1)
  assert found["learning_rates"] == [TRAINING.learning_rates[scores.argmin()]]
  assert np.array(found["test"]).shape == (2, 2)
  assert found["num_steps"] == 80
  assert found["seconds_per_step"] > 0


def test_single_tasks_are_judged_each_by_its_own_net(with_lines):
  found = play(Cell("lines", "stl"), num_seeds=2, num_validation_seeds=1)
  assert len(found["learning_rates"]) == 2
  # each alone has nothing to share the slope with
  assert (np.array(found["test"]) < 0.1).all()
  both = play(Cell("lines", "ew"), num_seeds=2, num_validation_seeds=1)
  assert (np.array(both["test"]).sum(axis=1) > 1).all()


def test_a_run_that_is_not_finite_is_none(monkeypatch):
  def losses(params, rows):
    return lines().losses(params, rows) / np.float32(0)

  task = ArrayTask(**vars(lines()) | {"losses": losses})
  monkeypatch.setattr(cells_module, "load", lambda name: (task, TRAINING))
  monkeypatch.setattr(cells_module, "training_of", lambda name: TRAINING)
  found = play(Cell("lines", "ew"), num_seeds=1, num_validation_seeds=1)
  assert found["test"] == [[None, None]]
  json.dumps(found, allow_nan=False)


# ------------------------------------------------------------------- the standings


def cell(problem, method, test, **others):
  facts = {
    "problem": problem,
    "method": method,
    "num_tasks": 2,
    "metrics": ["x"],
    "units": ["%"],
    "higher_is_better": [False],
    "judged_by": "delta_m",
    "trivial": [10.0],
    "base": [10.0],
    "num_parameters": 1000,
    "machine": "a laptop",
    "versions": {"jax": "0.10"},
    "training": trained_as(problem) if problem in NAMES else {"learning_rates": [1e-3]},
    "kind": parse(method).kind,
    "learning_rates": [1e-3],
    "test": [[value] for value in test],
    "num_steps": 1,
    "seconds_per_step": 1.0,
  }
  return facts | others


def some_cells():
  noise = np.random.default_rng(0).normal(size=(3, SEEDS)) / 10
  better, plain, worse = noise + np.array([[1.0], [2.0], [3.0]])
  found = []
  for problem in ("digits", "diamonds", "burgers"):
    found += [
      cell(problem, "stl", plain),
      cell(problem, "ew", plain, seconds_per_step=0.5),
      cell(problem, "ew@2", better),
      cell(problem, "mgda", better, seconds_per_step=1.1),
      cell(problem, "si", [*worse[:-2], None, 11.0]),
    ]
  unfit = cell("burgers", "uw", plain) | {"unfit": "needs positive losses"}
  return [*found, unfit]


def test_the_standings_rank_compare_and_count():
  found = standings(some_cells())
  assert found.order == ["mgda", "ew", "si"]
  assert [found.place[name].mean for name in found.order] == [0, 50, 100]
  assert found.failures("digits", "si") == (1, 1)
  assert found.failures("digits", "ew") == (0, 0)
  np.testing.assert_allclose(
    found.scores["digits"]["ew"].mean(), 0, atol=1e-9
  )  # against itself
  assert found.time_of_ew["digits"]["mgda"] == 2.2
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


def test_the_cells_of_a_league_that_was_stopped_anywhere_make_a_report():
  cells = some_cells()
  for number in range(len(cells) + 1):
    for part in (cells[:number], cells[-number:] if number else []):
      found = standings(part)
      kinds = {each["method"]: each["kind"] for each in part}
      words.conclusions(found, kinds)
      tables.overall(found, kinds)


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
  assert verdict(places, p_values, "a", "b") == 0
  assert verdict(places, p_values, "c", "b") == 1
  assert verdict(places, p_values, "b", "c") == -1
  assert verdict(places, p_values, "b", "d") is None


@pytest.mark.parametrize("count", [4, 9, 40])
def test_the_signed_rank_test_is_scipys_with_ties_and_zeros_too(count):
  differences = np.random.default_rng(count).integers(-3, 5, count).astype(float)
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


# ------------------------------------------------------------------------ a league


def started(tmp_path, monkeypatch, *options):
  """The exit code of a league, and what it wrote."""
  monkeypatch.setattr(sys, "argv", ["league", *options])
  with pytest.raises(SystemExit) as ended:
    league.main([*options, f"--out={tmp_path}"])
  return ended.value.code


def rows_of(out):
  return [*csv.DictReader((out / "league.csv").read_text().splitlines())]


SMALL = ("--problems", "toy", "--methods", "ew", "mgda", "si", "--seeds=2")


def test_a_league_is_played_reported_and_gone_on_with(tmp_path, monkeypatch, capfd):
  options = (*SMALL, "--validation-seeds=1", "--parallel=2")
  assert started(tmp_path, monkeypatch, *options) == 0
  planned = cells_of(["toy"], ["ew", "mgda", "si"])
  times = {each: each.path(tmp_path).stat().st_mtime_ns for each in planned}
  page = (tmp_path / "league.html").read_text()
  for word in ("mgda", "needs positive losses", "Mean places", "Problem by problem"):
    assert word in page
  rows = rows_of(tmp_path)
  assert [(row["method"], row["seed"]) for row in rows] == [
    ("ew", "0"),
    ("ew", "1"),
    ("mgda", "0"),
    ("mgda", "1"),
  ]
  assert json.loads((tmp_path / "standings.json").read_text())["order"]
  assert "mgda" in (tmp_path / "league.md").read_text()
  # what is there is kept, what is missing is played, and the report is the same
  planned[1].path(tmp_path).unlink()
  assert started(tmp_path, monkeypatch, *options) == 0
  after = {each: each.path(tmp_path).stat().st_mtime_ns for each in planned}
  assert [each for each in planned if after[each] != times[each]] == [planned[1]]
  again = rows_of(tmp_path)
  assert [row["metrics"] for row in again] == [row["metrics"] for row in rows]
  # other seeds do not go together
  capfd.readouterr()
  assert started(tmp_path, monkeypatch, *SMALL, "--validation-seeds=2") == 2
  assert "validation" in capfd.readouterr().err


def test_a_report_is_written_of_whatever_is_played(tmp_path):
  (tmp_path / "league.json").write_text(
    json.dumps(
      {
        "command": "league",
        "started": "today",
        "settings": {
          "problems": ["digits", "diamonds", "burgers", "helmholtz"],
          "methods": ["ew", "ew@2", "mgda", "si", "uw"],
          "seeds": SEEDS,
          "validation_seeds": 1,
        },
      }
    )
  )
  for each in some_cells():
    cells_module.write(Cell(each["problem"], each["method"]), tmp_path, each)
  for path in write_report(tmp_path):
    assert path.stat().st_size > 0
  text = (tmp_path / "league.md").read_text()
  assert "16 cells (a method on a problem) are played" in text
  assert "uw on burgers: needs positive losses" in text
  assert "Runs on digits that were not finite: si (1)" in text


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (("--problems", "moon"), "moon"),
    (("--methods", "ew", "ew"), "each once"),
    (("--seeds=0",), "--seeds must be at least 1"),
  ],
)
def test_wrong_options_are_refused_before_anything_is_written(
  tmp_path, monkeypatch, capsys, options, message
):
  assert started(tmp_path, monkeypatch, *options) == 2
  assert message in capsys.readouterr().err
  assert not [*tmp_path.iterdir()]


def test_a_dry_run_writes_nothing_and_names_the_time(tmp_path, monkeypatch, capsys):
  assert started(tmp_path, monkeypatch, *SMALL, "--dry-run") == 0
  out = capsys.readouterr().out
  assert "toy: 3 methods" in out
  assert "in all with --parallel=1" in out
  assert not [*tmp_path.iterdir()]
