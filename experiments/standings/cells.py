"""One method on one problem: learning rate by validation, then fresh seeds; one file.

    OUT/cells/<problem>/<method>.json

A file that is there is complete, so that the league can be stopped at any moment.
"""

import dataclasses
import json
import math
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from igb_jax import balancers
from igb_jax.metrics import delta_m
from igb_jax.training.array_task import ArrayTask
from igb_jax.training.run_folder import read_object, write_whole

from ..comparison.collecting import made_on
from ..comparison.estimates import finite_or_none
from ..problems import NAMES, load, training_of
from ..problems.base import Training
from .plan import SINGLE, Cell, make, parse, unfit
from .training import Lane, make_runner

_FIRST_VALIDATION_SEED = 1000  # far from those of the test
_BY_METRIC = ("metrics", "higher_is_better", "base")


def score(
  metrics: np.ndarray, facts: Mapping[str, Any], base: np.typing.ArrayLike
) -> np.ndarray:
  """By which a run is judged; lower is better.

  Args:
    metrics: f64[..., M], of runs.
    facts: judged_by, metrics and higher_is_better of the problem.
    base: f64[M], to which delta_m is relative.

  Returns:
    f64[...], delta_m in per cent, the mean of all metrics or the one that decides; NaN
    for a run that failed.

  Example:
    >>> facts = {"judged_by": "delta_m", "metrics": ["a"], "higher_is_better": [False]}
    >>> score(np.array([[3.0], [2.0]]), facts, [2.0]).tolist()
    [50.0, 0.0]
  """
  metrics = np.asarray(metrics, np.float64)
  if facts["judged_by"] == "mean":
    return metrics.mean(axis=-1)
  if facts["judged_by"] != "delta_m":
    return metrics[..., facts["metrics"].index(facts["judged_by"])]
  rows = metrics.reshape(-1, metrics.shape[-1])
  scores = [
    delta_m(row, base, facts["higher_is_better"])
    if np.isfinite(row).all()
    else math.nan
    for row in rows
  ]
  return np.reshape(scores, metrics.shape[:-1])


def trained_as(problem: str) -> dict[str, Any]:
  """How a problem is trained now, as JSON has it; a cell of another way is not used."""
  return json.loads(json.dumps(dataclasses.asdict(training_of(problem))))


def play(
  cell: Cell,
  num_seeds: int,
  num_validation_seeds: int,
  *,
  balancer: balancers.Balancer | None = None,
) -> dict[str, Any]:
  """Trains a method on a problem.

  Args:
    cell: the method and the problem.
    num_seeds: the number of seeds of the test.
    num_validation_seeds: the number of validation seeds of each learning rate.
    balancer: a variant that takes the place of the method, which has no name.

  Returns:
    What its file holds: the facts of the problem, and "unfit" with the reason; or
    "learning_rates", the chosen one, or one per task for single tasks, "validation"
    [rates, seeds, M], "test" [seeds, M] with None for runs that failed, "num_steps" and
    "seconds_per_step" of one run.
  """
  task, training = load(cell.problem)
  entrant, metrics = parse(cell.method), task.metrics
  facts = {
    "problem": cell.problem,
    "method": cell.method,
    "kind": entrant.kind,
    **_facts_of(task, training),
    "training": trained_as(cell.problem),
    **made_on(jax.default_backend()),
  }
  if reason := unfit(entrant, task, training):
    return facts | {"unfit": reason}
  # single tasks are nets of one task each; every metric is that of its task's net
  is_single = entrant.spec == SINGLE
  steps_per_epoch = training.steps_per_epoch(task)
  if not is_single:
    balancer = balancer or make(entrant, task.task_names, steps_per_epoch)
  run = make_runner(
    task,
    training,
    balancer,
    length=entrant.length,
    at_features=entrant.at_features,
  )
  rates, validation_seeds = training.learning_rates, range(num_validation_seeds)
  validation = np.empty((len(rates), num_validation_seeds, len(metrics)))
  test = np.empty((num_seeds, len(metrics)))
  chosen, seconds = [], []
  width = max(len(rates) * num_validation_seeds, num_seeds)  # compiled once
  for index, name in enumerate(task.task_names if is_single else [None]):
    judged = [i for i, metric in enumerate(metrics) if name in (None, metric.task)]
    lanes = [
      Lane(rate, _FIRST_VALIDATION_SEED + seed, index)
      for rate in rates
      for seed in validation_seeds
    ]
    found = run(_filled(lanes, width)).validation[: len(lanes)]
    validation[..., judged] = found.reshape(validation.shape)[..., judged]
    part = facts | {key: [facts[key][i] for i in judged] for key in _BY_METRIC}
    scores = score(validation[..., judged], part, part["base"]).mean(axis=1)
    best = rates[int(np.argmin(np.where(np.isfinite(scores), scores, np.inf)))]
    tested = run(_filled([Lane(best, seed, index) for seed in range(num_seeds)], width))
    test[:, judged] = tested.test[:num_seeds, judged]
    chosen.append(best)
    # alone, since vmap takes the time of both sides of every branch
    seconds.append(
      run(lanes[:1]).seconds if training.at_once else tested.seconds / width
    )
  num_steps = entrant.length * training.epochs * steps_per_epoch
  return facts | {
    "learning_rates": chosen,
    "validation": finite_or_none(validation),
    "test": finite_or_none(test),
    "num_steps": num_steps,
    "seconds_per_step": sum(seconds) / num_steps / len(seconds),
  }


def _facts_of(task: ArrayTask, training: Training) -> dict[str, Any]:
  """What every cell of a problem says of it."""
  bases = [metric.base for metric in task.metrics]
  params = jax.eval_shape(task.init, jax.random.key(0))
  return {
    "num_tasks": len(task.task_names),
    "metrics": [metric.name for metric in task.metrics],
    "units": [metric.unit for metric in task.metrics],
    "higher_is_better": [metric.higher_is_better for metric in task.metrics],
    "judged_by": training.judged_by,
    "trivial": [*training.trivial],
    # about what single tasks reach, which the choice of a rate must not wait for
    "base": [*training.trivial] if None in bases else bases,
    "num_parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
  }


def _filled(lanes: list[Lane], width: int) -> list[Lane]:
  return lanes + lanes[-1:] * (width - len(lanes))


def write(cell: Cell, out: Path, content: dict[str, Any]) -> None:
  """Writes the file of a cell, whole or not at all."""
  path = cell.path(out)
  path.parent.mkdir(parents=True, exist_ok=True)
  write_whole(path, json.dumps(content, allow_nan=False) + "\n")


def read(cell: Cell, out: Path) -> dict[str, Any] | None:
  """What `write` wrote; None if there is nothing, or the problem was trained otherwise.

  Raises:
    ValueError: the file is damaged.
  """
  path = cell.path(out)
  content = read_object(path) if path.exists() else None
  is_current = content and content.get("training") == trained_as(cell.problem)
  return content if is_current else None


def read_all(out: Path) -> list[dict[str, Any]]:
  """Every cell of a folder, whichever command played it.

  Raises:
    ValueError: a file is damaged.
  """
  found = []
  for problem in NAMES:
    names = sorted((out / "cells" / problem).glob("*.json"))
    cells = [Cell(problem, urllib.parse.unquote(path.stem)) for path in names]
    found += [content for cell in cells if (content := read(cell, out)) is not None]
  return found
