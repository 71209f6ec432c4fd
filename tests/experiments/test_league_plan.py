"""Who takes part in the league, and whether problems fit their training."""

import dataclasses

import numpy as np
import pytest

from experiments.problems import NAMES, entrants_of, load, qm9
from experiments.problems.base import Training
from experiments.standings.plan import (
  cells_of,
  check_names,
  everyone,
  make,
  parse,
  unfit,
)
from experiments.standings.statistics import standings
from experiments.standings.training import Lane, make_runner
from igb_jax.balancers.methods import METHODS
from tests.experiments.made_up_league import TRAINING, cell, lines


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
  assert reasons["pivrg"] == "is fairgrad without the scores of single-task nets"
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


@pytest.mark.slow
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
