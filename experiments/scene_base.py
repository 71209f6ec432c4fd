"""The base of delta_m on scenes: the paper's, or single-task runs of your own."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from igb_jax import scene_tasks
from igb_jax.training.problem import TaskMetric

# The base of delta_m, in the order and units of scene_tasks.METRICS: single-task runs
# of Table 1 of Dai et al., UAI 2023, as the published code has them.
SINGLE_TASK = (41.16, 65.7, 0.6074, 0.24, 24.49, 18.24, 31.92, 59.16, 70.56)


def read_base(paths: Sequence[Path]) -> tuple[float, ...]:
  """The base of delta_m, in the order of `scene_tasks.METRICS`.

  Args:
    paths: JSON files, each a summary of a single-task run, from which the metrics of
      its task are taken, or an object with some of the metrics; none for the paper's.

  Raises:
    ValueError: a file is neither, or a metric has no positive number, or has two.
    OSError: a file cannot be read.
  """
  if not paths:
    return SINGLE_TASK
  base: dict[str, float] = {}
  for path in paths:
    found = _read_metrics(path)
    twice = sorted(set(base) & set(found))
    if twice:
      raise ValueError(f"--stl-base has {', '.join(twice)} twice, again in {path}.")
    base |= found
  bad = [name for name in scene_tasks.METRICS if not 0 < base.get(name, 0) < np.inf]
  if bad:
    raise ValueError(
      f"--stl-base {', '.join(map(str, paths))} must have a positive number for every "
      f"metric; wrong or missing: {', '.join(bad)}."
    )
  return tuple(base[name] for name in scene_tasks.METRICS)


def _read_metrics(path: Path) -> dict[str, float]:
  try:
    content = json.loads(path.read_text(), parse_int=float)  # whole ones may be huge
  except (ValueError, RecursionError) as error:
    raise ValueError(f"--stl-base {path} is not a JSON file: {error}") from error
  if not isinstance(content, dict):
    raise ValueError(f"--stl-base {path} must hold a JSON object.")
  names: Sequence[str] = scene_tasks.METRICS
  values = content
  if "balancer" in content:
    if content["balancer"] != "stl":
      raise ValueError(
        f"--stl-base {path} is from a run with --balancer={content['balancer']}, not "
        "stl."
      )
    values = content.get("test")
    stated = content.get("balancer_options")
    stated = stated if isinstance(stated, list) else []
    parts = [str(option).partition("=") for option in stated]
    options = {name: value for name, _, value in parts}
    numbered = {str(number): task for number, task in enumerate(scene_tasks.TASKS)}
    named = options.get("task", "")
    task = numbered.get(named, named)
    if task not in scene_tasks.TASKS or not isinstance(values, dict):
      raise ValueError(
        f"--stl-base {path} is not the summary of a run of this experiment on one of "
        f"the tasks {', '.join(scene_tasks.TASKS)}."
      )
    names = scene_tasks.METRICS_OF_TASK[task]
  return {
    name: float(values[name])
    for name in names
    if isinstance(values.get(name), int | float) and values[name] is not True
  }


def metrics_with_base(paths: Sequence[Path]) -> tuple[TaskMetric, ...]:
  """The metrics of the scenes, with the base of delta_m."""
  task_of = {
    metric: task
    for task, metrics in scene_tasks.METRICS_OF_TASK.items()
    for metric in metrics
  }
  return tuple(
    TaskMetric(name, unit, task_of[name], higher, base)
    for name, unit, higher, base in zip(
      scene_tasks.METRICS,
      scene_tasks.UNITS,
      scene_tasks.HIGHER_IS_BETTER,
      read_base(paths),
      strict=True,
    )
  )
