"""What the runs of a comparison did epoch by epoch, as means over their seeds."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from igb_jax.training.plots import BASE_EPOCH

from .estimates import finite_or_none
from .statistics import is_done


def read_curves(
  folder: Path, results: Mapping[str, Any]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
  """Reads the metrics.jsonl of all finished runs.

  Args:
    folder: the folder of the comparison; the folders of the runs are below it.
    results: the results of the comparison. Where no run of a balancer can be read, its
      curves of an earlier report are taken from "comparison" in them, so that a report
      can be written anew without the runs.

  Returns:
    Balancer -> its curves: lists [epochs][tasks] "losses", "weights", "gaps" (the loss
    divided by that of the base epoch) and, with a gradient balancer,
    "gradient_weights", and "gradient_cosines" [tasks][tasks] of the last epoch; None
    where a number is not finite, as the loss of a task without a label. Then what could
    neither be read nor taken from an earlier report.
  """
  runs: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
  unread = []
  for run in filter(is_done, results["runs"]):
    path = folder / run["folder"] / "metrics.jsonl"
    try:
      lines = [json.loads(line) for line in path.read_text().splitlines()]
      runs[run["balancer"]].append(_curves_of_run(lines, results["tasks"]))
    except (OSError, ValueError, LookupError, TypeError) as error:
      unread.append((run, getattr(error, "strerror", None) or repr(error)))
  earlier = results.get("comparison", {}).get("curves", {})
  curves = earlier | {balancer: _mean(each) for balancer, each in runs.items()}
  problems = [
    f"{run['balancer']}, seed {run['seed']}: {problem}"
    for run, problem in unread
    if run["balancer"] in runs or run["balancer"] not in earlier
  ]
  return curves, problems


def _curves_of_run(
  lines: Sequence[Mapping[str, Any]], tasks: Sequence[str]
) -> dict[str, np.ndarray]:
  losses, weights = (
    np.array([[line[kind][task] for task in tasks] for line in lines], np.float64)
    for kind in ("losses", "weights")
  )
  curves = {"losses": losses, "weights": weights}
  if len(lines) > BASE_EPOCH:
    with np.errstate(divide="ignore", invalid="ignore"):
      curves["gaps"] = losses / losses[BASE_EPOCH]
  if "gradient_weights" in lines[-1]:
    rows = [line["gradient_weights"] for line in lines]
    curves["gradient_weights"] = np.array(rows, np.float64)
    curves["gradient_cosines"] = np.array(lines[-1]["gradient_cosines"], np.float64)
  return curves


def _mean(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
  """Over the epochs that all runs have."""
  five_digits = np.vectorize(lambda value: float(f"{value:.5g}"), otypes=[float])
  means = {}
  for kind in (kind for kind in runs[0] if all(kind in run for run in runs)):
    length = min(len(run[kind]) for run in runs)
    mean = five_digits(np.mean([run[kind][:length] for run in runs], axis=0))
    means[kind] = finite_or_none(mean)
  return means
