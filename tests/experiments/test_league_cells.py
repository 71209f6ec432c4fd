"""A cell of the league: what is trained for it, and what it holds."""

import json

import numpy as np
import pytest

from experiments.problems.base import Training
from experiments.standings import cells as cells_module
from experiments.standings.cells import play, score
from experiments.standings.plan import Cell
from experiments.standings.training import Lane, make_runner
from igb_jax import balancers
from igb_jax.training.array_task import ArrayTask
from tests.experiments.made_up_league import TRAINING, lines


@pytest.fixture
def with_lines(monkeypatch):
  monkeypatch.setattr(cells_module, "load", lambda name: (lines(), TRAINING))
  monkeypatch.setattr(cells_module, "training_of", lambda name: TRAINING)


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
