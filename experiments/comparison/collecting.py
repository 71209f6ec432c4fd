"""What the report of a comparison is made of."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from igb_jax.training.machine import processor
from igb_jax.training.run_folder import read_object

from .plan import Job, read_summary
from .settings import Comparison

_PACKAGES = ("igb_jax", "jax", "jaxlib", "flax", "optax", "numpy")


def collect(
  comparison: Comparison,
  out: Path,
  measured: dict[str, Any],
  jobs: Sequence[Job],
  failures: dict[str, str],
) -> dict[str, Any]:
  """What the report is made of.

  Args:
    comparison: the comparison.
    out: its folder.
    measured: what `experiments.comparison.measure` wrote.
    jobs: all of them.
    failures: folder of a run -> the last lines it wrote.
  """
  content = read_object(out / "compare.json")
  metrics = measured["metrics"]
  baselines, runs = [], []
  for run in (run for job in jobs for run in job.runs):
    summary = read_summary(out / run.folder, comparison.options.epochs)
    lines = failures.get(run.folder)
    entry: dict[str, Any] = {
      "seed": run.seed,
      "status": "done" if summary else ("failed" if lines is not None else "missing"),
      "folder": run.folder,
      "last_lines": None if summary else lines,
      "test": summary and summary["test"],
    }
    if run.contender is None:
      own = [metric["name"] for metric in metrics if metric["task"] == run.task]
      test = summary and {name: summary["test"][name] for name in own}
      baselines.append({"task": run.task, **entry, "test": test})
      continue
    names = ("delta_m", "epochs", "best_epoch", "num_steps", "train_seconds")
    facts = {name: summary and summary[name] for name in (*names, "skipped_steps")}
    runs.append({"balancer": run.contender.text, **entry, **facts})
  notes = [measured["seeds"]["why"]] if measured["seeds"]["why"] else []
  if comparison.config.parallel > 1:
    notes.append(
      f"{comparison.config.parallel} runs were trained at a time: the seconds of a run "
      "are longer than alone; those of a step were measured alone"
    )
  return {
    "dataset": measured["dataset"],
    "description": measured["description"],
    "notice": measured["notice"],
    "command": content["command"],
    "started": content["started"],
    **made_on(measured["device"]),
    "config": content["settings"],
    "tasks": measured["tasks"],
    "metrics": metrics,
    "base": measured["base"],
    "published": comparison.dataset.published_rows(),
    "baselines": baselines,
    "runs": runs,
    "timing": measured["timing"],
    "notes": notes,
  }


def made_on(device: str) -> dict[str, Any]:
  """What numbers were made on: "machine", and "versions" of packages."""
  versions = {name: version(name) for name in _PACKAGES}
  return {
    "machine": f"{device}, {processor()}, {os.cpu_count()} cores",
    "versions": versions | {"python": platform.python_version()},
  }
