"""A made-up problem, and the cells of a league that never was."""

import jax
import numpy as np

from experiments.problems import NAMES
from experiments.problems.base import Training
from experiments.standings.cells import trained_as
from experiments.standings.plan import parse
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
      cell(problem, "ew", plain, seconds_per_step=0.45),
      cell(problem, "ew@2", better, seconds_per_step=0.55),
      cell(problem, "mgda", better, seconds_per_step=1.1),
      cell(problem, "si", [*worse[:-2], None, 11.0]),
      cell(problem, "uw", plain) | {"unfit": "needs positive losses"},
    ]
  return found
